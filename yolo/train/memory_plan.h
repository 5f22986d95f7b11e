// How much memory a training will take, told before it begins: the network, the optimizer, a training step and a validation are
// rehearsed through a backend that computes nothing and an allocator whose pages hardly anybody touches. What is left is the
// sequence of allocations, exact for any batch, in a few milliseconds and without a number of the real training being changed.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "data/image.h"
#include "yolo/model_yaml.h"
#include "yolo/train/train_options.h"

namespace tessera {

// Sizes of a training batch.
struct TrainShape {
  Size images;    // as the loader hands them over
  Size input;     // of the network: another one where they are resized for it
};

struct MemoryRequest {
  ModelSpec spec;
  Device device;
  DType compute_type = DType::kF32;
  bool recompute = false;  // activations are made again in the backward pass
  std::vector<int32_t> frozen_layers;
  UpdateRule rule = UpdateRule::kSgd;
  int64_t imgsz = 640;
  std::vector<TrainShape> shapes;  // that training batches have; none: squares of imgsz
  int64_t mask_ratio = 4;
  int64_t val_images = std::numeric_limits<int64_t>::max();  // in batches of twice the size; 0: no validation
  int64_t batches_ahead = 3;                                 // that the loader makes beside the one in use
  int64_t loader_threads = 2;                                // each with the images of two mosaics
  int64_t cache_bytes = 0;                                   // decoded images that the data sets will keep
  bool plan_pixels = false;  // the device makes the training images, from up to four decoded ones each
  bool plots = true;         // plots are drawn into the run folder
  int64_t report_bytes = 0;  // of a validation's figures and their plots
};

class MemoryPlan {
 public:
  explicit MemoryPlan(MemoryRequest request);
  ~MemoryPlan();

  // Peak in bytes: of the device's memory for a GPU; else of this process, that is what was resident outside of the host
  // allocator when the plan was made and what the program touches of itself later, the allocator's reserve (scratch of convolutions
  // with it), the scratch that the compute threads keep, samples and decoded images. A checkpoint finds its place where the
  // activations were. Left out, as small: stacks, tables. INT64_MAX for a batch that the address space cannot hold.
  int64_t peak_bytes(int64_t batch);

  bool recomputes() const { return request_.recompute; }
  bool draws_much() const;  // of thousands of classes: --plots false needs less

  // The largest batch of 1 .. most whose peak stays within `bytes`; 0: none.
  int64_t largest_batch(int64_t bytes, int64_t most);

 private:
  struct Rehearsal;
  MemoryRequest request_;
  int64_t elsewhere_;  // resident outside of the host allocator when the plan was made
  std::unique_ptr<Rehearsal> rehearsal_;
};

// Part of the budget that --batch -1 plans with: the original's choice for a GPU.
inline constexpr double kPlannedPart = 0.6;

struct MemoryBudget {
  int64_t bytes = 0;  // that this process may hold in all, or on the device; 0: unknown
  std::string what;   // the limit that counts, for people
};
MemoryBudget memory_budget(Device device);

// The batch of --batch -1: the largest within kPlannedPart of the budget, at most nbs, since a larger one would change the recipe.
// Error(kMemory): not even one image fits. `reason` tells it to people.
int64_t plan_batch(MemoryPlan& plan, const MemoryBudget& budget, int64_t nbs, std::string& reason);

// What a training on `images` images in this batch takes, as peak_bytes() tells it; Error(kMemory), with the batch that would
// fit, if that is more than the budget.
int64_t check_memory(MemoryPlan& plan, const MemoryBudget& budget, int64_t batch, int64_t images, int64_t imgsz);

}  // namespace tessera
