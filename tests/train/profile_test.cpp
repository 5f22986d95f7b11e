// A profile against what is known of the network without running it.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "autograd/functions/pointwise.h"
#include "autograd/functions/reduce.h"
#include "nn/optim/optimizer.h"
#include "tensor/base/scope.h"
#include "tests/yolo/formula_model.h"
#include "yolo/train/loss.h"
#include "yolo/train/step_profile.h"

using namespace tessera;

namespace {

constexpr int64_t kSize = 64, kImages = 2;

Batch two_images() {
  Batch batch;
  batch.images = Tensor::empty({kImages, kSize, kSize, 3}, DType::kU8);
  for (int64_t i = 0; i < batch.images.numel(); ++i) batch.images.data<uint8_t>()[i] = uint8_t(i * 37 % 251);
  batch.targets = {{1, {0.3f, 0.35f, 0.45f, 0.5f}}, {0, {0.5f, 0.45f, 0.85f, 0.7f}}};
  batch.target_image = {0, 1};
  batch.masks = Tensor::full({kImages, kSize / 4, kSize / 4}, 1, DType::kI32);
  return batch;
}

double operations(const Profile& p, const std::string& direction) {
  double sum = 0;
  for (const ProfileRow& r : p.rows) sum += r.direction == direction ? r.operations : 0;
  return sum;
}

}  // namespace

TEST_CASE("profile: operations are those of the layer table, each layer has its directions, the parts add up, results stay") {
  YoloSeg model(parse_model_yaml("yolov8n-seg", {}, 3));
  model.init(3);
  const ParameterArena arena(model);
  Sgd optimizer(arena, true);
  const SegmentationLoss criterion({}, model.strides());
  const Batch batch = two_images();
  const auto step = [&] {
    const RawOutputs outputs = model.forward(normalize(batch.images));
    Variable total = criterion(outputs, batch).total;
    // A gradient for every map, also those of levels to which no object was assigned.
    for (const auto& maps : {outputs.box, outputs.cls, outputs.coefficients}) {
      for (const Variable& map : maps) total = ag::add(total, ag::sum(map));
    }
    total.backward();
    const ScopeGuard scope(&optimizer);
    arena.grad_norm();
  };
  arena.zero_grad();
  step();
  const std::vector<float> plain = arena.grads(ParamGroup::kWeight).to_vector<float>();

  StepProfile profile(Device::cpu(), 2, {100, 10});
  profile.name(nullptr, "input", "");
  profile.name(model);
  profile.name(&criterion, "loss", "loss");
  profile.name(&optimizer, "optimizer", "optimizer");
  CHECK_FALSE(profile.started());
  do {
    arena.zero_grad();
    step();
  } while (!profile.step_done());
  CHECK_FALSE(profile.step_done());  // complete: nothing more is counted
  const std::vector<float> profiled = arena.grads(ParamGroup::kWeight).to_vector<float>();
  CHECK(std::memcmp(plain.data(), profiled.data(), plain.size() * sizeof(float)) == 0);

  const Profile p = profile.result();
  CHECK(p.steps == 2);
  double flops = 0, first = 0;
  for (const LayerSummary& l : model.layer_table(kSize, kSize)) {
    flops += l.flops * kImages;
    if (l.index == 0) first = l.flops * kImages;
  }
  CHECK(operations(p, "forward") == doctest::Approx(flops).epsilon(1e-12));
  CHECK(operations(p, "backward weights") == doctest::Approx(flops).epsilon(1e-12));
  CHECK(operations(p, "backward data") == doctest::Approx(flops - first).epsilon(1e-12));

  const auto find = [&](const std::string& layer, const std::string& direction) {
    return std::find_if(p.rows.begin(), p.rows.end(),
                        [&](const ProfileRow& r) { return r.layer == layer && r.direction == direction; });
  };
  for (const char* layer : {"model.0", "model.2.m.0.cv1", "model.22.cv3.2.1"}) {
    for (const char* direction : {"forward", "backward weights", "norm", "norm backward"}) {
      CAPTURE(layer);
      CAPTURE(direction);
      REQUIRE(find(layer, direction) != p.rows.end());
      CHECK(find(layer, direction)->ms > 0);
    }
  }
  CHECK(find("model.0", "backward data") == p.rows.end());  // no gradient of the image is wanted
  CHECK(find("model.22.proto.upsample", "backward data") != p.rows.end());
  CHECK(find("model.22.cv2.0.2", "forward") != p.rows.end());
  CHECK(find("model.10", "pointwise") != p.rows.end());
  CHECK(find("model.10", "pointwise backward") != p.rows.end());
  CHECK(find("model.22.dfl", "forward") == p.rows.end());  // the loss decodes boxes by itself
  CHECK(find("loss", "loss") != p.rows.end());
  CHECK(find("optimizer", "optimizer") != p.rows.end());
  // The first normalisation reads and writes its map once (its statistics belong to the convolution); the running averages are small.
  const double map = double(kImages * (kSize / 2) * (kSize / 2) * 16 * 4);
  CHECK(find("model.0", "norm")->bytes == doctest::Approx(2 * map).epsilon(1e-3));
  for (const ProfileRow& r : p.rows) {
    CAPTURE(r.layer);
    CHECK(!r.layer.ends_with(".conv"));
    CHECK(r.layer != "elsewhere");
  }
  CHECK(p.kernels_ms() > 0);
  CHECK(p.kernels_ms() <= p.step_ms);
  CHECK(p.outside_ms() == doctest::Approx(p.step_ms - p.kernels_ms()));

  // Half the roof of arithmetic, the copy far away; and the other way round.
  CHECK(of_roof({"", "", 1, 2.0, 100e6, 8}, {100, 10}) == doctest::Approx(0.5));
  CHECK(of_roof({"", "", 1, 2.0, 1, 10e6}, {100, 10}) == doctest::Approx(0.5));
  const std::string csv = profile_csv(p);
  CHECK(csv.find("\nmodel.2.m.0.cv1,backward data,1,") != std::string::npos);
  CHECK(csv.find("\n,outside of kernels,,") != std::string::npos);
  CHECK(profile_json(p)["rows"].size() == p.rows.size());
}
