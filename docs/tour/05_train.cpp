// Chapter 5 of the tour; the text is 05_train.md.
#include <filesystem>

#include "autograd/functions/concat.h"
#include "autograd/functions/loss.h"
#include "autograd/functions/pointwise.h"
#include "autograd/functions/pool.h"
#include "autograd/functions/shape.h"
#include "autograd/grad_mode.h"
#include "data/batch.h"
#include "data/loader.h"
#include "data/shapes.h"
#include "docs/tour/tour.h"
#include "nn/init.h"
#include "nn/io/checkpoint.h"
#include "nn/layers/conv_bn_act.h"
#include "nn/optim/schedule.h"
#include "nn/optim/weight_update.h"
#include "tensor/cpu/install.h"

using namespace tessera;
using tour::claim;
using tour::heading;

namespace {

constexpr int kSide = 64, kImages = 128, kEpochs = 8;
constexpr int64_t kBatch = 8;

// Drawn objects, and for every second pixel whether it is one.
class Silhouettes final : public Dataset {
 public:
  int64_t size() const override { return kImages; }
  Sample get(int64_t index, int /*epoch*/) const override {
    ShapesSample drawn = draw_shapes({.size = kSide}, index);
    std::vector<uint8_t> plane(kSide * kSide);
    for (ShapesObject& object : drawn.objects) {
      for (Point& p : object.polygon) p = {p.x * kSide, p.y * kSide};
      fill_polygon(std::span<const Point>(object.polygon), plane.data(), kSide, kSide);
    }
    Sample s;
    s.index = index;
    s.height = s.width = kSide;
    s.pixels = std::move(drawn.image.pixels);
    s.mask_height = s.mask_width = kSide / 2;
    for (int y = 0; y < kSide; y += 2) {
      for (int x = 0; x < kSide; x += 2) s.masks.push_back(plane[size_t(y * kSide + x)]);
    }
    return s;
  }
};

// Down twice, a wider view by pooling, up once and joined with what was there before: (N, H, W, 3) to logits (N, H/2, W/2, 1).
class Net final : public UnaryModule {
 public:
  Net() {
    child("stem", stem);
    child("down", down);
    child("body", body);
    child("join", join);
    child("head", head);
    // The original's 0.03 would still remember the first statistics after 128 steps.
    for (ConvBnAct* block : {&stem, &down, &body, &join}) block->bn.momentum = 0.1;
  }
  Variable forward(const Variable& x, const Tensor& into = {}) override {
    const Variable fine = stem.forward(x);
    const Variable coarse = body.forward(ag::max_pool2d(down.forward(fine), {.kernel = 5, .stride = 1, .pad = 2}));
    const Variable parts[] = {fine, ag::upsample2x(coarse)};
    return head.forward(join.forward(ag::concat_channels(parts)), into);
  }
  std::string kind() const override { return "Net"; }

  ConvBnAct stem{3, 16, 3, 2}, down{16, 32, 3, 2}, body{32, 32, 3}, join{48, 16, 3};
  Conv2d head{16, 1, 1};
};

// What a training consists of.
struct Training {
  Silhouettes silhouettes;
  Loader loader{silhouettes, {.batch = kBatch, .threads = 1}};
  Net net;
  std::unique_ptr<ParameterArena> arena;
  std::unique_ptr<Sgd> optimizer;
  std::unique_ptr<Ema> ema;
  std::unique_ptr<WeightUpdate> update;
  Schedule schedule{{.lr0 = 0.1,
                     .epochs = kEpochs,
                     .batches_per_epoch = kImages / kBatch,
                     .batch = kBatch,
                     .nbs = kBatch,
                     .momentum = 0.9,
                     .warmup_epochs = 0}};

  Training() {
    init_parameters(net, /*seed=*/0);
    arena = std::make_unique<ParameterArena>(net);  // from here on parameters stay where they are
    optimizer = std::make_unique<Sgd>(*arena, /*nesterov=*/true);
    ema = std::make_unique<Ema>(*arena, /*decay=*/0.9, /*tau=*/10);
    update = std::make_unique<WeightUpdate>(*arena, *optimizer, *ema, /*weight_decay=*/std::array{0.0, 5e-4, 0.0}, /*max_norm=*/10);
  }

  Variable loss_of(const Batch& batch) {
    const Variable logits = net.forward(Variable(ops::scale_u8(batch.images, 1 / 255.0, DType::kF32)));
    const int64_t pixels = batch.masks.numel();
    const Tensor wanted = batch.masks.to(DType::kF32).view({pixels, 1});
    return ag::scale(ag::bce_with_logits(ag::view(logits, {pixels, 1}), wanted), 1 / double(pixels));
  }

  // The mean loss of an epoch.
  double epoch(int e) {
    double sum = 0;
    Batch batch;
    loader.start_epoch(e);
    for (int64_t i = 0; loader.next(batch); ++i) {
      const ScheduleValues values = schedule.at(e, i);
      const Variable loss = loss_of(batch);
      loss.backward();
      update->set(values.lr, values.momentum);
      update->run();  // norm, clip, step, average, zeroed gradients
      sum += loss.data().item();
    }
    return sum / double(loader.batches());
  }

  void save(const std::filesystem::path& file, int e) {
    Checkpoint c;
    c.meta.epoch = e;
    c.model = net.state_dict();
    update->save(c.sections["update"]);  // first: it tells the others how many steps were made
    optimizer->save(c.sections["optimizer"]);
    ema->save(c.sections["ema"]);
    save_checkpoint(file, c);
  }

  // The epoch to go on with.
  int resume(const std::filesystem::path& file) {
    const Checkpoint c = load_checkpoint(file);
    load_strict(c.model, net.state_dict(), file.string());
    optimizer->restore(c.section("optimizer", file.string()));
    ema->restore(c.section("ema", file.string()));
    update->restore(c.section("update", file.string()));
    return int(c.meta.epoch) + 1;
  }
};

// An image's truth and, beside it, what the network says: every second row.
void show(const Tensor& truth, const Tensor& logits, int64_t image) {
  const int64_t side = kSide / 2;
  for (int64_t y = 0; y < side; y += 2) {
    const int64_t row = (image * side + y) * side;
    std::string line = "  ";
    for (int64_t x = 0; x < side; ++x) line += truth.data<int32_t>()[row + x] != 0 ? '#' : '.';
    line += "   ";
    for (int64_t x = 0; x < side; ++x) line += logits.data<float>()[row + x] > 0 ? '#' : '.';
    fmt::print("{}\n", line);
  }
}

}  // namespace

int main() {
  install_cpu_backends();
  const std::filesystem::path file = "05_train.safetensors";

  heading("Eight epochs");
  Training t;
  double at_first = 0, last = 0;
  for (int e = 0; e < kEpochs; ++e) {
    last = t.epoch(e);
    if (e == 0) at_first = last;
    fmt::print("  epoch {:2}  loss {:.4f}\n", e, last);
    if (e == kEpochs / 2 - 1) t.save(file, e);
  }
  claim(last < at_first / 2, "the loss has fallen below half of the first epoch's");

  heading("Resumed in the middle");
  Training again;
  for (int e = again.resume(file); e < kEpochs; ++e) again.epoch(e);
  std::filesystem::remove(file);
  claim(tour::largest_difference(again.arena->all_values(), t.arena->all_values()) == 0,
        "the same bits as without the interruption");

  heading("The averaged weights, on images that no training saw");
  t.ema->swap();
  t.net.train(false);
  const NoGrad guard;
  int64_t both = 0, either = 0;
  for (int64_t first = kImages; first < kImages + 3 * kBatch; first += kBatch) {
    std::vector<Sample> unseen;
    for (int64_t i = first; i < first + kBatch; ++i) unseen.push_back(t.silhouettes.get(i, 0));
    const Batch batch = collate(std::move(unseen));
    const Tensor logits = t.net.forward(Variable(ops::scale_u8(batch.images, 1 / 255.0, DType::kF32))).data();
    if (first == kImages) show(batch.masks, logits, 0);
    for (int64_t i = 0; i < logits.numel(); ++i) {
      const bool is = batch.masks.data<int32_t>()[i] != 0, said = logits.data<float>()[i] > 0;
      both += is && said, either += is || said;
    }
  }
  const double overlap = double(both) / double(either);
  claim(overlap > 0.45, fmt::format("intersection over union of 24 images: {:.2f}", overlap));
  return 0;
}
