#include "yolo/eval/predictor.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "autograd/grad_mode.h"
#include "tensor/base/parallel.h"
#include "yolo/eval/decode.h"
#include "yolo/eval/evaluator.h"

namespace tessera {

namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point t) { return std::chrono::duration<double, std::milli>(Clock::now() - t).count(); }

Detections detect(const YoloSeg& model, const RawOutputs& outputs, int64_t image, int64_t height, int64_t width,
                  const PredictorOptions& options) {
  const int64_t nc = model.nc(), masks = model.masks(), pitch = 4 + nc + masks, anchors = model.anchor_count(height, width);
  std::vector<float> rows(size_t(anchors * pitch));
  decode_head(head_levels(outputs, image, model.strides()), nc, masks, rows.data(), pitch, options.confidence);
  NmsOptions nms;
  nms.confidence = options.confidence;
  nms.iou = options.iou;
  nms.agnostic = options.agnostic;
  nms.classes = options.classes;
  nms.max_detections = options.max_detections;
  return non_max_suppression(rows.data(), anchors, nc, masks, pitch, nms);
}

}  // namespace

std::vector<ObjectPrediction> original_objects(const Prototypes& prototypes, const Detections& detections,
                                               const LetterboxPlan& plan, int original_height, int original_width,
                                               const PredictorOptions& options) {
  ResultGeometry geometry;
  geometry.network_height = plan.height(), geometry.network_width = plan.width();
  geometry.original_height = original_height, geometry.original_width = original_width;
  const PixelBox inner{plan.left, plan.top, plan.left + plan.resized_width, plan.top + plan.resized_height};
  std::vector<ObjectPrediction> out;
  for (int64_t i = 0; i < detections.size(); ++i) {
    const size_t k = size_t(i);
    const BoxXyxy box = scale_box(detections.boxes[k], geometry);
    const float* coefficients = detections.coefficients_of(i);
    const MaskPatch computed =
        options.retina_masks
            ? process_mask_native(prototypes, coefficients, box, original_height, original_width)
            : process_mask(prototypes, coefficients, detections.boxes[k], plan.height(), plan.width(), MaskSize::kNetwork);
    if (!computed.any()) continue;
    ObjectPrediction& object = out.emplace_back();
    object.class_id = detections.classes[k];
    object.confidence = detections.scores[k];
    object.box = box;
    object.mask = options.retina_masks ? computed : to_original(computed, inner, original_height, original_width);
    object.rings = mask_rings(object.mask);
    if (options.polygons) {
      object.polygon = mask_polygon(computed);
      scale_polygon(object.polygon, computed.height, computed.width, original_height, original_width);
    }
  }
  return out;
}

Predictor::Predictor(YoloSeg& model, std::vector<std::string> names, PredictorOptions options)
    : model_(model), names_(std::move(names)), options_(std::move(options)), was_training_(model.training()) {
  const auto refuse = [](std::string message, std::string hint = {}) {
    throw Error(ErrorCode::kUsage, std::move(message), {}, std::move(hint));
  };
  if (int64_t(names_.size()) != model_.nc())
    refuse(fmt::format("{} class names for a model of {} classes", names_.size(), model_.nc()));
  if (options_.imgsz < 1 || options_.imgsz % model_.max_stride() != 0) {
    refuse(fmt::format("imgsz={} is not a multiple of {}", options_.imgsz, model_.max_stride()));
  }
  if (!(options_.confidence >= 0 && options_.confidence <= 1))
    refuse(fmt::format("conf={} is not within 0 to 1", options_.confidence));
  if (!(options_.iou >= 0 && options_.iou <= 1)) refuse(fmt::format("iou={} is not within 0 to 1", options_.iou));
  for (const int32_t id : options_.classes) {
    if (id < 0 || id >= model_.nc()) {
      refuse(fmt::format("class {} does not exist", id), fmt::format("the model has the classes 0 to {}", model_.nc() - 1));
    }
  }
  model_.train(false);
  model_.fold();
}

Predictor::~Predictor() {
  model_.unfold();
  model_.train(was_training_);
}

LetterboxPlan Predictor::plan(const Image& image) const {
  LetterboxOptions letterbox;
  letterbox.auto_shape = options_.rect;
  letterbox.stride = int(model_.max_stride());
  return plan_letterbox({image.height, image.width}, {options_.imgsz, options_.imgsz}, letterbox);
}

Prediction Predictor::run(const Image& image) { return std::move(run(std::span(&image, 1)).front()); }

std::vector<Prediction> Predictor::run(std::span<const Image> images) {
  const NoGrad no_grad;
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
    const Variable normalized = normalize(input.to(model_.device()));
    const double preprocess_ms = ms_since(preprocessing) / double(n);
    const auto inferring = Clock::now();
    const RawOutputs outputs = on_host(model_.forward(normalized));
    const double inference_ms = ms_since(inferring) / double(n);
    const auto postprocessing = Clock::now();
    parallel_chunks(n, [&](int64_t i) {
      const size_t k = group[size_t(i)];
      const Detections detections = detect(model_, outputs, i, height, width, options_);
      out[k].height = images[k].height, out[k].width = images[k].width;
      out[k].objects =
          original_objects(image_prototypes(outputs, i), detections, plans[k], images[k].height, images[k].width, options_);
    });
    const double postprocess_ms = ms_since(postprocessing) / double(n);
    for (const size_t k : group) {
      out[k].preprocess_ms = preprocess_ms, out[k].inference_ms = inference_ms, out[k].postprocess_ms = postprocess_ms;
    }
  }
  return out;
}

}  // namespace tessera
