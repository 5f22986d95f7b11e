#include "tensor/ops/assign.h"

#include "tensor/ops/checks.h"

namespace tessera::ops {

namespace {

AssignInput input_of(std::string_view op, const AnchorMaps& maps, const Tensor& boxes, const Tensor& classes) {
  check_defined(op, "boxes", boxes);
  const Device device = boxes.device();
  check_type_and_device(op, "boxes", boxes, DType::kF32, device);
  check_type_and_device(op, "classes", classes, DType::kI32, device);
  TESSERA_CHECK(boxes.rank() == 3 && boxes.size(2) == 4 && boxes.is_dense(), "{}: got boxes {}, expected dense (N, G, 4)", op,
                describe(boxes));
  TESSERA_CHECK(classes.shape() == Shape({boxes.size(0), boxes.size(1)}) && classes.is_dense(),
                "{}: got classes {}, expected dense ({}, {})", op, describe(classes), boxes.size(0), boxes.size(1));
  AssignInput in{};
  in.decoded = maps.decoded;
  in.images = boxes.size(0);
  in.width = boxes.size(1);
  in.boxes = boxes.data<float>();
  in.classes = classes.data<int32_t>();
  const int64_t channels = maps.cls[0].defined() ? maps.cls[0].size(-1) : 0;
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    for (const auto& [what, map] : {std::pair{"box", maps.box[i]}, std::pair{"cls", maps.cls[i]}}) {
      check_type_and_device(op, what, map, DType::kF32, device);
      TESSERA_CHECK(map.rank() == 4 && map.size(0) == in.images && map.layout() != Layout::kGeneral,
                    "{}: got {} map {} of level {}, expected ({}, h, w, channels) in dense or pitched rows", op, what,
                    describe(map), i, in.images);
    }
    const Tensor &box = maps.box[i], &cls = maps.cls[i];
    TESSERA_CHECK(box.size(1) == cls.size(1) && box.size(2) == cls.size(2) && cls.size(3) == channels,
                  "{}: got box map {} and cls map {} of level {}, expected equal sizes and {} classes", op, describe(box),
                  describe(cls), i, channels);
    TESSERA_CHECK(maps.decoded ? box.size(3) == 4 : box.size(3) % 4 == 0 && box.size(3) > 4,
                  "{}: got box map {} of level {}, expected {} channels", op, describe(box), i, maps.decoded ? "4" : "4 * bins");
    in.levels[i] = {box.rows(), cls.rows(), box.size(1), box.size(2), maps.strides[i]};
  }
  if (device.kind != Device::Kind::kCpu) return in;  // a device cannot stop on a bad class
  for (int64_t i = 0; i < classes.numel(); ++i) {
    TESSERA_CHECK(in.classes[i] >= -1 && in.classes[i] < channels, "{}: got class {} of object {}, expected -1 <= class < {}", op,
                  in.classes[i], i, channels);
  }
  return in;
}

}  // namespace

Assignment assign(const AnchorMaps& maps, const Tensor& boxes, const Tensor& classes, const AssignParams& params) {
  const AssignInput in = input_of("assign", maps, boxes, classes);
  TESSERA_CHECK(params.topk >= 1 && params.topk <= kLargestTopk, "assign: got topk {}, expected 1 .. {}", params.topk,
                kLargestTopk);
  Assignment a{Tensor::empty({in.rows()}, DType::kI32, boxes.device()), Tensor::empty({in.rows()}, DType::kF32, boxes.device())};
  backend_for(boxes.device()).assign(in, params, a.target.data<int32_t>(), a.score.data<float>());
  return a;
}

Positives collect_positives(const AnchorMaps& maps, const Tensor& boxes, const Tensor& classes, const Tensor& mask_ids,
                            const Assignment& assignment, const PositivesParams& params, int64_t capacity) {
  constexpr std::string_view op = "collect_positives";
  const AssignInput in = input_of(op, maps, boxes, classes);
  const Device device = boxes.device();
  check_type_and_device(op, "mask_ids", mask_ids, DType::kI32, device);
  TESSERA_CHECK(mask_ids.shape() == classes.shape() && mask_ids.is_dense(), "{}: got mask_ids {}, expected dense {}", op,
                describe(mask_ids), to_string(classes.shape()));
  check_type_and_device(op, "target", assignment.target, DType::kI32, device);
  check_type_and_device(op, "score", assignment.score, DType::kF32, device);
  TESSERA_CHECK(assignment.target.numel() == in.rows() && assignment.score.numel() == in.rows(),
                "{}: got an assignment of {} rows, expected {}", op, describe(assignment.target), in.rows());
  const auto make = [&](const Shape& shape, DType type = DType::kF32) { return Tensor::empty(shape, type, device); };
  Positives p;
  p.index = make({kAnchorLevels, capacity}, DType::kI64);
  for (Tensor* t : {&p.anchors, &p.corners, &p.distances, &p.mask_boxes}) *t = make({capacity, 4});
  for (Tensor* t : {&p.weights, &p.area}) *t = make({capacity});
  for (Tensor* t : {&p.image, &p.mask}) *t = make({capacity}, DType::kI32);
  p.totals = make({2}, DType::kF64);
  p.scales = make({4});
  p.label = make({in.rows()}, DType::kI32);
  PositivesView view{};
  view.capacity = capacity;
  view.index = p.index.data<int64_t>();
  view.anchors = p.anchors.data<float>();
  view.corners = p.corners.data<float>();
  view.distances = p.distances.data<float>();
  view.weights = p.weights.data<float>();
  view.image = p.image.data<int32_t>();
  view.mask = p.mask.data<int32_t>();
  view.mask_boxes = p.mask_boxes.data<float>();
  view.area = p.area.data<float>();
  view.label = p.label.data<int32_t>();
  view.totals = p.totals.data<double>();
  view.scales = p.scales.data<float>();
  backend_for(device).collect_positives(in, mask_ids.data<int32_t>(), assignment.target.data<int32_t>(),
                                        assignment.score.data<float>(), params, view);
  return p;
}

}  // namespace tessera::ops
