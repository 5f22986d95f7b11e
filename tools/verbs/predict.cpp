// predict: every image through the model, then drawn, as label text and as JSON. An image that cannot be read is reported and the
// rest goes on.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/image.h"
#include "tensor/base/file.h"
#include "tensor/base/interrupt.h"
#include "tensor/base/one_line.h"
#include "tensor/base/standard_streams.h"
#include "tools/verbs/inference_model.h"
#include "tools/verbs/onnx_model.h"
#include "tools/verbs/sources.h"
#include "tools/verbs/verbs.h"
#include "yolo/config_values.h"
#include "yolo/eval/prediction_text.h"
#include "yolo/eval/predictor.h"
#include "yolo/io/weights.h"
#include "yolo/report/annotate.h"
#include "yolo/report/crops.h"
#include "yolo/train/run_folder.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point t) { return std::chrono::duration<double, std::milli>(Clock::now() - t).count(); }

PredictorOptions predictor_options(const Config& config) {
  PredictorOptions o;
  o.imgsz = int(config.integer("imgsz"));
  if (config.is_set("conf")) o.confidence = float(config.number("conf"));
  o.iou = config.number("iou");
  o.max_detections = config.integer("max_det");
  o.agnostic = config.flag("agnostic_nms");
  o.retina_masks = config.flag("retina_masks");
  o.rect = !config.is_set("rect") || config.flag("rect");
  o.polygons = config.flag("save_txt");
  o.classes = classes_of(config);
  return o;
}

std::unique_ptr<Predictor> predictor_of(OnnxNetwork& network, const Config& config) {
  PredictorOptions options = predictor_options(fitted_to(network, config));
  options.fixed = network.fixed_size();
  return std::make_unique<Predictor>(network, network.names(), std::move(options));
}

// Images of a few pixels are drawn larger, so that the labels can be read.
Image drawn(const Image& image, const Prediction& prediction, const std::vector<std::string>& names, const Config& config) {
  const int longest = std::max(image.height, image.width);
  const int factor = longest < 320 ? std::clamp(640 / longest, 1, 8) : 1;
  std::vector<Annotation> annotations;
  for (const ObjectPrediction& o : prediction.objects) {
    const std::string& name = names[size_t(o.class_id)];
    const std::string label = config.flag("show_conf") ? fmt::format("{} {:.2f}", name, o.confidence) : name;
    annotations.push_back(scaled({o.class_id, label, o.box, {o.mask.where, o.mask.view().pixels()}}, factor));
  }
  AnnotateOptions options;
  options.boxes = config.flag("show_boxes");
  options.labels = options.boxes && config.flag("show_labels");  // a label belongs to its box
  if (config.is_set("line_width")) options.line_width = int(config.integer("line_width"));
  Image out = enlarge(image, factor);
  annotate(out, annotations, options);
  return out;
}

// "2 person, 1 dog", in the order of the classes.
std::string counts_of(const Prediction& prediction, const std::vector<std::string>& names) {
  std::map<int32_t, int> counts;
  for (const ObjectPrediction& o : prediction.objects) ++counts[o.class_id];
  std::string text;
  for (const auto& [id, n] : counts) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", n, names[size_t(id)]);
  return text.empty() ? "nothing found" : text;
}

struct Work {
  fs::path file;
  Image image;
};

// Everything that is written and printed.
class Output {
 public:
  Output(const Config& config, size_t total, LogStyle log, const std::vector<std::string>& names)
      : config_(config),
        names_(names),
        total_(total),
        json_(config.flag("json")),
        progress_(json_ ? log : LogStyle::kQuiet, int64_t(total)) {
    if (!config.flag("save") && !config.flag("save_txt") && !config.flag("save_json") && !config.flag("save_crop")) return;
    folder_ =
        create_run_folder(config.text("project"), config.is_set("name") ? config.text("name") : "predict", config.flag("exist_ok"));
    std::error_code ignored;
    fs::remove(folder_ / "predictions.json", ignored);  // of an earlier run into this folder
    if (config.flag("save_txt")) create_folder(folder_ / "labels");
    if (config.flag("save_crop")) crops_.emplace(folder_ / "crops");
  }

  void add(const Work& work, const Prediction& p) {
    const std::string stem = stems_.next(work.file);
    if (config_.flag("save")) write_png(folder_ / (stem + ".png"), drawn(work.image, p, names_, config_));
    if (crops_) {
      crops_->begin(stem);
      for (const ObjectPrediction& o : p.objects) crops_->add(work.image, o.box, names_[size_t(o.class_id)], stem);
    }
    if (config_.flag("save_txt")) {
      const fs::path file = folder_ / "labels" / (stem + ".txt");
      const std::string text = prediction_labels(p, config_.flag("save_conf"));
      std::error_code ignored;
      if (text.empty()) fs::remove(file, ignored);  // of an earlier run into this folder
      if (!text.empty()) write_file_atomic(file, text);
    }
    if (json_ || config_.flag("save_json"))
      results_ += (results_.empty() ? "" : ",\n") + prediction_json(work.file.string(), p, names_);
    objects_ += p.objects.size();
    preprocess_ += p.preprocess_ms, inference_ += p.inference_ms, postprocess_ += p.postprocess_ms;
    ++done_;
    progress_.update(int64_t(done_ + failures_.size()), "predicting");
    if (json_) return;
    fmt::print("{}/{} {}: {}x{}, {}, {:.1f} ms\n", done_ + failures_.size(), total_, one_line(work.file.string()), p.width,
               p.height, one_line(counts_of(p, names_)), p.preprocess_ms + p.inference_ms + p.postprocess_ms);
    flush_stdout();
  }

  void fail(const fs::path& file, const Error& e) {
    nlohmann::ordered_json j = {{"code", int(e.code())}, {"message", e.message()}, {"file", file.string()}};
    if (!e.hint().empty()) j["hint"] = e.hint();
    failures_.push_back(j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    out_of_memory_ |= e.code() == ErrorCode::kMemory;
    progress_.finish("");
    print_stderr("error: {}\n", e.what());
  }

  // For those that are done, when it ends before the others.
  void save_interrupted(double read_ms) const {
    if (config_.flag("save_json")) write_file_atomic(folder_ / "predictions.json", json(read_ms, true));
  }

  int finish(double read_ms) {
    progress_.finish("");
    const double n = double(std::max<size_t>(done_, 1));
    if (json_ || config_.flag("save_json")) {
      const std::string text = json(read_ms, false);
      if (config_.flag("save_json")) write_file_atomic(folder_ / "predictions.json", text);
      if (json_) fmt::print("{}", text);
    }
    if (!json_) {
      fmt::print("{} images, {} objects{}; ms an image: read {:.1f}, preprocess {:.1f}, inference {:.1f}, postprocess {:.1f}{}\n",
                 done_, objects_, failures_.empty() ? "" : fmt::format(", {} images could not be read", failures_.size()),
                 read_ms / n, preprocess_ / n, inference_ / n, postprocess_ / n,
                 folder_.empty() ? "" : "; results in " + folder_.string());
    }
    return failures_.empty() ? 0 : int(out_of_memory_ ? ErrorCode::kMemory : ErrorCode::kData);
  }

 private:
  std::string json(double read_ms, bool interrupted) const {
    nlohmann::ordered_json head = {{"command", "predict"}, {"model", config_.text("model")}, {"images", done_}};
    const auto rounded = [&](double ms) { return std::round(ms / double(std::max<size_t>(done_, 1)) * 1e3) / 1e3; };
    head["speed_ms"] = {{"load", rounded(read_ms)},
                        {"preprocess", rounded(preprocess_)},
                        {"inference", rounded(inference_)},
                        {"postprocess", rounded(postprocess_)}};
    if (!folder_.empty()) head["run_dir"] = folder_.string();
    if (interrupted) head["interrupted"] = true;
    std::string text = head.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    text.back() = ',';
    text += "\"results\":[" + results_ + "]";
    if (!failures_.empty()) text += fmt::format(",\"errors\":[{}]", fmt::join(failures_, ",\n"));
    return text + "}\n";
  }

  const Config& config_;
  const std::vector<std::string>& names_;
  size_t total_, done_ = 0, objects_ = 0;
  bool json_;
  Progress progress_;
  fs::path folder_;
  std::optional<CropWriter> crops_;
  UniqueStems stems_;
  std::string results_;
  std::vector<std::string> failures_;
  bool out_of_memory_ = false;  // for one of them
  double preprocess_ = 0, inference_ = 0, postprocess_ = 0;
};

}  // namespace

int run_predict(const Config& config) {
  const LogStyle log = prepare(config);
  if (!config.is_set("source")) {
    throw Error(ErrorCode::kUsage, "--source is missing", {},
                "give an image, a folder of images or a pattern: --source 'photos/*.jpg'");
  }
  const std::vector<fs::path> files = source_images(config.text("source"));
  LoadedModel loaded;
  const std::unique_ptr<OnnxNetwork> network = open_onnx(config);
  if (!network) {
    loaded = load_inference_model(config, log);
    if (!loaded.pretrained) {
      log_line(log, fmt::format(
                        "warning: {} has untrained weights, its results mean nothing; give trained ones: --model best.safetensors",
                        config.text("model")));
    }
  }
  const std::unique_ptr<Predictor> made =
      network ? predictor_of(*network, config)
              : std::make_unique<Predictor>(*loaded.model, loaded.names,
                                            predictor_options(with_arguments_of_training(loaded, config, log)));
  Predictor& predictor = *made;
  Output output(config, files.size(), log, predictor.names());
  // One image at a time unless told otherwise: the result of an image is out as soon as it can be. A file of a fixed batch computes
  // one in any case.
  const int64_t at_once = network && !network->dynamic() ? network->batch() : 1;
  const size_t batch = size_t(config.is_explicit("batch") ? config.integer("batch") : at_once);
  double read_ms = 0;
  for (size_t first = 0; first < files.size(); first += batch) {
    std::vector<Work> work;
    for (size_t i = first; i < std::min(first + batch, files.size()); ++i) {
      if (interrupt_requested()) {
        output.save_interrupted(read_ms);
        throw Error(ErrorCode::kInterrupted, fmt::format("interrupted after {} of {} images", first, files.size()), {},
                    "what was written for those is complete; start it again for the rest");
      }
      const auto start = Clock::now();
      try {
        if (is_video(files[i])) refuse_video(files[i]);
        work.push_back({files[i], read_image(files[i])});
        read_ms += ms_since(start);
      } catch (const Error& e) {
        if (e.code() != ErrorCode::kData && e.code() != ErrorCode::kIo && e.code() != ErrorCode::kMemory) throw;
        output.fail(files[i], e);
      }
    }
    std::vector<Image> images;
    for (Work& w : work) images.push_back(std::move(w.image));
    const std::vector<Prediction> predictions = predictor.run(images);
    for (size_t i = 0; i < work.size(); ++i) {
      work[i].image = std::move(images[i]);
      output.add(work[i], predictions[i]);
    }
  }
  return output.finish(read_ms);
}

}  // namespace tessera
