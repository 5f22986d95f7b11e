// An exported YOLOv8-seg file, ours or the original's, as a network for prediction and validation (spec 11.3). It runs on the CPU in f32.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/image.h"
#include "yolo/io/onnx_program.h"
#include "yolo/network.h"

namespace tessera {

class OnnxNetwork : public SegNetwork {
 public:
  // Error(kData) with the file: no such form, an operator that is not run, suppression inside (nms=True), another task.
  explicit OnnxNetwork(const std::filesystem::path& file);

  const std::vector<std::string>& names() const { return names_; }  // "class0", ... when the file has none
  // Free batch, height and width; else there are these and no others. Of the metadata where they are free.
  bool dynamic() const { return dynamic_; }
  int64_t batch() const { return batch_; }
  std::array<int64_t, 2> size() const { return size_; }  // height, width
  // For a predictor: the size that every image is padded to, empty when any will do; and the longer side that images are
  // brought to, that of the file unless another is asked for (0: none is). Error(kUsage): the file takes one size, and it is
  // another.
  Size fixed_size() const { return dynamic_ ? Size{} : Size{int(size_[0]), int(size_[1])}; }
  int64_t imgsz(int64_t asked) const;

  int64_t nc() const override { return int64_t(names_.size()); }
  const std::array<int64_t, kAnchorLevels>& strides() const override { return strides_; }
  int64_t max_stride() const override { return strides_.back(); }
  Device device() const override { return {}; }
  // Any number of images: a file of a fixed batch takes them in parts, the last one filled up with black.
  void place(const Tensor& images) override;
  RawOutputs run() override;

 private:
  [[noreturn]] void refuse(const std::string& what, const std::string& hint) const;
  void read_sizes();
  void read_outputs();
  void read_names(int64_t count);
  void run_part(const Tensor& part, RawOutputs& into, int64_t first, int64_t images) const;

  std::string file_;
  std::unique_ptr<OnnxProgram> program_;
  std::vector<std::string> names_;
  bool dynamic_ = false;
  int64_t batch_ = 1, masks_ = 0;
  std::array<int64_t, 2> size_{640, 640};
  std::array<int64_t, kAnchorLevels> strides_{8, 16, 32};
  Tensor images_;  // f32 (N, 3, H, W), channels last in memory
};

// {0: 'person', 1: "cat's"}, as Python writes it; nothing: it is not that.
std::vector<std::string> names_from_python(std::string_view text);

}  // namespace tessera
