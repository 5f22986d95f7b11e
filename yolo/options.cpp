#include "yolo/options.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tensor/base/check.h"
#include "yolo/original_arguments.h"

namespace tessera {

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr unsigned kTV = kTrain | kVal, kTVP = kTrain | kVal | kPredict;
constexpr unsigned kAll = kAllVerbs;
using enum OptionType;

constexpr OptionSpec kOptions[] = {
    // Main
    {"model", kText, "yolov8n-seg", 0, 0, "yolov8n-seg|yolov8s-seg|yolov8m-seg|yolov8l-seg|yolov8x-seg|FILE", kTVP | kInspect | kBench, "main", "scale (yolov8n-seg), model yaml, .safetensors, or .pt of the original; val and predict: .onnx too"},
    {"model", kText, "", 0, 0, "FILE", kExport, "main", "what to export: .safetensors of a run, or .pt of the original"},
    {"format", kText, "onnx", 0, 0, "onnx", kExport, "main", "form of the file: onnx; others are made of that by their own tools"},
    {"output", kText, "", 0, 0, "FILE", kExport, "main", "file to write (default: beside the model, best.safetensors becomes best.onnx)"},
    {"data", kText, "", 0, 0, "coco128-seg.yaml|coco8-seg.yaml|coco.yaml|shapes|FILE", kTV | kBench | kLint | kDownload, "main", "data yaml: a path, a shipped name (coco128-seg.yaml), or 'shapes' for the embedded set; val: that of the model's training unless given"},
    {"data_root", kText, "", 0, 0, "FOLDER", kTV | kBench | kLint | kConvert | kDownload, "main",
     "folder under which the data yaml's images are sought, and where download puts them (also TESSERA_DATA)"},
    {"source", kText, "", 0, 0, "FILE", kPredict, "main", "image, folder, pattern ('photos/**/*.jpg') or .txt list of them; several follow one another"},
    {"epochs", kInt, "100", 1, 1e6, "", kTrain, "main", "epochs to train"},
    {"imgsz", kInt, "640", 32, 8192, "", kTVP | kInspect | kBench, "main", "image size in pixels, a multiple of 32; val and predict: that of the model's training unless given"},
    {"batch", kInt, "16", 1, 65536, "", kTV | kInspect | kBench | kPredict, "main", "images a step; train: -1 plans it from memory"},
    {"imgsz", kText, "640", 0, 0, "", kExport, "main", "size of the input in pixels, multiples of 32: 640, or height,width; that of the model's training unless given"},
    {"batch", kInt, "1", 1, 65536, "", kExport, "main", "images that the file takes at a time"},
    {"opset", kInt, "17", 13, 22, "", kExport, "main", "version of ONNX's operators; 17 is read by ONNX Runtime from 1.12, TensorRT from 8.5, OpenVINO from 2022.3"},
    {"half", kBool, "false", 0, 0, "", kExport, "main", "weights, input and outputs in fp16, for GPUs"},
    {"dynamic", kBool, "false", 0, 0, "", kExport, "main", "batch, height and width are free"},
    {"simplify", kBool, "true", 0, 0, "", kExport, "main", "as in the original's tutorials; the graph is written without detours in any case"},
    {"nms", kBool, "false", 0, 0, "", kExport, "main", "not there: suppression is not part of the file"},
    {"device", kText, "cpu", 0, 0, "cpu|cuda", kTVP | kBench, "main", "cpu, cuda or the number of a CUDA device; train with a process for each (mpirun): 0,1; an error when it is not there"},
    {"precision", kChoice, "fp32", 0, 0, "fp32|bf16|fp16", kTVP | kBench, "main", "type of the network's activations and products; masters and sums are fp32; the original's amp=True is fp16 on a GPU, fp32 on a CPU"},
    {"graph", kBool, "true", 0, 0, "", kTrain, "main", "on a GPU, record a training step once and replay it; the results are the same"},
    {"recompute", kChoice, "auto", 0, 0, "auto|true|false", kTrain | kBench, "main",
     "make activations again in the backward pass instead of keeping them: a fifth less memory, the same results; auto: on the CPU"},
    {"conv", kText, "auto", 0, 0, "auto|naive|own|direct|cudnn", kTVP | kBench | kSelftest | kInfo, "main",
     "kernels of convolutions: auto, naive (plain loops, to find who errs), own, direct (own without Winograd or warpgroups), cudnn; and for layers own,model.0=cudnn,model.22.*=naive"},
    {"from", kText, "", 0, 0, "FILE", kConvert, "main", "what to convert: COCO instances JSON or a folder of them, a folder of grey mask images, or a data yaml"},
    {"to", kText, "", 0, 0, "FILE", kConvert, "main", "folder of the new data set, or the JSON file that a data yaml becomes"},
    {"images", kText, "", 0, 0, "FOLDER", kConvert, "main", "folder of the images, which the new data set links to"},
    {"fix", kBool, "false", 0, 0, "", kLint, "main", "rewrite label files without the rows that cannot be used; the former ones stay as NAME.txt.orig"},
    {"model", kText, "", 0, 0, "yolov8n-seg.pt|yolov8s-seg.pt|yolov8m-seg.pt|yolov8l-seg.pt|yolov8x-seg.pt", kDownload, "main", "weights of the original by name: yolov8n-seg.pt (s, m, l, x); they are under AGPL-3.0"},
    {"url", kText, "", 0, 0, "", kDownload, "main", "address of a file: https, http or file (also as the first word: download https://...)"},
    {"to", kText, "", 0, 0, "FILE", kDownload, "main", "file to write, or folder for it; of an archive that is unpacked: the folder (default: the current one)"},
    {"sha256", kText, "", 0, 0, "", kDownload, "main", "checksum that the file must have; without it that of an earlier download counts (NAME.sha256)"},
    {"unpack", kBool, "", 0, 0, "", kDownload, "main", "unpack the archive and remove it (default: with --data)"},
    {"keep", kBool, "false", 0, 0, "", kDownload, "main", "keep an archive that was unpacked"},
    {"timeout", kFloat, "30", 1, 3600, "", kDownload, "main", "seconds to wait for a connection, and for the next byte"},
    {"retries", kInt, "5", 0, 1000, "", kDownload, "main", "attempts after one that was cut off; those that bring a MiB do not count"},
    {"shell", kChoice, "", 0, 0, "bash|zsh|fish", kCompletion, "main", "whose completion to print (also as the first word: completion bash)"},
    {"threads", kInt, "", 1, 1024, "", kTVP | kBench | kSelftest | kConvert | kLint, "main", "compute threads (default: usable cores)"},
    {"workers", kInt, "2", 0, 256, "", kTV | kBench, "main", "loader threads; results do not depend on it"},
    {"split", kChoice, "val", 0, 0, "train|val|test", kVal | kConvert | kLint, "main", "split to validate on, to make a JSON file of, or to check (lint: all of them unless given)"},
    {"resume", kText, "", 0, 0, "FILE", kTrain, "main", "run folder or last.safetensors to continue, bit for bit"},
    {"pretrained", kText, "", 0, 0, "FILE", kTrain, "main", "weights to start from: what fits of them when --model is given, a scale or a yaml"},
    {"gt", kText, "", 0, 0, "FILE", kVal, "main", "COCO instances JSON, with --predictions: scores a result file without a model"},
    {"predictions", kText, "", 0, 0, "FILE", kVal, "main", "COCO results JSON for --gt"},
    {"cfg", kText, "", 0, 0, "FILE", kAll, "main", "yaml file of arguments"},
    // Run folder and output
    {"project", kText, "runs/segment", 0, 0, "FOLDER", kTVP, "run folder", "folder that holds the runs"},
    {"name", kText, "", 0, 0, "", kTVP, "run folder", "name of the run (default: the verb, then train2, train3, ...)"},
    {"exist_ok", kBool, "false", 0, 0, "", kTVP, "run folder", "use an existing run folder"},
    {"save", kBool, "true", 0, 0, "", kTrain | kPredict, "run folder", "write checkpoints (train) or drawn images (predict)"},
    {"save_period", kInt, "-1", -1, 1e6, "", kTrain, "run folder", "also keep every n-th epoch's weights"},
    {"save_minutes", kFloat, "10", 0, 1e6, "", kTrain, "run folder",
     "save the state within an epoch too when that many minutes have gone since the last time, so that a kill costs no more; 0: after epochs only"},
    {"plots", kBool, "true", 0, 0, "", kTV, "run folder", "draw plots: curves, and batches with their labels and predictions"},
    {"tensorboard", kBool, "false", 0, 0, "", kTrain, "run folder", "also write the series of results.csv as TensorBoard's event files"},
    {"save_json", kBool, "false", 0, 0, "", kVal | kPredict, "run folder", "write predictions.json"},
    {"save_txt", kBool, "false", 0, 0, "", kVal | kPredict, "run folder", "write polygons as text, one file an image"},
    {"save_conf", kBool, "false", 0, 0, "", kVal | kPredict, "run folder", "append the confidence to each line of --save-txt"},
    {"save_crop", kBool, "false", 0, 0, "", kPredict, "run folder", "write each object cut out: crops/<class>/<image>.jpg"},
    {"show_labels", kBool, "true", 0, 0, "", kPredict, "run folder", "class names in the drawn images"},
    {"show_conf", kBool, "true", 0, 0, "", kPredict, "run folder", "confidences beside the class names"},
    {"show_boxes", kBool, "true", 0, 0, "", kPredict, "run folder", "boxes with their labels in the drawn images; without them masks alone"},
    {"line_width", kInt, "", 1, 1000, "", kPredict, "run folder", "pixels of the drawn lines (default: by the size of the image)"},
    {"log", kChoice, "text", 0, 0, "text|json", kAll, "run folder", "form of the log on stderr"},
    {"quiet", kBool, "false", 0, 0, "", kAll, "run folder", "no progress"},
    {"json", kBool, "false", 0, 0, "", kAll, "run folder", "stdout is exactly one JSON object"},
    // Data
    {"strict", kBool, "false", 0, 0, "", kTV, "data", "a bad label row is an error instead of skipped and counted"},
    {"cache", kChoice, "false", 0, 0, "false|true|ram|disk", kTrain | kBench, "data", "keep decoded training images in memory (ram, true), or in --cache-dir for later trainings too (disk), under --cache-mib; results do not depend on it"},
    {"cache_mib", kInt, "", 1, 1e9, "", kTrain | kBench, "data", "most MiB of decoded images that --cache keeps (default: half of the memory available at the start; disk: half of what is free there or taken by it)"},
    {"cache_dir", kText, "", 0, 0, "FOLDER", kTrain | kBench, "data", "folder of --cache disk (default: tessera/images in XDG_CACHE_HOME, or in ~/.cache)"},
    {"fraction", kFloat, "1.0", 0, 1, "", kTrain, "data", "part of the training images to use"},
    {"order", kChoice, "seed", 0, 0, "seed|original", kTrain, "data", "order of the training images: a new one for each seed, or the one that all runs of the original share"},
    {"single_cls", kBool, "false", 0, 0, "", kTV, "data", "treat all classes as one"},
    {"classes", kText, "", 0, 0, "", kTV | kPredict, "data", "only these classes, by index: 0,2,5"},
    {"rect", kBool, "", 0, 0, "", kVal | kPredict, "data", "rectangular batches (default: true)"},
    {"rect", kBool, "false", 0, 0, "", kTrain, "data", "training batches of images of like shape, in one order; without mosaic, mixup and cutmix"},
    {"overlap_mask", kBool, "true", 0, 0, "", kTV, "data", "one index map an image instead of one plane an object"},
    {"mask_ratio", kInt, "4", 1, 32, "", kTV, "data", "mask size = image size / ratio"},
    // Optimisation
    {"optimizer", kChoice, "auto", 0, 0, "auto|SGD|Adam|AdamW", kTrain, "optimisation", "update rule; auto chooses by the length of the run"},
    {"lr0", kFloat, "0.01", 0, 1, "", kTrain, "optimisation", "initial learning rate"},
    {"lrf", kFloat, "0.01", 0, 1, "", kTrain, "optimisation", "final learning rate as a fraction of lr0"},
    {"momentum", kFloat, "0.937", 0, 1, "", kTrain, "optimisation", "SGD momentum or Adam beta1"},
    {"weight_decay", kFloat, "0.0005", 0, 1, "", kTrain, "optimisation", "decay of weights (not of biases and norms)"},
    {"warmup_epochs", kFloat, "3.0", 0, 1e6, "", kTrain, "optimisation", "length of the warm-up (at least 100 batches unless 0)"},
    {"warmup_momentum", kFloat, "0.8", 0, 1, "", kTrain, "optimisation", "momentum at the start of the warm-up"},
    {"warmup_bias_lr", kFloat, "0.1", 0, 1, "", kTrain, "optimisation", "bias learning rate at the start of the warm-up"},
    {"cos_lr", kBool, "false", 0, 0, "", kTrain, "optimisation", "cosine schedule instead of linear"},
    {"nbs", kInt, "64", 1, 65536, "", kTrain, "optimisation", "nominal batch: gradients accumulate up to it"},
    {"best", kChoice, "fitness", 0, 0, "fitness|mask-map|mask-map50|mask-f1|box-map|box-map50|box-f1", kTrain, "optimisation",
     "figure by which epochs are compared, for best.safetensors and --patience; fitness: 0.1 mAP50 + 0.9 mAP of boxes, plus that of masks"},
    {"patience", kInt, "100", 0, 1e6, "", kTrain, "optimisation", "stop after this many epochs without a better one, by --best (0: never)"},
    {"time", kFloat, "", 0, 1e6, "", kTrain, "optimisation", "stop after this many hours"},
    {"seed", kInt, "0", 0, 4e9, "", kTrain | kBench | kSelftest, "optimisation", "all random numbers follow from it"},
    {"sync_bn", kBool, "false", 0, 0, "", kTrain, "optimisation", "with several processes: batch norm statistics of the whole batch, not of each process's part"},
    {"freeze", kText, "", 0, 0, "", kTrain, "optimisation", "layers that stay as they are, batch norm statistics included: the first n, or a list: 0,2,22 or [9]"},
    {"val", kBool, "true", 0, 0, "", kTrain, "optimisation", "validate after each epoch"},
    {"box", kFloat, "7.5", 0, kInf, "", kTrain, "optimisation", "gain of the box and mask terms"},
    {"cls", kFloat, "0.5", 0, kInf, "", kTrain, "optimisation", "gain of the class term"},
    {"dfl", kFloat, "1.5", 0, kInf, "", kTrain, "optimisation", "gain of the distribution focal term"},
    // Augmentation
    {"augment", kChoice, "cpu", 0, 0, "cpu|cuda", kTrain, "augmentation",
     "where training images are made from decoded ones; cuda: as one kernel, within one grey level of cpu"},
    {"hsv_h", kFloat, "0.015", 0, 1, "", kTrain, "augmentation", "hue shift"},
    {"hsv_s", kFloat, "0.7", 0, 1, "", kTrain, "augmentation", "saturation factor"},
    {"hsv_v", kFloat, "0.4", 0, 1, "", kTrain, "augmentation", "value factor"},
    {"degrees", kFloat, "0.0", 0, 180, "", kTrain, "augmentation", "rotation"},
    {"translate", kFloat, "0.1", 0, 1, "", kTrain, "augmentation", "translation as a fraction of the image"},
    {"scale", kFloat, "0.5", 0, 1, "", kTrain, "augmentation", "scale gain"},
    {"shear", kFloat, "0.0", 0, 89, "", kTrain, "augmentation", "shear in degrees"},
    {"perspective", kFloat, "0.0", 0, 0.001, "", kTrain, "augmentation", "perspective"},
    {"flipud", kFloat, "0.0", 0, 1, "", kTrain, "augmentation", "probability of an upside-down flip"},
    {"fliplr", kFloat, "0.5", 0, 1, "", kTrain, "augmentation", "probability of a left-right flip"},
    {"bgr", kFloat, "0.0", 0, 1, "", kTrain, "augmentation", "probability of swapped colour channels"},
    {"mosaic", kFloat, "1.0", 0, 1, "", kTrain, "augmentation", "probability of a four-image mosaic"},
    {"mixup", kFloat, "0.0", 0, 1, "", kTrain, "augmentation", "probability of mixing two images"},
    {"cutmix", kFloat, "0.0", 0, 1, "", kTrain, "augmentation", "probability of a rectangle of another image"},
    {"copy_paste", kFloat, "0.0", 0, 1, "", kTrain, "augmentation", "fraction of objects that are pasted"},
    {"copy_paste_mode", kChoice, "flip", 0, 0, "flip|mixup", kTrain, "augmentation", "what is pasted: the image's own objects mirrored, or another image's"},
    {"close_mosaic", kInt, "10", 0, 1e6, "", kTrain, "augmentation", "no mosaic in the last n epochs (0: keep it)"},
    {"multi_scale", kBool, "false", 0, 0, "", kTrain, "augmentation", "each batch in a size of its own, from 0.5 to 1.5 times imgsz"},
    // Validation and prediction
    {"conf", kFloat, "", 0, 1, "", kVal | kPredict, "detection", "confidence threshold (val 0.001, predict 0.25)"},
    {"iou", kFloat, "0.7", 0, 1, "", kTVP, "detection", "IoU threshold of non-maximum suppression"},
    {"max_det", kInt, "300", 1, 30000, "", kTVP, "detection", "detections an image"},
    {"agnostic_nms", kBool, "false", 0, 0, "", kVal | kPredict, "detection", "suppress across classes"},
    {"map_style", kChoice, "coco", 0, 0, "coco|original", kTV, "detection", "mAP as pycocotools computes it, or the original's own"},
    {"retina_masks", kBool, "false", 0, 0, "", kPredict, "detection", "masks at the resolution of the image"},
    // Bench
    {"what", kChoice, "step", 0, 0, "step|infer|op|loader|eval", kBench, "bench", "what to time (also as the first word: bench step)"},
    {"runs", kInt, "5", 1, 1000, "", kBench, "bench", "timed repetitions; the median counts (on a device of rows of calls, without a wait between them, so that starting them does not count)"},
    {"shape", kText, "", 0, 0, "", kBench, "bench", "bench op: only shapes that begin so: '64>64 3x3', '128>256 3x3/2 @40'"},
    {"profile", kInt, "0", 0, 10000, "", kTrain | kBench, "bench",
     "time every kernel of this many steps (10 when no number follows), by layer"},
    {"print_config", kBool, "false", 0, 0, "", kAll, "other", "show every argument with its origin and exit"},
};

std::string lower(std::string_view s) {
  std::string out(s);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  return out;
}

int edit_distance(std::string_view a, std::string_view b) {  // Damerau-Levenshtein, restricted
  std::vector<std::vector<int>> d(a.size() + 1, std::vector<int>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = int(i);
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = int(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

// The original takes a boolean or a path for these two, and its tutorials write the booleans: resume=False, pretrained=True.
std::string path_or_boolean(std::string_view name, const std::string& text) {
  const std::string v = lower(text);
  if (v != "true" && v != "false") return text;
  if (name == "resume") return v == "true" ? "auto" : "";
  if (name == "pretrained") return v == "true" ? "" : v;
  return text;
}

}  // namespace

std::span<const OptionSpec> option_specs() { return kOptions; }

std::string shown_name(std::string_view name) {
  std::string s(name);
  std::replace(s.begin(), s.end(), '_', '-');
  return s;
}

std::optional<bool> boolean_of(std::string_view text) {
  const std::string v = lower(text);
  if (v == "true" || v == "1" || v == "yes" || v == "on") return true;
  if (v == "false" || v == "0" || v == "no" || v == "off") return false;
  return std::nullopt;
}

std::string normalize_option_name(std::string_view name) {
  std::string s = lower(name);
  std::replace(s.begin(), s.end(), '-', '_');
  return s;
}

const OptionSpec* find_option(std::string_view name, unsigned verbs) {
  const OptionSpec* of_others = nullptr;
  for (const OptionSpec& o : kOptions) {
    if (o.name != name) continue;
    if (o.verbs & verbs) return &o;
    if (of_others == nullptr) of_others = &o;
  }
  return of_others;
}

std::optional<std::string> nearest_name(std::string_view name, std::span<const std::string_view> known) {
  const auto joined = [](std::string_view words) {
    std::string s(words);
    std::erase(s, '_');
    return s;
  };
  const std::string given = joined(name);
  std::optional<std::string> best;
  int best_distance = std::max(2, int(name.size()) / 3) + 1;
  for (const std::string_view candidate : known) {
    const std::string meant = joined(candidate);
    int d = edit_distance(given, meant);
    if (meant.size() >= 4 && given.starts_with(meant)) d = std::min(d, 2);  // batch_size
    if (d < best_distance) {
      best_distance = d;
      best = candidate;
    }
  }
  return best;
}

std::optional<std::string> nearest_option(std::string_view name, unsigned verb) {
  std::vector<std::string_view> known;
  for (const OptionSpec& o : kOptions) {
    if (o.verbs & verb) known.push_back(o.name);
  }
  return nearest_name(name, known);
}

std::string range_text(const OptionSpec& o) {
  if (o.type == kBool) return "true or false";
  if (o.type == kChoice) {
    std::string list(o.choices);
    std::replace(list.begin(), list.end(), '|', ' ');
    return "one of: " + list;
  }
  if (o.type == kText) return std::string(o.help);
  const char* what = o.type == kInt ? "a whole number" : "a number";
  if (o.high == kInf) return fmt::format("{} of at least {:g}", what, o.low);
  return fmt::format("{} from {:.10g} to {:.10g}", what, o.low, o.high);
}

// Also as yaml writers put one that was computed: 64.0, 1e2.
std::optional<int64_t> whole_number(std::string_view text) {
  const char* const end = text.data() + text.size();
  int64_t n = 0;
  if (const auto [stop, failed] = std::from_chars(text.data(), end, n); failed == std::errc() && stop == end) return n;
  constexpr double kExact = 9007199254740992.0;  // 2^53: beyond it a double is no longer one whole number
  double x = 0;
  const auto [stop, failed] = std::from_chars(text.data(), end, x);
  if (failed != std::errc() || stop != end || !(std::abs(x) < kExact) || x != std::floor(x)) return std::nullopt;
  return int64_t(x);
}

std::string checked_value(const OptionSpec& o, std::string_view given) {
  const std::string text(given);
  auto refuse = [&]() -> Error {
    return Error(ErrorCode::kUsage, fmt::format("{}={}: expected {}", o.name, text, range_text(o)));
  };
  switch (o.type) {
    case kText: return path_or_boolean(o.name, text);
    case kBool: {
      const std::optional<bool> v = boolean_of(text);
      if (!v) throw refuse();
      return *v ? "true" : "false";
    }
    case kChoice: {
      std::string_view rest = o.choices;
      while (!rest.empty()) {
        const std::string_view one = rest.substr(0, rest.find('|'));
        if (lower(one) == lower(text)) return std::string(one);
        rest.remove_prefix(std::min(rest.size(), one.size() + 1));
      }
      if (lower(text) == "none" && o.fallback == "false") return "false";
      const OriginalArgument* const theirs = find_original(o.name);  // augment=true means something else there
      throw Error(ErrorCode::kUsage, refuse().message(), {}, std::string(theirs == nullptr ? "" : theirs->instead));
    }
    case kInt: {
      const std::optional<int64_t> n = whole_number(text);
      if (!n || double(*n) < o.low || double(*n) > o.high) throw refuse();
      return std::to_string(*n);
    }
    case kFloat: {
      double x = 0;
      const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), x);
      const bool whole = failed == std::errc() && end == text.data() + text.size();
      if (!whole || !std::isfinite(x) || x < o.low || x > o.high) throw refuse();
      return text;
    }
  }
  throw refuse();
}

std::string option_note(const OptionSpec& o) {
  std::string note(o.help);
  if (o.type == kChoice) {
    std::string list(o.choices);
    std::replace(list.begin(), list.end(), '|', ',');
    note += fmt::format(" [{}]", list);
  }
  if (!o.fallback.empty() && o.type != kBool) note += fmt::format(" (default {})", o.fallback);
  if (o.type == kBool && o.fallback == "true") note += " (default true)";
  return note;
}

std::string verb_help(Verb verb, std::string_view verb_name, std::string_view purpose, std::string_view examples) {
  std::string out = fmt::format("{}\n\nUsage: tessera {} [--name value | --name=value | name=value] ...\n\nExamples:\n{}", purpose,
                                verb_name, examples);
  std::string_view group;
  for (const OptionSpec& o : kOptions) {
    if (!(o.verbs & verb)) continue;
    if (o.group != group) {
      group = o.group;
      out += fmt::format("\n{}:\n", group);
    }
    out += fmt::format("  --{:<16} {}\n", shown_name(o.name), option_note(o));
  }
  out += "\nPrecedence: default < --cfg file < environment TESSERA_ARG_<NAME> < command line; --print-config shows it.\n";
  return out;
}

}  // namespace tessera
