// val: a model over a split, scored as COCO or as the original does; or a result file against its truth, without a model.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "data/coco_json.h"
#include "tensor/base/file.h"
#include "tensor/base/interrupt.h"
#include "tensor/base/memory.h"
#include "tensor/base/parallel.h"
#include "tools/verbs/inference_model.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/onnx_model.h"
#include "tools/verbs/verbs.h"
#include "yolo/config_values.h"
#include "yolo/eval/coco_eval.h"
#include "yolo/eval/evaluator.h"
#include "yolo/eval/masks.h"
#include "yolo/eval/validation_labels.h"
#include "yolo/io/weights.h"
#include "yolo/metrics_json.h"
#include "yolo/report/html_report.h"
#include "yolo/train/run_folder.h"
#include "yolo/train/run_plots.h"
#include "yolo/train/training_data.h"

namespace tessera {

namespace {

namespace fs = std::filesystem;

nlohmann::ordered_json report_json(const CocoReport& r) {
  const CocoSummary& s = r.summary;
  return {{"map", s.map()},       {"map50", s.map50()},         {"map75", s.map75()},   {"maps", s.maps()}, {"mapm", s.mapm()},
          {"mapl", s.mapl()},     {"ar1", s.ar1()},             {"ar10", s.ar10()},     {"ar100", s.ar100()}, {"ars", s.ars()},
          {"arm", s.arm()},       {"arl", s.arl()},             {"precision", r.precision}, {"recall", r.recall}, {"f1", r.f1}};
}

// A result file against its truth, without a model: what pycocotools prints.
int score_files(const Config& config) {
  const CocoInstances truth = read_coco_instances(config.text("gt"));
  CocoResults results = read_coco_results(config.text("predictions"), truth, ReadMasks::kComparable);
  bool masks = !results.records.empty();
  for (const CocoResult& r : results.records) masks = masks && r.has_mask;
  const CocoEval eval(truth, std::move(results));
  const CocoReport box = eval.evaluate(IouKind::kBox);
  nlohmann::ordered_json j = {{"command", "val"}, {"map_style", "coco"}, {"images", truth.images.size()},
                              {"instances", eval.truths()}, {"box", report_json(box)}};
  std::string text = "boxes\n" + to_string(box.summary);
  if (masks) {
    const CocoReport mask = eval.evaluate(IouKind::kMask);
    j["mask"] = report_json(mask);
    text += "masks\n" + to_string(mask.summary);
  }
  if (config.flag("json")) {
    print_json(j);
  } else {
    fmt::print("{}", text);
  }
  return 0;
}

EvaluatorOptions evaluator_options(const Config& config) {
  EvaluatorOptions o;
  if (config.is_set("conf")) o.confidence = float(config.number("conf"));
  o.iou = config.number("iou");
  o.max_detections = config.integer("max_det");
  o.single_class = config.flag("single_cls");
  o.agnostic = config.flag("agnostic_nms") || o.single_class;
  o.style = config.text("map_style") == "original" ? MapStyle::kOriginal : MapStyle::kCoco;
  return o;
}

// predictions.json, written while the network works: the detections of a group of images become text on all threads, beside the one
// that writes the texts of the group before.
class PredictionsFile {
 public:
  PredictionsFile(fs::path file, const std::string& data_yaml, const SegDataset& data)
      : writer_(std::move(file)), data_(data), coco_ids_(is_coco_set(data_yaml, data.names().size())) {}
  void listen(EvaluatorHooks& hooks) {  // this object must outlive the run
    hooks.detections = [this](std::span<const std::vector<ScoredDetection>> images) { add(images); };
  }
  void close() {
    write(texts_);
    writer_.close();
  }

 private:
  void add(std::span<const std::vector<ScoredDetection>> images) {
    std::swap(texts_, previous_);
    texts_.resize(std::max(texts_.size(), images.size()));
    for (CocoResultsText& text : texts_) text.clear();
    parallel_chunks(1 + int64_t(images.size()), [&](int64_t i) {
      if (i == 0) return write(previous_);
      fill(texts_[size_t(i) - 1], images[size_t(i) - 1]);
    });
  }
  void fill(CocoResultsText& text, const std::vector<ScoredDetection>& detections) const {
    if (detections.empty()) return;
    const std::string stem = fs::path(data_.image(detections[0].image).file).stem().string();
    for (const ScoredDetection& d : detections) {
      const int64_t category = coco_ids_ ? coco_category_of_class(d.class_id) : d.class_id + 1;
      text.add(stem, category, to_ltwh(d.box), double(d.score), &d.mask);
    }
  }
  void write(const std::vector<CocoResultsText>& texts) {
    for (const CocoResultsText& text : texts) writer_.add(text);
  }

  CocoResultsWriter writer_;
  const SegDataset& data_;
  bool coco_ids_;                                  // categories have COCO's own ids
  std::vector<CocoResultsText> texts_, previous_;  // one for each image of the last group, and of the one before
};

// The run folder of a validation and what is written into it. Figures alone need none: it is made for predictions, labels, or
// plots that were asked for.
class ValidationFolder {
 public:
  ValidationFolder(const Config& config, const SegDataset& data, float confidence, LogStyle log) {
    const bool save_json = config.flag("save_json"), save_txt = config.flag("save_txt");
    const bool plots = config.flag("plots") && (save_json || save_txt || config.is_explicit("plots"));
    if (!plots && !save_json && !save_txt) return;
    path_ = create_run_folder(config.text("project"), config.is_set("name") ? config.text("name") : "val", config.flag("exist_ok"));
    if (const std::string kept = set_aside_earlier_validation(path_); !kept.empty()) log_line(log, kept);
    if (plots) plots_.emplace(path_, data.names(), double(confidence));
    failing_.emplace(path_, data, plots);
    if (save_txt) labels_.emplace(path_ / "labels", data, config.flag("save_conf"));
    if (save_json) predictions_.emplace(path_ / "predictions.json", config.text("data"), data);
  }

  void listen(EvaluatorHooks& hooks) {  // this object must outlive the run
    if (plots_) plots_->listen(hooks);
    if (failing_) failing_->listen(hooks);
    if (labels_) labels_->listen(hooks);
    if (predictions_) predictions_->listen(hooks);
  }

  // After the run: what is complete only then.
  void finish() {
    if (predictions_) predictions_->close();
    if (plots_) plots_->finish();
    if (failing_) failing_->finish();
  }
  void write_summary(const nlohmann::ordered_json& summary, const Config& config) const {
    if (path_.empty()) return;
    write_file_atomic(path_ / "metrics.json", json_text(summary, 2));
    write_html_report(path_, summary, made_by(config));
  }
  void print_contents() const {
    if (path_.empty()) return;
    if (predictions_) fmt::print("predictions  {}\n", (path_ / "predictions.json").string());
    if (labels_) fmt::print("labels       {}\n", (path_ / "labels").string());
    if (plots_)
      fmt::print("plots        {}/*_curve.png, val_batch*.png, confusion_matrix*.png, worst_images.png\n", path_.string());
    fmt::print("report       {}\n", (path_ / "report.html").string());
    fmt::print("images       {}: what was found and missed in each, worst first\n", (path_ / "images.csv").string());
  }

  const fs::path& path() const { return path_; }  // empty: there is none

 private:
  fs::path path_;
  std::optional<ValidationPlots> plots_;
  std::optional<FailingImages> failing_;
  std::optional<ValidationLabels> labels_;
  std::optional<PredictionsFile> predictions_;
};

nlohmann::ordered_json summary_json(const Config& config, const ValidationResult& r, const fs::path& folder) {
  nlohmann::ordered_json j = {{"command", "val"}, {"model", config.text("model")}, {"data", config.text("data")}};
  j.update(to_json(r));
  j["images_per_s"] = double(r.images) / r.seconds;
  j["peak_rss_mib"] = peak_resident_bytes() >> 20;
  j["seconds"] = r.seconds;
  if (!folder.empty()) j["run_dir"] = folder.string();
  return j;
}

}  // namespace

int run_val(const Config& given) {
  const LogStyle log = prepare(given);
  if (given.is_set("gt") != given.is_set("predictions")) {
    throw Error(ErrorCode::kUsage, "--gt and --predictions belong together", {}, "--gt instances.json --predictions results.json");
  }
  if (given.is_set("gt")) return score_files(given);

  const std::unique_ptr<OnnxNetwork> network = open_onnx(given);
  LoadedModel loaded;
  if (!network) {
    loaded = load_inference_model(given, log);
    if (!loaded.pretrained) {
      throw Error(ErrorCode::kUsage, fmt::format("'{}' has no weights to validate", given.text("model")), {},
                  "give a .safetensors file of a run, a .pt of the original or an .onnx of either");
    }
  }
  const Config config = network ? fitted_to(*network, given) : with_arguments_of_training(loaded, given, log);
  const int64_t nc = network ? network->nc() : loaded.model->nc();
  const auto data = open_split(config, config.text("split"), false, log, 1, network ? network->fixed_size() : Size{});
  if (int64_t(data->names().size()) != nc && !config.flag("single_cls")) {
    throw Error(ErrorCode::kData, fmt::format("the model has {} classes, the data {}", nc, data->names().size()),
                {config.text("model")}, "validate on the data set that it was trained for");
  }
  LoaderOptions loader_options;
  loader_options.batch = config.integer("batch");
  loader_options.threads = int(config.integer("workers"));
  Loader loader(*data, loader_options);

  const EvaluatorOptions options = evaluator_options(config);
  const Evaluator evaluator(data->names(), options);
  ValidationFolder folder(config, *data, options.confidence, log);
  Progress progress(log, data->size());
  EvaluatorHooks hooks;
  hooks.progress = [&](int64_t done, int64_t) { progress.update(done, "validating"); };
  hooks.stop = interrupt_requested;
  folder.listen(hooks);
  const ValidationResult r = network ? evaluator.run(*network, *data, loader, hooks) : evaluator.run(*loaded.model, *data, loader, hooks);
  progress.finish("");
  folder.finish();

  const nlohmann::ordered_json summary = summary_json(config, r, folder.path());
  folder.write_summary(summary, config);
  if (config.flag("json")) {
    print_json(summary);
    return 0;
  }
  fmt::print("{}", format_table(r, r.classes.size() > 1));
  fmt::print("\nmilliseconds an image: {:.1f} load, {:.1f} preprocess, {:.1f} inference, {:.1f} postprocess, {:.1f} evaluate ({} style)\n", r.speed.load,
             r.speed.preprocess, r.speed.inference, r.speed.postprocess, r.speed.evaluate, r.map_style);
  folder.print_contents();
  return 0;
}

}  // namespace tessera
