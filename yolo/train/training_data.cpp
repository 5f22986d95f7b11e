#include "yolo/train/training_data.h"

#include <algorithm>
#include <filesystem>
#include <span>

#include "data/dataset_yaml.h"
#include "data/shapes.h"
#include "tensor/base/checksum.h"
#include "tensor/base/env.h"
#include "tensor/base/memory.h"
#include "yolo/config_values.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

constexpr size_t kShownFindings = 10;

// "shapes" is made on first use, below the data folder when there is one.
std::string data_source(const Config& config) {
  const std::string& name = config.text("data");
  if (name.empty()) {
    throw Error(ErrorCode::kUsage, "--data is missing", {},
                "give a data yaml (coco128-seg.yaml, my/data.yaml), or 'shapes' for the embedded data set");
  }
  if (name != "shapes" && name != "shapes.yaml") return name;
  fs::path root = "datasets";
  if (const auto data = env("TESSERA_DATA")) root = *data;
  if (config.is_set("data_root")) root = config.text("data_root");
  ShapesOptions options;
  return make_shapes(root / "shapes", options).string();
}

// Where and how much to keep says nothing without what to keep. On the command line that is a slip; a file of arguments, an earlier
// sitting or the environment may say it for other times.
void check_cache_arguments(const Config& c, LogStyle log) {
  const std::string& cache = c.text("cache");
  const auto check = [&](const char* name, const char* role, const char* remedy, bool used) {
    if (used || !c.is_explicit(name) || !c.is_set(name)) return;
    const std::string shown = shown_name(name);
    if (c.origin(name) == "command line") {
      throw Error(ErrorCode::kUsage, fmt::format("--{} is the {}, and --cache is {}", shown, role, cache), {},
                  fmt::format("add {}, or leave --{} out", remedy, shown));
    }
    log_line(log, fmt::format("note: {} of {} is not used, --cache is {}", name, c.origin(name), cache));
  };
  check("cache_dir", "folder of --cache disk", "--cache disk", cache == "disk");
  check("cache_mib", "limit of --cache ram or disk", "--cache ram or --cache disk", cache != "false");
}

void report(const LabelScan& scan, const std::string& split, LogStyle log) {
  log_line(log, fmt::format("{}: {}", split, summary(scan)));
  size_t shown = 0;
  for (const Finding& f : scan.findings) {
    if (shown++ == kShownFindings) break;
    log_line(log, fmt::format("  {}: {}", f.severity == Severity::kWarning ? "warning" : "note", to_string(f)));
  }
  if (scan.findings.size() > kShownFindings) log_line(log, fmt::format("  ... and {} more", scan.findings.size() - kShownFindings));
}

void report_cache(const SegDataset& set, LogStyle log) {
  const double budget = double(set.cache_budget()), need = double(set.decoded_bytes()), mib = 1 << 20;
  if (need <= budget) {
    log_line(log, fmt::format("cache: all {} training images stay in memory once decoded, {:.0f} MiB of at most {:.0f} MiB", set.size(),
                              need / mib, budget / mib));
    return;
  }
  log_line(log, fmt::format("cache: the {} training images need {:.0f} MiB decoded, the budget is {:.0f} MiB: about {} of them stay in memory, the "
                            "others are decoded each time (--cache-mib N allows more)",
                            set.size(), need / mib, budget / mib, int64_t(double(set.size()) * budget / need)));
}

void report_disk_cache(const SegDataset& set, LogStyle log) {
  const DiskImageCache& disk = *set.disk_cache();
  if (!disk.usable()) return;  // as it has said
  const CacheFolder::State& s = disk.at_opening();
  const double mib = 1 << 20, need = double(s.wanted_bytes + s.missing_bytes);
  std::string text = fmt::format(
      "cache: {} holds {} of the {} training images decoded; all of them take {:.0f} MiB there, what it holds {:.0f} MiB "
      "({} images), the budget is {:.0f} MiB",
      disk.path().string(), s.wanted_files, set.size(), need / mib, double(s.bytes) / mib, s.files, double(s.budget) / mib);
  if (s.removed > 0) text += fmt::format("; {} images that were not used for the longest time have been removed", s.removed);
  if (s.bytes + s.missing_bytes > s.budget) {
    text += fmt::format("; about {} of the images will be there, the others are decoded each time (--cache-mib N allows more)",
                        int64_t(double(set.size()) * double(s.wanted_bytes + std::max<int64_t>(0, s.budget - s.bytes)) / need));
  }
  log_line(log, text);
}

AugmentConfig augment_config(const Config& c) {
  AugmentConfig a;
  a.mosaic = c.number("mosaic");
  a.copy_paste = c.number("copy_paste");
  if (c.text("copy_paste_mode") == "mixup") a.copy_paste_mode = CopyPasteMode::kMixup;
  a.degrees = c.number("degrees");
  a.translate = c.number("translate");
  a.scale = c.number("scale");
  a.shear = c.number("shear");
  a.perspective = c.number("perspective");
  a.mixup = c.number("mixup");
  a.cutmix = c.number("cutmix");
  a.hsv_h = c.number("hsv_h");
  a.hsv_s = c.number("hsv_s");
  a.hsv_v = c.number("hsv_v");
  a.flipud = c.number("flipud");
  a.fliplr = c.number("fliplr");
  a.bgr = c.number("bgr");
  return a;
}

// Mosaic ends before the last epochs; a run shorter than close_mosaic keeps it throughout (spec 6.9).
int close_mosaic_at(const Config& c) {
  const int64_t epochs = c.integer("epochs"), close = c.integer("close_mosaic");
  return close > 0 && epochs >= close ? int(epochs - close) : -1;
}

enum class Cache { kNone, kMemory, kDisk };

Cache cache_of(const Config& c, bool train) {
  if (!train || c.text("cache") == "false") return Cache::kNone;
  return c.text("cache") == "disk" ? Cache::kDisk : Cache::kMemory;
}

void add_cache(const Config& c, Cache cache, int sharers, LogStyle log, DatasetConfig& d) {
  if (cache == Cache::kDisk) {
    d.disk_cache.emplace();
    d.disk_cache->folder = c.text("cache_dir").empty() ? user_cache_folder("images") : fs::path(c.text("cache_dir"));
    if (c.is_set("cache_mib")) d.disk_cache->bytes = c.integer("cache_mib") << 20;
    d.disk_cache->warn = [log](const std::string& text) { log_line(log, "warning: " + text); };
  }
  if (cache == Cache::kMemory) {
    d.cache_bytes = c.is_set("cache_mib") ? c.integer("cache_mib") << 20
                                          : std::max<int64_t>(available_memory_bytes() / 2 / sharers, int64_t(1) << 28);
    d.cache_lasting = true;
  }
}

// Without the cache.
DatasetConfig dataset_config(const Config& c, bool train, Size fixed) {
  DatasetConfig d;
  d.imgsz = int(c.integer("imgsz"));
  d.fixed = fixed;
  d.train = train;
  // Validation batches are twice as large, as in the original (spec 8.1), which also decides the rectangles.
  d.batch = train || c.verb() != kTrain ? c.integer("batch") : 2 * c.integer("batch");
  if (c.verb() == kVal || c.verb() == kTrain) {
    d.policy = c.flag("strict") ? LabelPolicy::kStrict : LabelPolicy::kLenient;
    d.single_cls = c.flag("single_cls");
    d.classes = classes_of(c);
    d.overlap_mask = c.flag("overlap_mask");
    d.mask_ratio = int(c.integer("mask_ratio"));
  }
  d.rect = train ? c.verb() == kTrain && c.flag("rect") : c.verb() != kVal || !c.is_set("rect") || c.flag("rect");
  if (c.verb() == kTrain) d.seed = uint64_t(c.integer("seed"));
  if (c.verb() == kTrain && train) {
    d.order = c.text("order") == "original" ? ImageOrder::kOriginal : ImageOrder::kSeed;
    d.augment = augment_config(c);
    d.plan_pixels = c.text("augment") == "cuda";
    d.fraction = c.number("fraction");
    d.close_mosaic_at = close_mosaic_at(c);
  }
  // Mosaics join recently seen images, as in the original without a cache, and with one too: so a cache changes speed only.
  if (train) d.partners = MosaicPartners::kBuffer;
  return d;
}

}  // namespace

std::unique_ptr<SegDataset> open_split(const Config& config, const std::string& split, bool train, LogStyle log, int sharers,
                                       Size fixed) {
  DatasetConfig d = dataset_config(config, train, fixed);
  if (train) check_cache_arguments(config, log);
  const Cache cache = cache_of(config, train);
  add_cache(config, cache, sharers, log, d);
  auto set = open_dataset(data_source(config), split, d, config.text("data_root"));
  report(set->scan(), split, log);
  if (cache == Cache::kMemory) report_cache(*set, log);
  if (cache == Cache::kDisk) report_disk_cache(*set, log);
  return set;
}

int64_t fingerprint(const SegDataset& set) {
  uint32_t sum = 0;
  for (int64_t i = 0; i < set.size(); ++i) {
    const ScanImage& image = set.image(i);
    const std::string name = fs::path(image.file).filename().string();
    sum = crc32c(std::as_bytes(std::span(name)), sum);
    for (const LabelObject& o : image.objects) {
      sum = crc32c(std::as_bytes(std::span(&o.class_id, 1)), sum);
      sum = crc32c(std::as_bytes(std::span(o.polygon)), sum);
    }
  }
  return int64_t(sum);
}

int64_t class_count(const Config& config) {
  return int64_t(load_dataset_yaml(data_source(config), config.text("data_root")).names.size());
}

}  // namespace tessera
