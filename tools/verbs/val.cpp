#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "data/coco_json.h"
#include "tensor/base/file.h"
#include "tensor/base/interrupt.h"
#include "tensor/base/memory.h"
#include "tensor/base/parallel.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/onnx_model.h"
#include "tools/verbs/verbs.h"
#include "yolo/eval/coco_eval.h"
#include "yolo/eval/evaluator.h"
#include "yolo/eval/masks.h"
#include "yolo/eval/validation_labels.h"
#include "yolo/io/weights.h"
#include "yolo/metrics_json.h"
#include "yolo/report/html_report.h"
#include "yolo/train/run_folder.h"
#include "yolo/train/run_pictures.h"
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

LoadedModel load_weights(const Config& config, LogStyle log) {
  LoadedModel loaded = load_model(config.text("model"));
  loaded.model->to(device_of(config));
  loaded.model->set_compute_type(compute_type_of(config));
  for (const std::string& w : loaded.warnings) log_line(log, "warning: " + w);
  if (!loaded.pretrained) {
    throw Error(ErrorCode::kUsage, fmt::format("'{}' has no weights to validate", config.text("model")), {},
                "give a .safetensors file of a run, a .pt of the original or an .onnx of either");
  }
  loaded.model->fold_for_good();
  return loaded;
}

}  // namespace

int run_val(const Config& given) {
  const LogStyle log = prepare(given);
  if (given.is_set("gt") != given.is_set("predictions")) {
    throw Error(ErrorCode::kUsage, "--gt and --predictions belong together", {}, "--gt instances.json --predictions results.json");
  }
  if (given.is_set("gt")) return score_files(given);

  const std::unique_ptr<OnnxNetwork> network = open_onnx(given);
  const Config config = network ? fitted_to(*network, given) : given;
  LoadedModel loaded;
  if (!network) loaded = load_weights(config, log);
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

  EvaluatorOptions options;
  if (config.is_set("conf")) options.confidence = float(config.number("conf"));
  options.iou = config.number("iou");
  options.max_detections = config.integer("max_det");
  options.single_class = config.flag("single_cls");
  options.agnostic = config.flag("agnostic_nms") || options.single_class;
  options.style = config.text("map_style") == "original" ? MapStyle::kOriginal : MapStyle::kCoco;
  const Evaluator evaluator(data->names(), options);

  Progress progress(log, data->size());
  EvaluatorHooks hooks;
  hooks.progress = [&](int64_t done, int64_t) { progress.update(done, "validating"); };
  hooks.stop = interrupt_requested;
  fs::path folder;
  std::unique_ptr<CocoResultsWriter> writer;
  std::vector<CocoResultsText> texts, ready;  // of some images; of those before, which are written meanwhile
  const auto write = [&](const std::vector<CocoResultsText>& of_images) {
    for (const CocoResultsText& text : of_images) writer->add(text);
  };
  // Figures alone need no folder; pictures come with it, or make one when asked for.
  const bool save_json = config.flag("save_json"), save_txt = config.flag("save_txt");
  const bool plots = config.flag("plots") && (save_json || save_txt || config.is_explicit("plots"));
  if (plots || save_json || save_txt) {
    folder = create_run_folder(config.text("project"), config.is_set("name") ? config.text("name") : "val", config.flag("exist_ok"));
    if (const std::string kept = set_aside_earlier_validation(folder); !kept.empty()) log_line(log, kept);
  }
  ValidationPictures pictures(folder, data->names(), double(options.confidence));
  if (plots) pictures.listen(hooks);
  std::optional<FailingImages> failing;
  if (!folder.empty()) failing.emplace(folder, *data, plots).listen(hooks);
  std::optional<ValidationLabels> labels;
  if (save_txt) labels.emplace(folder / "labels", *data, config.flag("save_conf")).listen(hooks);
  if (save_json) {
    writer = std::make_unique<CocoResultsWriter>(folder / "predictions.json");
    const bool coco = is_coco_set(config.text("data"), data->names().size());
    hooks.detections = [&, coco](std::span<const std::vector<ScoredDetection>> images) {
      std::swap(texts, ready);
      texts.resize(std::max(texts.size(), images.size()));
      for (CocoResultsText& text : texts) text.clear();
      parallel_chunks(1 + int64_t(images.size()), [&](int64_t i) {
        if (i == 0) return write(ready);
        const std::vector<ScoredDetection>& detections = images[size_t(i) - 1];
        CocoResultsText& text = texts[size_t(i) - 1];
        if (detections.empty()) return;
        const std::string stem = fs::path(data->image(detections[0].image).file).stem().string();
        for (const ScoredDetection& d : detections) {
          const int64_t category = coco ? coco_category_of_class(d.class_id) : d.class_id + 1;
          text.add(stem, category, to_ltwh(d.box), double(d.score), &d.mask);
        }
      });
    };
  }
  const ValidationResult r = network ? evaluator.run(*network, *data, loader, hooks) : evaluator.run(*loaded.model, *data, loader, hooks);
  progress.finish("");
  if (writer) {
    write(texts);
    writer->close();
  }
  if (plots) pictures.finish();
  if (failing) failing->finish();

  nlohmann::ordered_json j = {{"command", "val"}, {"model", config.text("model")}, {"data", config.text("data")}};
  j.update(to_json(r));
  j["images_per_s"] = double(r.images) / r.seconds;
  j["peak_rss_mib"] = peak_resident_bytes() >> 20;
  j["seconds"] = r.seconds;
  if (!folder.empty()) {
    j["run_dir"] = folder.string();
    write_file_atomic(folder / "metrics.json", json_text(j, 2));
    write_html_report(folder, j, made_by(config));
  }
  if (config.flag("json")) {
    print_json(j);
    return 0;
  }
  fmt::print("{}", format_table(r, r.classes.size() > 1));
  fmt::print("\nmilliseconds an image: {:.1f} load, {:.1f} preprocess, {:.1f} inference, {:.1f} postprocess, {:.1f} evaluate ({} style)\n", r.speed.load,
             r.speed.preprocess, r.speed.inference, r.speed.postprocess, r.speed.evaluate, r.map_style);
  if (writer) fmt::print("predictions  {}\n", (folder / "predictions.json").string());
  if (save_txt) fmt::print("labels       {}\n", (folder / "labels").string());
  if (plots) fmt::print("pictures     {}/*_curve.png, val_batch*.png, confusion_matrix*.png, worst_images.png\n", folder.string());
  if (!folder.empty()) fmt::print("report       {}\n", (folder / "report.html").string());
  if (failing) fmt::print("images       {}: what was found and missed in each, worst first\n", (folder / "images.csv").string());
  return 0;
}

}  // namespace tessera
