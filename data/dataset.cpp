#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <functional>
#include <numeric>

#include "data/dataset_yaml.h"
#include "data/rasterize.h"
#include "data/transforms/affine.h"
#include "data/transforms/copy_paste.h"
#include "data/transforms/cutmix.h"
#include "data/transforms/flip.h"
#include "data/transforms/hsv.h"
#include "data/transforms/mixup.h"
#include "data/transforms/mosaic.h"

namespace tessera {

std::vector<int64_t> Dataset::order(int) const {
  std::vector<int64_t> order(static_cast<size_t>(size()));
  std::iota(order.begin(), order.end(), int64_t(0));
  return order;
}

Sample Dataset::get_into(int64_t index, int epoch, uint8_t* pixels) const {
  Sample sample = get(index, epoch);
  std::copy(sample.pixels.begin(), sample.pixels.end(), pixels);
  sample.pixels = {};
  return sample;
}

// ---- timing ----------------------------------------------------------------------------------------------------------

struct SegDataset::AtomicTiming {
  std::atomic<int64_t> decode{0}, labels{0}, pixels{0}, rasterize{0}, samples{0};  // nanoseconds
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
  return {take(t.decode), take(t.labels), take(t.pixels), take(t.rasterize), t.samples.exchange(0)};
}

// ---- construction ----------------------------------------------------------------------------------------------------

namespace {

void check_config(const DatasetConfig& c) {
  const auto require = [](bool good, const char* name, double value, const char* range) {
    if (!good) throw Error(ErrorCode::kUsage, fmt::format("{} = {}", name, value), {}, range);
  };
  require(c.imgsz >= 32 && c.imgsz <= 16384, "imgsz", c.imgsz, "32 to 16384");
  require(c.stride >= 1, "stride", c.stride, "at least 1");
  TESSERA_CHECK(c.fixed == Size{} || !(c.train || c.rect), "a fixed size in training or with rect");
  require(c.batch >= 1, "batch", double(c.batch), "at least 1");
  require(c.mask_ratio >= 1 && c.mask_ratio <= 32, "mask_ratio", c.mask_ratio, "1 to 32");
  const AugmentConfig& a = c.augment;
  const auto share = [&](const char* name, double v) { require(v >= 0 && v <= 1, name, v, "0 to 1"); };
  share("mosaic", a.mosaic), share("copy_paste", a.copy_paste), share("translate", a.translate), share("scale", a.scale);
  share("mixup", a.mixup), share("cutmix", a.cutmix), share("hsv_h", a.hsv_h), share("hsv_s", a.hsv_s), share("hsv_v", a.hsv_v);
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
  if (config_.rect) group_by_shape();
  plan_memory();
  if (config_.disk_cache) open_disk_cache();
}

void SegDataset::group_by_shape() {
  std::vector<Size> sizes;
  for (const ScanImage& i : images_) sizes.push_back({i.height, i.width});
  RectBatches batches = rect_batches(sizes, config_.batch, config_.imgsz, config_.stride, config_.train ? 0.0 : 0.5);
  std::vector<ScanImage> sorted;
  sorted.reserve(images_.size());
  for (const int64_t i : batches.order) sorted.push_back(std::move(images_[size_t(i)]));
  images_ = std::move(sorted);
  rect_shapes_ = std::move(batches.shapes);
  config_.augment.mosaic = config_.augment.mixup = config_.augment.cutmix = 0;  // as the original does
}

void SegDataset::plan_memory() {
  for (const ScanImage& i : images_) {
    const Size s = decoded_size(i);
    decoded_bytes_ += int64_t(s.height) * s.width * 3;
  }
  const bool fits = decoded_bytes_ <= config_.cache_bytes;
  partners_ = config_.partners != MosaicPartners::kAuto ? config_.partners
              : fits                                    ? MosaicPartners::kUniform
                                                        : MosaicPartners::kBuffer;
  const bool mosaics = config_.train && config_.augment.mosaic > 0;
  // What the mosaic buffer needs; a set that fits never fills more than itself.
  const int64_t recent = (std::min<int64_t>({size(), 8 * config_.batch, 1000}) + 4 * config_.batch) * int64_t(config_.imgsz) * config_.imgsz * 3;
  if (fits || config_.cache_lasting) {
    cache_budget_ = config_.cache_bytes;
  } else if (mosaics) {
    cache_budget_ = partners_ == MosaicPartners::kBuffer ? std::min(config_.cache_bytes, recent) : config_.cache_bytes;
  }  // without partners to share, a cache that cannot hold the set would only churn
  int64_t for_recent = cache_budget_;
  if (config_.cache_lasting && !fits) for_recent = mosaics ? std::min(cache_budget_ / 2, recent) : 0;
  cache_ = std::make_unique<ImageCache>(for_recent, cache_budget_ - for_recent);
}

void SegDataset::open_disk_cache() {
  std::vector<DiskImageCache::Wanted> wanted;
  wanted.reserve(images_.size());
  for (const ScanImage& i : images_) wanted.push_back({i.file, decoded_size(i)});
  disk_cache_ = std::make_unique<DiskImageCache>(*config_.disk_cache, config_.largest(), wanted);
}

std::vector<int64_t> SegDataset::objects_by_class() const {
  std::vector<int64_t> counts(names_.size(), 0);
  for (const ScanImage& i : images_)
    for (const LabelObject& o : i.objects) ++counts[size_t(o.class_id)];
  return counts;
}

Size SegDataset::input_size(int64_t index) const {
  return config_.rect ? rect_shapes_[size_t(index / config_.batch)] : config_.largest();
}

// ---- one item --------------------------------------------------------------------------------------------------------

DecodedPtr SegDataset::decoded(int64_t index) const {
  const std::string& file = images_[size_t(index)].file;
  const auto decode = [&]() -> DecodedPtr {
    auto out = std::make_shared<DecodedImage>();
    out->image = read_image(file);
    out->original_height = out->image.height;
    out->original_width = out->image.width;
    const Size s = dataset_size({out->image.height, out->image.width}, config_.largest());
    if (s.height != out->image.height || s.width != out->image.width) out->image = resize_bilinear(out->image, s.height, s.width);
    return out;
  };
  return cache_->get(index, [&] { return disk_cache_ ? disk_cache_->get(file, decode) : decode(); });
}

// Vertices that each object of the image gets (spec 5.5).
static int64_t vertices_of(const ScanImage& image) {
  size_t longest = 0;
  for (const LabelObject& o : image.objects) longest = std::max(longest, o.polygon.size());
  return resample_count(int64_t(longest));
}

// Labels in pixels of the resized image, polygons resampled (spec 5.5); of the objects whose polygon lies in a box that is
// `wanted`.
std::vector<Instance> SegDataset::instances(int64_t index, const Image& image, const std::function<bool(const BoxXyxy&)>& wanted) const {
  const std::vector<LabelObject>& objects = images_[size_t(index)].objects;
  const int64_t count = vertices_of(images_[size_t(index)]);
  const float w = float(image.width), h = float(image.height);
  std::vector<Instance> out;
  out.reserve(objects.size());
  for (const LabelObject& object : objects) {
    if (wanted) {
      const BoxXyxy around = bounding_box(object.polygon);
      if (!wanted({around.x1 * w, around.y1 * h, around.x2 * w, around.y2 * h})) continue;
    }
    const std::array<float, 4>& b = object.box;
    Instance& instance = out.emplace_back();
    instance.class_id = object.class_id;
    instance.box = {(b[0] - b[2] / 2) * w, (b[1] - b[3] / 2) * h, (b[0] + b[2] / 2) * w, (b[1] + b[3] / 2) * h};
    instance.polygon = resample(object.polygon, count);
    for (Point& p : instance.polygon) p = {p.x * w, p.y * h};
  }
  return out;
}

std::vector<int64_t> SegDataset::order_of(int epoch) const {
  return config_.order == ImageOrder::kOriginal ? original_order(size(), config_.batch, epoch, config_.close_mosaic_at)
                                                : shuffled_order(size(), config_.seed, epoch);
}

std::shared_ptr<const SegDataset::EpochOrder> SegDataset::epoch_order(int epoch) const {
  std::lock_guard lock(order_mutex_);
  for (const auto& o : orders_)
    if (o->epoch == epoch) return o;
  auto made = std::make_shared<EpochOrder>();
  made->epoch = epoch;
  made->order = order_of(epoch);
  if (partners_ == MosaicPartners::kBuffer) {
    // A buffer passes from epoch to epoch: go on from the last one known, or from the start (after a resume).
    MosaicBuffer buffer;
    int next = 0;
    for (const auto& o : orders_) {
      if (o->epoch < epoch && o->epoch >= next) {
        buffer = o->buffer;
        next = o->epoch + 1;
      }
    }
    for (; next < epoch; ++next) buffer = roll_buffer(order_of(next), buffer.held_at_end(), config_.batch);
    made->buffer = roll_buffer(made->order, buffer.held_at_end(), config_.batch);
  }
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
  const auto held = current->buffer.held(current->position[size_t(index)]);
  return held[size_t(rng.below(int64_t(held.size())))];
}

// What a training item will look like before its colours change: the images that it is made of, and the objects already in place.
// Pixels are made when everything is drawn, in one go for each row.
struct SegDataset::Scene {
  std::array<DecodedPtr, 4> sources;
  LabeledImage canvas;  // used when a step needs it whole
  Collage collage;      // where they lie on the canvas
  Matrix3 m{};          // canvas to network input
  bool perspective = false;  // m has a third row
  bool by_rows = false;      // m scales and shifts only: each row is made straight from the collage
  bool drawn = false;        // the canvas is an image of its own, not images side by side
  Size target;               // of the network input
  std::vector<Instance> instances;

  // What render() and ColoredRows would do, for somebody else; hands over the canvas, if there is one.
  void describe(const HsvChange& colors, const FlipDraw& flip, PixelPlan& plan) {
    plan = {};
    AugmentItem& item = plan.item;
    item.path = by_rows ? AugmentPath::kRows : perspective ? AugmentPath::kPerspective : AugmentPath::kAffine;
    const Matrix3 inverse = inverse_map(m, perspective);
    std::copy(inverse.begin(), inverse.end(), item.inverse);
    item.canvas_height = collage.height;
    item.canvas_width = collage.width;
    const auto add = [&](const Image& image, int x, int y) {
      item.tiles[item.tile_count++] = {0, image.height, image.width, x, y};
    };
    if (drawn) {
      plan.canvas = std::move(canvas.image);
      canvas.image = {};
      add(plan.canvas, 0, 0);
    } else {
      plan.sources = sources;
      for (int k = 0; k < collage.count; ++k)
        add(sources[size_t(k)]->image, collage.parts[size_t(k)].x, collage.parts[size_t(k)].y);
    }
    item.hue_shift = colors.hue_shift();
    item.saturation_gain = colors.saturation_gain();
    item.value_gain = colors.value_gain();
    item.mirror = flip.horizontal;
    item.flip = flip.vertical;
    item.swap_channels = flip.swap_channels;
  }

  void render(RowSink& sink) const {
    if (by_rows) return warp_rows(collage, m, target.height, target.width, sink);
    thread_local Image out;
    warp(canvas.image, m, perspective, target.height, target.width, out);
    for (int y = 0; y < out.height; ++y) {
      uint8_t* const row = sink.row(y);
      std::memcpy(row, out.row(y), size_t(out.width) * 3);
      sink.done(y, row, {0, out.width});
    }
  }
};

namespace {

// A sample that the host has made itself.
void finished(Sample& sample, PixelPlan& plan) {
  plan = {};
  plan.canvas.height = sample.height;
  plan.canvas.width = sample.width;
  plan.canvas.pixels = std::move(sample.pixels);
  sample.pixels = {};
  plan.item.tiles[plan.item.tile_count++] = {0, sample.height, sample.width, 0, 0};
  plan.item.canvas_height = sample.height;
  plan.item.canvas_width = sample.width;
}

// Rows through the change of colours, mirrored as asked, into their place.
class ColoredRows final : public RowSink {
 public:
  // Without `colors` they stay to the bit, which a change by nothing, to HSV and back, does not leave them.
  ColoredRows(const std::optional<HsvChange>& colors, const FlipDraw& flip, int height, int width, uint8_t* out)
      : colors_(colors), flip_(flip), height_(height), width_(width), out_(out), row_(size_t(width) * 3) {
    const std::array<uint8_t, 3> grey = {kBorderValue, kBorderValue, kBorderValue};
    std::array<uint8_t, 3> changed;
    place(grey.data(), 1, changed.data());
    border_ = changed[0];  // grey has no hue and stays grey
  }

  uint8_t* row(int) override { return row_.data(); }
  void done(int y, uint8_t* row, Columns made) override {
    if (made.empty()) made = {};
    uint8_t* const to = out_ + size_t(flip_.vertical ? height_ - 1 - y : y) * size_t(width_) * 3;
    const int begin = flip_.horizontal ? width_ - made.end : made.begin, count = made.end - made.begin;
    std::memset(to, border_, size_t(begin) * 3);
    place(row + size_t(made.begin) * 3, count, to + size_t(begin) * 3);
    std::memset(to + size_t(begin + count) * 3, border_, size_t(width_ - begin - count) * 3);
    if (flip_.swap_channels)
      for (int x = begin; x < begin + count; ++x) std::swap(to[3 * x], to[3 * x + 2]);
  }

 private:
  void place(const uint8_t* from, int64_t pixels, uint8_t* to) const {
    if (colors_) {
      colors_->apply(from, pixels, flip_.horizontal, to);
    } else if (flip_.horizontal) {
      for (int64_t x = 0; x < pixels; ++x) std::copy_n(from + 3 * (pixels - 1 - x), 3, to + 3 * x);
    } else {
      std::copy_n(from, 3 * pixels, to);
    }
  }

  const std::optional<HsvChange>& colors_;
  const FlipDraw flip_;
  const int height_, width_;
  uint8_t* const out_;
  uint8_t border_ = 0;
  PixelBuffer row_;
};

}  // namespace

double SegDataset::flipped_share() const {
  return config_.augment.copy_paste_mode == CopyPasteMode::kFlip ? config_.augment.copy_paste : 0;
}

// Mosaic or letterbox, copy-paste, and the affine transform: steps 1 to 4 of section 6, into an image of out.target.
void SegDataset::augment(int64_t index, int epoch, Rng& rng, Scene& out, bool draw_canvas, Clock& clock) const {
  const double mosaic = config_.augment.mosaic;
  const bool closed = this->closed(epoch);
  out.perspective = config_.augment.perspective > 0;
  out.drawn = false;
  const bool with_mosaic = !(rng.uniform() > (closed ? 0.0 : mosaic)) && !closed && mosaic > 0;
  const AffineDraw draw =
      with_mosaic ? place_mosaic(index, epoch, rng, out, draw_canvas, clock) : place_single(index, !closed, rng, out, clock);
  transform_instances(out.instances, out.m, draw.scale, out.target.height, out.target.width);
  clock.mark(timing_->labels);
}

AffineDraw SegDataset::place_mosaic(int64_t index, int epoch, Rng& rng, Scene& out, bool draw_canvas, Clock& clock) const {
  const AugmentConfig& c = config_.augment;
  const int s = config_.imgsz;
  std::array<int64_t, 4> members = {index};
  for (size_t k = 1; k < 4; ++k) members[k] = partner(index, epoch, rng);
  const int yc = int(rng.uniform(s / 2.0, 3 * s / 2.0)), xc = int(rng.uniform(s / 2.0, 3 * s / 2.0));
  clock.mark(timing_->labels);
  for (size_t k = 0; k < 4; ++k) out.sources[k] = decoded(members[k]);
  clock.mark(timing_->decode);
  std::array<MosaicPart, 4> parts;
  for (size_t k = 0; k < 4; ++k) parts[k].image = &out.sources[k]->image;
  out.collage = mosaic_collage(parts, s, xc, yc);
  const AffineDraw draw = draw_affine(rng, c);
  out.m = affine_matrix(draw, 2 * s, 2 * s, s, s);
  out.by_rows = !out.perspective && flipped_share() == 0 && keeps_axes(out.m);
  // Objects that end beyond one side of the frame would be dropped at the end; many of a mosaic's do. Not when the largest of the
  // vertex counts matters for the others.
  bool even = true;
  for (size_t k = 1; k < 4; ++k) even = even && vertices_of(images_[size_t(members[k])]) == vertices_of(images_[size_t(members[0])]);
  for (size_t k = 0; k < 4; ++k) {
    const auto seen = [&](const BoxXyxy& b) {
      const float dx = float(out.collage.parts[k].x), dy = float(out.collage.parts[k].y), side = float(2 * s), margin = 1;
      const auto x = [&](float v) { return out.m[0] * std::clamp(v + dx, 0.0f, side) + out.m[2]; };
      const auto y = [&](float v) { return out.m[4] * std::clamp(v + dy, 0.0f, side) + out.m[5]; };
      return x(b.x2) > -margin && x(b.x1) < float(s) + margin && y(b.y2) > -margin && y(b.y1) < float(s) + margin;
    };
    parts[k].instances = instances(members[k], *parts[k].image, out.by_rows && even ? seen : std::function<bool(const BoxXyxy&)>());
  }
  out.instances = mosaic_instances(parts, out.collage);
  clock.mark(timing_->labels);
  if (out.by_rows) return draw;
  const bool paste = flipped_share() > 0, whole = out.perspective || paste;
  out.drawn = draw_canvas || paste;
  if (out.drawn) out.collage.draw(whole ? PixelBox{0, 0, 2 * s, 2 * s} : warp_footprint(out.m, 2 * s, 2 * s, s, s), out.canvas.image);
  if (paste) {
    out.canvas.instances = std::move(out.instances);
    copy_paste_flip(out.canvas, flipped_share());
    out.instances = std::move(out.canvas.instances);
  }
  clock.mark(timing_->pixels);
  return draw;
}

AffineDraw SegDataset::place_single(int64_t index, bool paste, Rng& rng, Scene& out, Clock& clock) const {
  const AugmentConfig& c = config_.augment;
  const DecodedPtr source = out.sources[0] = decoded(index);
  clock.mark(timing_->decode);
  out.instances = instances(index, source->image);
  clock.mark(timing_->labels);
  const LetterboxPlan plan = plan_letterbox({source->image.height, source->image.width}, out.target);
  if (paste && flipped_share() > 0) {
    LabeledImage pasted{source->image, std::move(out.instances)};
    copy_paste_flip(pasted, flipped_share());
    out.instances = std::move(pasted.instances);
    out.canvas.image = letterbox(pasted.image, plan);
  } else {
    out.canvas.image = letterbox(source->image, plan);
  }
  clock.mark(timing_->pixels);
  letterbox(out.instances, plan);
  const Image& canvas = out.canvas.image;
  const AffineDraw draw = draw_affine(rng, c);
  out.m = affine_matrix(draw, canvas.height, canvas.width, out.target.height, out.target.width);
  out.by_rows = !out.perspective && keeps_axes(out.m);
  out.collage = {};
  out.collage.height = canvas.height;
  out.collage.width = canvas.width;
  out.collage.add(canvas, 0, 0);
  out.drawn = true;
  return draw;
}

bool SegDataset::joins_images(int epoch) const {
  const AugmentConfig& c = config_.augment;
  return !closed(epoch) && (c.mixup > 0 || c.cutmix > 0 || (c.copy_paste > 0 && c.copy_paste_mode == CopyPasteMode::kMixup));
}

// What follows step 4: pasting from another image, mixup, cutmix; the partners of those two have had the first. Nothing: the scene
// stays alone.
std::optional<LabeledImage> SegDataset::join(int epoch, Rng& rng, Scene& scene, Clock& clock) const {
  thread_local Scene other;
  const AugmentConfig& c = config_.augment;
  const bool pastes = c.copy_paste > 0 && c.copy_paste_mode == CopyPasteMode::kMixup;
  const auto drawn = [&](Scene& s) {
    LabeledImage labeled{Image(s.target.height, s.target.width), std::move(s.instances)};
    ImageRows rows(labeled.image);
    s.render(rows);
    clock.mark(timing_->pixels);
    return labeled;
  };
  const auto another = [&] {
    other.target = scene.target;
    augment(rng.below(size()), epoch, rng, other, true, clock);
    LabeledImage labeled = drawn(other);
    other.sources = {};
    return labeled;
  };
  const auto partner = [&] {
    LabeledImage labeled = another();
    if (pastes && has_polygons(labeled.instances)) copy_paste_from(labeled, another(), c.copy_paste);
    return labeled;
  };
  std::optional<LabeledImage> joined;
  const auto base = [&]() -> LabeledImage& {
    if (!joined) joined = drawn(scene);
    return *joined;
  };
  if (pastes && has_polygons(scene.instances)) copy_paste_from(base(), another(), c.copy_paste);
  if (c.mixup > 0 && !(rng.uniform() > c.mixup)) {
    LabeledImage labeled = partner();
    mixup(base(), std::move(labeled), rng.beta(32, 32));
  }
  if (c.cutmix > 0 && !(rng.uniform() > c.cutmix)) {
    LabeledImage labeled = partner();
    cutmix(base(), std::move(labeled), draw_cutmix(rng, scene.target.height, scene.target.width));
  }
  clock.mark(timing_->pixels);
  return joined;
}

Sample SegDataset::get_train(int64_t index, int epoch, uint8_t* pixels) const {
  thread_local Scene scene;  // its memory is used again for every item of this thread
  Clock clock;
  Rng rng(config_.seed, RngPurpose::kAugment, uint64_t(epoch) << 40 | uint64_t(index));
  const AugmentConfig& c = config_.augment;
  const bool joins = joins_images(epoch), recolors = c.hsv_h > 0 || c.hsv_s > 0 || c.hsv_v > 0;
  const bool planned = config_.plan_pixels && recolors;  // a plan always recolors
  scene.target = input_size(index);
  augment(index, epoch, rng, scene, !planned || joins, clock);
  std::optional<LabeledImage> joined;
  if (joins) joined = join(epoch, rng, scene, clock);
  const HsvDraw draw = draw_hsv(rng, c);
  std::optional<HsvChange> colors;
  if (recolors) colors.emplace(draw);
  FlipDraw flip;
  flip.vertical = rng.uniform() < c.flipud;
  flip.horizontal = rng.uniform() < c.fliplr;
  flip.swap_channels = rng.uniform() < c.bgr;

  Sample sample;
  sample.index = index;
  sample.height = scene.target.height;
  sample.width = scene.target.width;
  const bool elsewhere = planned && !joined;
  if (elsewhere) {
    scene.describe(*colors, flip, sample.plan.emplace());
  } else if (pixels == nullptr) {
    sample.pixels.resize(size_t(sample.height) * size_t(sample.width) * 3);
    pixels = sample.pixels.data();
  }
  sample.geometry.original_height = images_[size_t(index)].height;
  sample.geometry.original_width = images_[size_t(index)].width;
  ColoredRows rows(colors, flip, sample.height, sample.width, pixels);
  if (joined) {
    for (int y = 0; y < sample.height; ++y) rows.done(y, joined->image.row(y), {0, sample.width});
    scene.instances = std::move(joined->instances);
  } else if (!elsewhere) {
    scene.render(rows);
  }
  if (config_.plan_pixels && !elsewhere) finished(sample, sample.plan.emplace());
  scene.sources = {};
  clock.mark(timing_->pixels);
  if (flip.vertical) flip_vertical(scene.instances, sample.height);
  if (flip.horizontal) flip_horizontal(scene.instances, sample.width);
  clock.mark(timing_->labels);
  finish(scene.instances, sample, clock);
  return sample;
}

Sample SegDataset::get_plain(int64_t index, uint8_t* pixels) const {
  Clock clock;
  const DecodedPtr source = decoded(index);
  clock.mark(timing_->decode);
  const Image& image = source->image;
  LetterboxOptions options;
  options.scaleup = false;
  const LetterboxPlan plan = plan_letterbox({image.height, image.width}, input_size(index), options);
  Sample sample;
  sample.index = index;
  sample.height = plan.height();
  sample.width = plan.width();
  if (pixels == nullptr) {
    sample.pixels.resize(size_t(sample.height) * size_t(sample.width) * 3);
    pixels = sample.pixels.data();
  }
  letterbox(image, plan, pixels);
  clock.mark(timing_->pixels);
  std::vector<Instance> objects = instances(index, image);
  letterbox(objects, plan);
  sample.geometry = {source->original_height,
                     source->original_width,
                     double(image.height) / source->original_height,
                     double(image.width) / source->original_width,
                     plan.left,
                     plan.top};
  clock.mark(timing_->labels);
  finish(objects, sample, clock);
  return sample;
}

// Masks, and targets in the order of their values (spec 5.6, 5.7).
void SegDataset::finish(const std::vector<Instance>& instances, Sample& sample, Clock& clock) const {
  sample.file = images_[size_t(sample.index)].file;
  sample.overlap = config_.overlap_mask;
  MaskTargets masks = config_.overlap_mask ? overlap_masks(instances, sample.height, sample.width, config_.mask_ratio)
                                           : separate_masks(instances, sample.height, sample.width, config_.mask_ratio);
  sample.mask_height = masks.height;
  sample.mask_width = masks.width;
  sample.masks = std::move(masks.values);
  const float w = float(sample.width), h = float(sample.height);
  sample.targets.reserve(masks.order.size());
  for (const int64_t j : masks.order) {
    const Instance& i = instances[size_t(j)];
    sample.targets.push_back(
        {i.class_id, {(i.box.x1 + i.box.x2) / 2 / w, (i.box.y1 + i.box.y2) / 2 / h, i.box.width() / w, i.box.height() / h}});
  }
  clock.mark(timing_->rasterize);
  timing_->samples.fetch_add(1, std::memory_order_relaxed);
}

Sample SegDataset::get_into(int64_t index, int epoch, uint8_t* pixels) const {
  TESSERA_CHECK(index >= 0 && index < size() && epoch >= 0, "SegDataset::get: index {} of {}, epoch {}", index, size(), epoch);
  return config_.train ? get_train(index, epoch, pixels) : get_plain(index, pixels);
}

std::unique_ptr<SegDataset> open_dataset(const std::string& data, std::string_view split, const DatasetConfig& config,
                                         const std::filesystem::path& data_root) {
  const std::string_view needed[] = {split};
  const DatasetYaml yaml = load_dataset_yaml(data, data_root, needed, config.train ? SplitKeys::kTrainAndVal : SplitKeys::kAny);
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
