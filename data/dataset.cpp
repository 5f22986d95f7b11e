#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <numeric>

#include "data/dataset_yaml.h"
#include "data/rasterize.h"
#include "data/transforms/affine.h"
#include "data/transforms/copy_paste.h"
#include "data/transforms/flip.h"
#include "data/transforms/hsv.h"
#include "data/transforms/mixup.h"
#include "data/transforms/mosaic.h"

namespace tessera {

std::vector<int64_t> shuffled_order(int64_t n, uint64_t seed, int epoch) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t(0));
  Rng rng(seed, RngPurpose::kShuffle, uint64_t(epoch));
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[size_t(i)], order[size_t(rng.below(i + 1))]);
  return order;
}

// ---- timing ----------------------------------------------------------------------------------------------------------

struct SegDataset::AtomicTiming {
  std::atomic<int64_t> decode{0}, compose{0}, warp{0}, hsv{0}, rasterize{0}, other{0}, samples{0};  // nanoseconds
};

// Books the CPU time of this thread since the last mark on one part.
struct SegDataset::Clock {
  static int64_t now() {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
  }
  int64_t last = now();
  void mark(std::atomic<int64_t>& part) {
    const int64_t current = now();
    part.fetch_add(current - last, std::memory_order_relaxed);
    last = current;
  }
};

SegDataset::Timing SegDataset::take_timing() const {
  const auto take = [](std::atomic<int64_t>& part) { return double(part.exchange(0)) * 1e-9; };
  AtomicTiming& t = *timing_;
  return {take(t.decode), take(t.compose), take(t.warp), take(t.hsv), take(t.rasterize), take(t.other), t.samples.exchange(0)};
}

// ---- construction ----------------------------------------------------------------------------------------------------

namespace {

void check_config(const DatasetConfig& c) {
  const auto require = [](bool good, const char* name, double value, const char* range) {
    if (!good) throw Error(ErrorCode::kUsage, fmt::format("{} = {}", name, value), {}, range);
  };
  require(c.imgsz >= 32 && c.imgsz <= 16384, "imgsz", c.imgsz, "32 to 16384");
  require(c.stride >= 1, "stride", c.stride, "at least 1");
  require(c.batch >= 1, "batch", double(c.batch), "at least 1");
  require(c.mask_ratio >= 1 && c.mask_ratio <= 32, "mask_ratio", c.mask_ratio, "1 to 32");
  const AugmentConfig& a = c.augment;
  const auto share = [&](const char* name, double v) { require(v >= 0 && v <= 1, name, v, "0 to 1"); };
  share("mosaic", a.mosaic), share("copy_paste", a.copy_paste), share("translate", a.translate), share("scale", a.scale);
  share("mixup", a.mixup), share("hsv_h", a.hsv_h), share("hsv_s", a.hsv_s), share("hsv_v", a.hsv_v);
  share("flipud", a.flipud), share("fliplr", a.fliplr), share("bgr", a.bgr);
  require(a.degrees >= 0 && a.degrees <= 180, "degrees", a.degrees, "0 to 180");
  require(a.shear >= 0 && a.shear < 90, "shear", a.shear, "0 to below 90");
  require(a.perspective >= 0 && a.perspective <= 0.001, "perspective", a.perspective, "0 to 0.001");
}

void filter_classes(std::vector<ScanImage>& images, const std::vector<int32_t>& classes) {
  if (classes.empty()) return;
  for (ScanImage& image : images)
    std::erase_if(image.objects,
                  [&](const LabelObject& o) { return std::find(classes.begin(), classes.end(), o.class_id) == classes.end(); });
}

}  // namespace

SegDataset::~SegDataset() = default;

SegDataset::SegDataset(LabelScan scan, std::vector<std::string> names, DatasetConfig config)
    : images_(std::move(scan.images)),
      scan_(std::move(scan)),
      names_(std::move(names)),
      config_(std::move(config)),
      timing_(std::make_unique<AtomicTiming>()) {
  check_config(config_);
  TESSERA_CHECK(!images_.empty(), "a data set without images");
  filter_classes(images_, config_.classes);
  if (config_.single_cls)
    for (ScanImage& image : images_)
      for (LabelObject& o : image.objects) o.class_id = 0;
  if (config_.rect) {
    std::vector<Size> sizes;
    for (const ScanImage& i : images_) sizes.push_back({i.height, i.width});
    RectBatches batches = rect_batches(sizes, config_.batch, config_.imgsz, config_.stride, config_.train ? 0.0 : 0.5);
    std::vector<ScanImage> sorted;
    sorted.reserve(images_.size());
    for (const int64_t i : batches.order) sorted.push_back(std::move(images_[size_t(i)]));
    images_ = std::move(sorted);
    rect_shapes_ = std::move(batches.shapes);
    config_.augment.mosaic = config_.augment.mixup = 0;  // as the original does
  }
  for (const ScanImage& i : images_) {
    const Size s = dataset_size(i.height, i.width, config_.imgsz);
    decoded_bytes_ += int64_t(s.height) * s.width * 3;
  }
  const bool fits = decoded_bytes_ <= config_.cache_bytes;
  partners_ = config_.partners != MosaicPartners::kAuto ? config_.partners
              : fits                                    ? MosaicPartners::kUniform
                                                        : MosaicPartners::kWindow;
  window_ = std::min<int64_t>({size(), 8 * config_.batch, 1000});
  // Without partners to share, a cache that cannot hold the set would only churn.
  const bool useful = fits || (config_.train && config_.augment.mosaic > 0);
  int64_t budget = useful ? config_.cache_bytes : 0;
  if (!fits && partners_ == MosaicPartners::kWindow)
    budget = std::min(budget, (window_ + 4 * config_.batch) * int64_t(config_.imgsz) * config_.imgsz * 3);
  cache_ = std::make_unique<ImageCache>(budget);
}

int64_t SegDataset::picture_bytes_at_most() const { return std::min(decoded_bytes_, cache_->max_bytes()); }

std::vector<int64_t> SegDataset::objects_by_class() const {
  std::vector<int64_t> counts(names_.size(), 0);
  for (const ScanImage& i : images_)
    for (const LabelObject& o : i.objects) ++counts[size_t(o.class_id)];
  return counts;
}

Size SegDataset::input_size(int64_t index) const {
  return config_.rect ? rect_shapes_[size_t(index / config_.batch)] : Size{config_.imgsz, config_.imgsz};
}

// ---- one item --------------------------------------------------------------------------------------------------------

DecodedPtr SegDataset::decoded(int64_t index) const {
  return cache_->get(index, [&]() -> DecodedPtr {
    auto out = std::make_shared<DecodedImage>();
    out->image = read_image(images_[size_t(index)].file);
    out->original_height = out->image.height;
    out->original_width = out->image.width;
    const Size s = dataset_size(out->image.height, out->image.width, config_.imgsz);
    if (s.height != out->image.height || s.width != out->image.width) out->image = resize_bilinear(out->image, s.height, s.width);
    return out;
  });
}

// Labels in pixels of the resized picture, polygons resampled (spec 5.5).
std::vector<Instance> SegDataset::instances(int64_t index, const Image& image) const {
  const std::vector<LabelObject>& objects = images_[size_t(index)].objects;
  size_t longest = 0;
  for (const LabelObject& o : objects) longest = std::max(longest, o.polygon.size());
  const int64_t count = resample_count(int64_t(longest));
  const float w = float(image.width), h = float(image.height);
  std::vector<Instance> out(objects.size());
  for (size_t i = 0; i < objects.size(); ++i) {
    const std::array<float, 4>& b = objects[i].box;
    out[i].class_id = objects[i].class_id;
    out[i].box = {(b[0] - b[2] / 2) * w, (b[1] - b[3] / 2) * h, (b[0] + b[2] / 2) * w, (b[1] + b[3] / 2) * h};
    out[i].polygon = resample(objects[i].polygon, count);
    for (Point& p : out[i].polygon) p = {p.x * w, p.y * h};
  }
  return out;
}

std::shared_ptr<const SegDataset::EpochOrder> SegDataset::epoch_order(int epoch) const {
  std::lock_guard lock(order_mutex_);
  for (const auto& o : orders_)
    if (o->epoch == epoch) return o;
  auto made = std::make_shared<EpochOrder>();
  made->epoch = epoch;
  made->order = shuffled_order(size(), config_.seed, epoch);
  made->position.resize(made->order.size());
  for (size_t i = 0; i < made->order.size(); ++i) made->position[size_t(made->order[i])] = int64_t(i);
  constexpr size_t kKept = 3;
  if (orders_.size() == kKept) orders_.erase(orders_.begin());
  orders_.push_back(made);
  return made;
}

int64_t SegDataset::partner(int64_t index, int epoch, Rng& rng) const {
  if (partners_ == MosaicPartners::kUniform) return rng.below(size());
  const auto current = epoch_order(epoch);
  const int64_t at = current->position[size_t(index)] - rng.below(window_);
  if (at >= 0) return current->order[size_t(at)];
  // Before the start: the end of the epoch before, whose pictures are still in memory; of the first epoch its own end.
  return epoch_order(std::max(epoch - 1, 0))->order[size_t(size() + at)];
}

// Mosaic or letterbox, copy-paste, and the affine transform: steps 1 to 4 of section 6.
void SegDataset::augment(int64_t index, int epoch, Rng& rng, LabeledImage& out, Clock& clock) const {
  thread_local LabeledImage canvas;  // its memory is used again for every item of this thread
  const AugmentConfig& c = config_.augment;
  const bool closed = config_.close_mosaic_at >= 0 && epoch >= config_.close_mosaic_at;
  const int s = config_.imgsz;
  const Size target = input_size(index);
  const bool with_mosaic = !(rng.uniform() > (closed ? 0.0 : c.mosaic)) && !closed && c.mosaic > 0;
  AffineDraw draw;
  Matrix3 m{};

  if (with_mosaic) {
    std::array<int64_t, 4> members = {index};
    for (size_t k = 1; k < 4; ++k) members[k] = partner(index, epoch, rng);
    const int yc = int(rng.uniform(s / 2.0, 3 * s / 2.0)), xc = int(rng.uniform(s / 2.0, 3 * s / 2.0));
    clock.mark(timing_->other);
    std::array<DecodedPtr, 4> pictures;
    for (size_t k = 0; k < 4; ++k) pictures[k] = decoded(members[k]);
    clock.mark(timing_->decode);
    std::array<MosaicPart, 4> parts;
    for (size_t k = 0; k < 4; ++k) parts[k] = {&pictures[k]->image, instances(members[k], pictures[k]->image)};
    // The affine draws follow those of the mosaic whether or not the canvas is complete.
    draw = draw_affine(rng, c);
    m = affine_matrix(draw, 2 * s, 2 * s, s, s);
    const bool whole = c.perspective > 0 || c.copy_paste > 0;
    canvas.instances =
        mosaic(parts, s, xc, yc, canvas.image, whole ? PixelBox{0, 0, 2 * s, 2 * s} : warp_footprint(m, 2 * s, 2 * s, s, s));
    if (c.copy_paste > 0) copy_paste_flip(canvas, c.copy_paste);
  } else {
    const DecodedPtr picture = decoded(index);
    clock.mark(timing_->decode);
    canvas.instances = instances(index, picture->image);
    const LetterboxPlan plan = plan_letterbox({picture->image.height, picture->image.width}, target);
    if (c.copy_paste > 0 && !closed) {
      LabeledImage pasted{picture->image, std::move(canvas.instances)};
      copy_paste_flip(pasted, c.copy_paste);
      canvas.instances = std::move(pasted.instances);
      canvas.image = letterbox(pasted.image, plan);
    } else {
      canvas.image = letterbox(picture->image, plan);
    }
    letterbox(canvas.instances, plan);
    draw = draw_affine(rng, c);
    m = affine_matrix(draw, canvas.image.height, canvas.image.width, target.height, target.width);
  }
  clock.mark(timing_->compose);
  warp(canvas.image, m, c.perspective > 0, target.height, target.width, out.image);
  clock.mark(timing_->warp);
  out.instances = std::move(canvas.instances);
  transform_instances(out.instances, m, draw.scale, target.height, target.width);
  clock.mark(timing_->other);
}

Sample SegDataset::get_train(int64_t index, int epoch) const {
  thread_local LabeledImage picture, other;
  Clock clock;
  Rng rng(config_.seed, RngPurpose::kAugment, uint64_t(epoch) << 40 | uint64_t(index));
  const AugmentConfig& c = config_.augment;
  augment(index, epoch, rng, picture, clock);
  const bool closed = config_.close_mosaic_at >= 0 && epoch >= config_.close_mosaic_at;
  if (c.mixup > 0 && !closed && !(rng.uniform() > c.mixup)) {
    augment(rng.below(size()), epoch, rng, other, clock);
    mixup(picture, std::move(other), rng.beta(32, 32));
    clock.mark(timing_->compose);
  }
  augment_hsv(picture.image, draw_hsv(rng, c));
  clock.mark(timing_->hsv);
  CopyOptions copy;
  copy.vertical = rng.uniform() < c.flipud;
  copy.horizontal = rng.uniform() < c.fliplr;
  copy.swap_channels = rng.uniform() < c.bgr;
  if (copy.vertical) flip_vertical(picture.instances, picture.image.height);
  if (copy.horizontal) flip_horizontal(picture.instances, picture.image.width);

  Sample sample;
  sample.index = index;
  sample.height = picture.image.height;
  sample.width = picture.image.width;
  sample.pixels.resize(picture.image.pixels.size());
  copy_flipped(picture.image.pixels.data(), sample.height, sample.width, sample.pixels.data(), copy);
  sample.geometry.original_height = images_[size_t(index)].height;
  sample.geometry.original_width = images_[size_t(index)].width;
  clock.mark(timing_->other);
  finish(picture, sample, clock);
  return sample;
}

Sample SegDataset::get_plain(int64_t index) const {
  Clock clock;
  const DecodedPtr decoded_picture = decoded(index);
  clock.mark(timing_->decode);
  const Image& image = decoded_picture->image;
  LetterboxOptions options;
  options.scaleup = false;
  const LetterboxPlan plan = plan_letterbox({image.height, image.width}, input_size(index), options);
  LabeledImage picture{letterbox(image, plan), instances(index, image)};
  letterbox(picture.instances, plan);

  Sample sample;
  sample.index = index;
  sample.height = picture.image.height;
  sample.width = picture.image.width;
  sample.pixels.assign(picture.image.pixels.begin(), picture.image.pixels.end());
  sample.geometry = {decoded_picture->original_height,
                     decoded_picture->original_width,
                     double(image.height) / decoded_picture->original_height,
                     double(image.width) / decoded_picture->original_width,
                     plan.left,
                     plan.top};
  clock.mark(timing_->compose);
  finish(picture, sample, clock);
  return sample;
}

// Masks, and targets in the order of their values (spec 5.6, 5.7).
void SegDataset::finish(LabeledImage& picture, Sample& sample, Clock& clock) const {
  sample.file = images_[size_t(sample.index)].file;
  sample.overlap = config_.overlap_mask;
  MaskTargets masks = config_.overlap_mask ? overlap_masks(picture.instances, sample.height, sample.width, config_.mask_ratio)
                                           : separate_masks(picture.instances, sample.height, sample.width, config_.mask_ratio);
  sample.mask_height = masks.height;
  sample.mask_width = masks.width;
  sample.masks = std::move(masks.values);
  const float w = float(sample.width), h = float(sample.height);
  sample.targets.reserve(masks.order.size());
  for (const int64_t j : masks.order) {
    const Instance& i = picture.instances[size_t(j)];
    sample.targets.push_back(
        {i.class_id, {(i.box.x1 + i.box.x2) / 2 / w, (i.box.y1 + i.box.y2) / 2 / h, i.box.width() / w, i.box.height() / h}});
  }
  clock.mark(timing_->rasterize);
  timing_->samples.fetch_add(1, std::memory_order_relaxed);
}

Sample SegDataset::get(int64_t index, int epoch) const {
  TESSERA_CHECK(index >= 0 && index < size() && epoch >= 0, "SegDataset::get: index {} of {}, epoch {}", index, size(), epoch);
  return config_.train ? get_train(index, epoch) : get_plain(index);
}

std::unique_ptr<SegDataset> open_dataset(const std::string& data, std::string_view split, const DatasetConfig& config,
                                         const std::filesystem::path& data_root) {
  const std::string_view needed[] = {split};
  const DatasetYaml yaml = load_dataset_yaml(data, data_root, needed);
  std::vector<std::string> files = list_images(yaml, split);
  if (config.train) keep_fraction(files, config.fraction);
  const int64_t classes = int64_t(yaml.names.size());
  for (const int32_t c : config.classes)
    if (c < 0 || c >= classes)
      throw Error(ErrorCode::kUsage, fmt::format("classes: {} is not in this data set", c), {},
                  fmt::format("ids run from 0 to {}", classes - 1));
  LabelScan scan = scan_labels(files, classes, {config.policy, config.single_cls && config.classes.empty(), false});
  scan.findings.insert(scan.findings.begin(), yaml.findings.begin(), yaml.findings.end());
  std::vector<std::string> names = config.single_cls ? std::vector<std::string>{"item"} : yaml.names;
  return std::make_unique<SegDataset>(std::move(scan), std::move(names), config);
}

}  // namespace tessera
