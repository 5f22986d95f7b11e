// Data sets: an index in, one finished Sample out. SegDataset joins images, labels and augmentation as sections 3, 5 and 6 of the
// specification lay them down.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/augment_config.h"
#include "data/disk_image_cache.h"
#include "data/image_cache.h"
#include "data/image_order.h"
#include "data/instance.h"
#include "data/pixel_plan.h"
#include "data/sample.h"
#include "data/transforms/affine.h"
#include "data/transforms/letterbox.h"
#include "data/yolo_txt.h"
#include "tensor/base/rng.h"

namespace tessera {

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  // Item `index` as it is in `epoch`. Called from many threads; a function of its arguments alone.
  virtual Sample get(int64_t index, int epoch) const = 0;
  // The size of an item's pixels, where that is known before it is made; get_into() is then get() with the pixels (height x width x
  // 3) written to `pixels` instead of the sample's own memory. An empty size: they come with the sample.
  virtual Size pixel_size(int64_t) const { return {}; }
  virtual Sample get_into(int64_t index, int epoch, uint8_t* pixels) const;
  // The indices as a shuffled epoch shows them; 0, 1, 2, ... without an order of its own.
  virtual std::vector<int64_t> order(int epoch) const;
};

// Where the three partners of a mosaic come from. Both forms depend on (seed, epoch, index) alone, not on what happens to be in
// memory.
enum class MosaicPartners {
  kAuto,     // kUniform when all images fit into the cache, else kBuffer
  kUniform,  // any image of the set
  kBuffer,   // the original's rolling buffer of images that were shown lately (MosaicBuffer): they are still decoded
};

struct DatasetConfig {
  int imgsz = 640;
  bool train = true;   // augmentation; otherwise letterbox only (spec 6.11)
  Size fixed;          // of the network input, where that is not a square of imgsz (an .onnx file of one size); not with rect or train
  bool rect = false;   // batches of equal shape by aspect ratio (spec 3.5): the set is in the order of rising height / width
  int64_t batch = 16;  // for rect shapes and the size of the mosaic buffer
  int stride = 32;
  bool overlap_mask = true;
  int mask_ratio = 4;
  AugmentConfig augment;
  bool plan_pixels = false;  // training samples come with a plan of their pixels instead (data/pixel_plan.h), by the same random numbers
  int close_mosaic_at = -1;  // first epoch without mosaic, copy-paste, mixup and cutmix (spec 6.9); -1: never
  uint64_t seed = 0;
  ImageOrder order = ImageOrder::kSeed;
  MosaicPartners partners = MosaicPartners::kAuto;
  int64_t cache_bytes = int64_t(1) << 30;  // decoded images kept in memory; results never depend on it
  bool cache_lasting = false;  // of a set that does not fit keep the first images for good instead of the recent ones only
  std::optional<DiskCacheOptions> disk_cache;  // decoded images kept on a disk, too: where memory has none, they come from there

  // Reading of labels, used by open_dataset.
  LabelPolicy policy = LabelPolicy::kLenient;
  bool single_cls = false;
  std::vector<int32_t> classes;  // keep these only; empty: all
  double fraction = 1;           // of the images, train only

  // What images are fitted into when they are decoded.
  Size largest() const { return fixed == Size{} ? Size{imgsz, imgsz} : fixed; }
};

class SegDataset : public Dataset {
 public:
  // `scan` as scan_labels returns it; its images may be empty of objects, not of vertices. Error(kUsage) for values out of range.
  SegDataset(LabelScan scan, std::vector<std::string> names, DatasetConfig config);
  ~SegDataset() override;

  int64_t size() const override { return int64_t(images_.size()); }
  Sample get(int64_t index, int epoch) const override { return get_into(index, epoch, nullptr); }
  Size pixel_size(int64_t index) const override { return config_.train && config_.plan_pixels ? Size{} : input_size(index); }
  Sample get_into(int64_t index, int epoch, uint8_t* pixels) const override;
  std::vector<int64_t> order(int epoch) const override { return epoch_order(epoch)->order; }

  const DatasetConfig& config() const { return config_; }
  const std::vector<std::string>& names() const { return names_; }
  const ScanImage& image(int64_t index) const { return images_[size_t(index)]; }  // file, size, labels in fractions
  const LabelScan& scan() const { return scan_; }           // counters and findings; its images have moved here
  MosaicPartners partners() const { return partners_; }     // never kAuto
  int64_t decoded_bytes() const { return decoded_bytes_; }  // all images as the cache would hold them
  int64_t cache_budget() const { return cache_budget_; }    // bytes that the cache may take
  int64_t cache_bytes_at_most() const { return std::min(decoded_bytes_, cache_budget_); }  // that the cache will keep
  ImageCache::Statistics cache_statistics() const { return cache_->statistics(); }
  const DiskImageCache* disk_cache() const { return disk_cache_.get(); }  // none without DatasetConfig::disk_cache
  std::vector<int64_t> objects_by_class() const;
  Size input_size(int64_t index) const;  // of the network input

  // Where the time of get() goes, summed over all threads since the last call, in seconds of CPU time; for the loader bench.
  struct Timing {
    double decode = 0, labels = 0, pixels = 0, rasterize = 0;  // images from files; polygons and boxes; collage to colours; masks
    int64_t samples = 0;
  };
  Timing take_timing() const;

 private:
  struct Clock;
  struct Scene;
  // Parts of the constructor.
  void group_by_shape();   // the order and the shapes of rectangular batches (spec 3.5)
  void plan_memory();      // how many bytes of decoded images stay in memory, and with that where partners of a mosaic come from
  void open_disk_cache();  // behind the memory

  Size decoded_size(const ScanImage& image) const { return dataset_size({image.height, image.width}, config_.largest()); }
  DecodedPtr decoded(int64_t index) const;
  // Labels of an image in pixels of the resized image; only of objects whose bounding box is `wanted`.
  std::vector<Instance> instances(int64_t index, const Image& image, const std::function<bool(const BoxXyxy&)>& wanted = {}) const;
  int64_t partner(int64_t index, int epoch, Rng& rng) const;  // an image for the mosaic of this one
  bool closed(int epoch) const { return config_.close_mosaic_at >= 0 && epoch >= config_.close_mosaic_at; }
  double flipped_share() const;  // of copy-paste in flip mode
  void augment(int64_t index, int epoch, Rng& rng, Scene& out, bool draw_canvas, Clock& clock) const;
  bool joins_images(int epoch) const;  // whether join() may do anything
  std::optional<LabeledImage> join(int epoch, Rng& rng, Scene& scene, Clock& clock) const;
  AffineDraw place_mosaic(int64_t index, int epoch, Rng& rng, Scene& out, bool draw_canvas, Clock& clock) const;
  AffineDraw place_single(int64_t index, bool paste, Rng& rng, Scene& out, Clock& clock) const;
  Sample get_train(int64_t index, int epoch, uint8_t* pixels) const;
  Sample get_plain(int64_t index, uint8_t* pixels) const;
  void finish(const std::vector<Instance>& instances, Sample& sample, Clock& clock) const;

  struct EpochOrder {
    int epoch = -1;
    std::vector<int64_t> order, position;
    MosaicBuffer buffer;  // of kBuffer
  };
  std::shared_ptr<const EpochOrder> epoch_order(int epoch) const;
  std::vector<int64_t> order_of(int epoch) const;

  std::vector<ScanImage> images_;
  LabelScan scan_;
  std::vector<std::string> names_;
  DatasetConfig config_;
  MosaicPartners partners_ = MosaicPartners::kUniform;
  int64_t decoded_bytes_ = 0, cache_budget_ = 0;
  std::vector<Size> rect_shapes_;  // of each batch
  std::unique_ptr<ImageCache> cache_;
  std::unique_ptr<DiskImageCache> disk_cache_;  // behind cache_
  mutable std::mutex order_mutex_;
  mutable std::vector<std::shared_ptr<const EpochOrder>> orders_;  // of the last epochs asked for
  struct AtomicTiming;
  std::unique_ptr<AtomicTiming> timing_;
};

// Reads the data yaml (load_dataset_yaml), lists and scans the split and makes the data set. Findings are in its scan().
// Errors: those of load_dataset_yaml, list_images and scan_labels; Error(kUsage) for an unknown class in `classes`.
std::unique_ptr<SegDataset> open_dataset(const std::string& data, std::string_view split, const DatasetConfig& config,
                                         const std::filesystem::path& data_root = {});

}  // namespace tessera
