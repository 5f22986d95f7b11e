#include "yolo/eval/predictor.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>

#include "autograd/grad_mode.h"
#include "tensor/backend.h"
#include "tensor/base/parallel.h"
#include "yolo/eval/evaluation_mode.h"
#include "yolo/eval/replayed_forward.h"

namespace tessera {

namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point t) { return std::chrono::duration<double, std::milli>(Clock::now() - t).count(); }

}  // namespace

std::vector<std::vector<ObjectPrediction>> original_objects(const BatchDetections& found, std::span<const InputImage> inputs,
                                                            const PredictorOptions& options) {
  struct Place {
    size_t image, detection;
    BoxXyxy box;  // in the original image
  };
  std::vector<Place> places;
  std::vector<MaskItem> items;
  for (size_t image = 0; image < inputs.size(); ++image) {
    const InputImage& in = inputs[image];
    ResultGeometry geometry;
    geometry.network_height = in.plan.height(), geometry.network_width = in.plan.width();
    geometry.original_height = in.height, geometry.original_width = in.width;
    for (size_t i = 0; i < found.images[image].boxes.size(); ++i) {
      const BoxXyxy box = scale_box(found.images[image].boxes[i], geometry);
      places.push_back({image, i, box});
      items.push_back(options.retina_masks
                          ? native_mask_item(found, int64_t(image), int64_t(i), box, in.height, in.width)
                          : mask_item(found, int64_t(image), int64_t(i), in.plan.height(), in.plan.width(), MaskSize::kNetwork));
    }
  }
  std::vector<std::optional<ObjectPrediction>> objects(items.size());
  for_each_mask(found, items, [&](int64_t item, const MaskView& computed) {
    if (!computed.any()) return;
    const Place& at = places[size_t(item)];
    const Detections& detections = found.images[at.image];
    const InputImage& in = inputs[at.image];
    ObjectPrediction& object = objects[size_t(item)].emplace();
    object.class_id = detections.classes[at.detection];
    object.confidence = detections.scores[at.detection];
    object.box = at.box;
    if (options.polygons) {
      object.polygon = mask_polygon(computed);
      scale_polygon(object.polygon, computed.height, computed.width, in.height, in.width);
    }
    const LetterboxPlan& plan = in.plan;
    const PixelBox inner{plan.left, plan.top, plan.left + plan.resized_width, plan.top + plan.resized_height};
    object.mask = options.retina_masks ? computed.copy() : to_original(computed, inner, in.height, in.width);
    object.rings = mask_rings(object.mask);
  });
  std::vector<std::vector<ObjectPrediction>> out(inputs.size());
  for (size_t i = 0; i < objects.size(); ++i) {
    if (objects[i]) out[places[i].image].push_back(std::move(*objects[i]));
  }
  return out;
}

// What holds a model ready meanwhile.
struct Predictor::OfModel {
  explicit OfModel(YoloSeg& model) : mode(model), forward(model) {}
  EvaluationMode mode;
  ReplayedForward forward;
};

Predictor::Predictor(YoloSeg& model, std::vector<std::string> names, PredictorOptions options)
    : Predictor(std::make_unique<OfModel>(model), std::move(names), std::move(options)) {}

Predictor::Predictor(std::unique_ptr<OfModel> of_model, std::vector<std::string> names, PredictorOptions options)
    : of_model_(std::move(of_model)), network_(of_model_->forward), names_(std::move(names)), options_(std::move(options)) {
  check();
}

Predictor::Predictor(SegNetwork& network, std::vector<std::string> names, PredictorOptions options)
    : network_(network), names_(std::move(names)), options_(std::move(options)) {
  check();
}

Predictor::~Predictor() = default;

void Predictor::check() const {
  const auto refuse = [](std::string message, std::string hint = {}) {
    throw Error(ErrorCode::kUsage, std::move(message), {}, std::move(hint));
  };
  if (int64_t(names_.size()) != network_.nc())
    refuse(fmt::format("{} class names for a model of {} classes", names_.size(), network_.nc()));
  if (options_.imgsz < 1 || options_.imgsz % network_.max_stride() != 0) {
    refuse(fmt::format("imgsz={} is not a multiple of {}", options_.imgsz, network_.max_stride()));
  }
  if (!(options_.confidence >= 0 && options_.confidence <= 1))
    refuse(fmt::format("conf={} is not within 0 to 1", options_.confidence));
  if (!(options_.iou >= 0 && options_.iou <= 1)) refuse(fmt::format("iou={} is not within 0 to 1", options_.iou));
  for (const int32_t id : options_.classes) {
    if (id < 0 || id >= network_.nc()) {
      refuse(fmt::format("class {} does not exist", id), fmt::format("the model has the classes 0 to {}", network_.nc() - 1));
    }
  }
}

LetterboxPlan Predictor::plan(const Image& image) const {
  LetterboxOptions letterbox;
  const bool fixed = options_.fixed != Size{};
  letterbox.auto_shape = options_.rect && !fixed;
  letterbox.stride = int(network_.max_stride());
  return plan_letterbox({image.height, image.width}, fixed ? options_.fixed : Size{options_.imgsz, options_.imgsz}, letterbox);
}

Prediction Predictor::run(const Image& image) { return std::move(run(std::span(&image, 1)).front()); }

std::vector<Prediction> Predictor::run(std::span<const Image> images) {
  const NoGrad no_grad;
  DetectParams detection;
  detection.confidence = options_.confidence;
  detection.iou = options_.iou;
  detection.agnostic = options_.agnostic;
  detection.max_detections = options_.max_detections;
  std::vector<Prediction> out(images.size());
  std::vector<LetterboxPlan> plans;
  for (const Image& image : images) {
    TESSERA_CHECK(!image.empty(), "predict: an empty image");
    plans.push_back(plan(image));
  }
  std::vector<uint8_t> done(images.size(), 0);
  for (size_t first = 0; first < images.size(); ++first) {
    if (done[first]) continue;
    const int height = plans[first].height(), width = plans[first].width();
    std::vector<size_t> group;
    for (size_t i = first; i < images.size(); ++i) {
      if (!done[i] && plans[i].height() == height && plans[i].width() == width) group.push_back(i), done[i] = 1;
    }
    const int64_t n = int64_t(group.size());
    const auto preprocessing = Clock::now();
    const Tensor input = Tensor::empty({n, height, width, 3}, DType::kU8);
    uint8_t* pixels = input.data<uint8_t>();
    parallel_chunks(n, [&](int64_t i) {
      const Image boxed = letterbox(images[group[size_t(i)]], plans[group[size_t(i)]]);
      std::memcpy(pixels + size_t(i) * boxed.pixels.size(), boxed.pixels.data(), boxed.pixels.size());
    });
    network_.place(input);
    const double preprocess_ms = ms_since(preprocessing) / double(n);
    const auto inferring = Clock::now();
    const RawOutputs outputs = network_.run();
    backend_for(network_.device()).synchronize();  // the time is the network's own
    const double inference_ms = ms_since(inferring) / double(n);
    const auto postprocessing = Clock::now();
    const BatchDetections found = detect(outputs, network_.strides(), detection, options_.classes);
    std::vector<InputImage> inputs;
    for (const size_t k : group) inputs.push_back({plans[k], images[k].height, images[k].width});
    std::vector<std::vector<ObjectPrediction>> objects = original_objects(found, inputs, options_);
    for (size_t i = 0; i < group.size(); ++i) {
      Prediction& prediction = out[group[i]];
      prediction.height = inputs[i].height, prediction.width = inputs[i].width;
      prediction.objects = std::move(objects[i]);
    }
    const double postprocess_ms = ms_since(postprocessing) / double(n);
    for (const size_t k : group) {
      out[k].preprocess_ms = preprocess_ms, out[k].inference_ms = inference_ms, out[k].postprocess_ms = postprocess_ms;
    }
  }
  return out;
}

}  // namespace tessera
