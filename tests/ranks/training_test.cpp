// Two ranks with half the batch each equal one rank with the whole. Every rank also trains alone, in the same process, as the
// truth.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <optional>

#include "autograd/engine.h"
#include "autograd/functions/norm.h"
#include "autograd/functions/pointwise.h"
#include "autograd/functions/reduce.h"
#include "data/shapes.h"
#include "nn/data_parallel.h"
#include "nn/layers/batch_norm2d.h"
#include "tensor/backend.h"
#include "tensor/base/file.h"
#include "tensor/base/rng.h"
#include "tensor/conv_choice.h"
#include "tests/support/temp_folder.h"
#include "yolo/eval/evaluator.h"
#include "yolo/io/weights.h"
#include "yolo/train/multi_scale.h"
#include "yolo/train/trainer.h"
#include "yolo/train/training_data.h"

using namespace tessera;
namespace fs = std::filesystem;

namespace {

// A folder of all ranks, with a tiny data set in it.
struct Workshop {
  std::optional<testing::TempFolder> folder;  // rank 0's
  std::string root, data;
  Workshop() {
    Communicator& w = world();
    if (w.leader()) {
      root = folder.emplace().path().string();
      ShapesOptions options;
      options.train = 16;
      options.val = 5;
      options.size = 64;
      data = make_shapes(fs::path(root) / "shapes", options).string();
    }
    w.broadcast(root, 0, "the folder");
    w.broadcast(data, 0, "the data");
  }
  ~Workshop() { world().barrier("before the folder goes"); }
  Config config(const std::string& name, std::vector<std::string> more = {}) const {
    Config c(kTrain);
    std::vector<std::string> arguments = {"data=" + data, "imgsz=64",    "batch=4",   "epochs=3", "project=" + root + "/runs",
                                          "name=" + name, "plots=false", "workers=0", "nbs=4",    "close_mosaic=1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    c.read_arguments(arguments);
    return c;
  }
  std::string alone() const { return fmt::format("alone{}", world().rank()); }
};

// max |a - b| over all groups, and the largest |b|.
struct Difference {
  double worst = 0, largest = 0, squares = 0, norm = 0;
  void add(const Tensor& a, const Tensor& b) {
    REQUIRE(a.numel() == b.numel());
    for (int64_t i = 0; i < a.numel(); ++i) {
      const double x = double(a.data<float>()[i]), y = double(b.data<float>()[i]);
      worst = std::max(worst, std::abs(x - y));
      largest = std::max(largest, std::abs(y));
      squares += (x - y) * (x - y), norm += y * y;
    }
  }
  double relative() const { return std::sqrt(squares / norm); }
};

Difference gradients(const ParameterArena& a, const ParameterArena& b) {
  Difference d;
  for (int g = 0; g < kTrainedGroups; ++g) d.add(a.grads(ParamGroup(g)), b.grads(ParamGroup(g)));
  return d;
}

Difference values(const ParameterArena& a, const ParameterArena& b) {
  Difference d;
  for (int g = 0; g < kAllGroups; ++g) d.add(a.values(ParamGroup(g)), b.values(ParamGroup(g)));
  return d;
}

Tensor random_rows(const Shape& shape, uint64_t seed) {
  Tensor t = Tensor::empty(shape);
  Rng rng(seed, RngPurpose::kTest);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = float(rng.uniform()) * 4 - 1;
  return t;
}

Batch one_batch(const SegDataset& set, int64_t batch, int rank, int world, int64_t skip = 0) {
  LoaderOptions options;
  options.batch = batch;
  options.threads = 0;
  options.shuffle = true;
  options.rank = rank;
  options.world = world;
  Loader loader(set, options);
  loader.start_epoch(0, skip);
  Batch b;
  REQUIRE(loader.next(b));
  return b;
}

// The same images in the opposite order.
Batch reversed(const Batch& b) {
  const int64_t n = b.size();
  Batch r = b;
  r.images = Tensor::empty(b.images.shape(), b.images.dtype());
  r.masks = Tensor::empty(b.masks.shape(), b.masks.dtype());
  r.targets.clear(), r.target_image.clear();
  for (int64_t i = 0; i < n; ++i) {
    r.images.narrow(0, i, 1).copy_from(b.images.narrow(0, n - 1 - i, 1));
    r.masks.narrow(0, i, 1).copy_from(b.masks.narrow(0, n - 1 - i, 1));
    for (size_t t = 0; t < b.targets.size(); ++t) {
      if (b.target_image[t] == n - 1 - i) r.targets.push_back(b.targets[t]), r.target_image.push_back(int32_t(i));
    }
  }
  return r;
}

// Half a batch may be too small for Winograd's form where the whole takes it, and its rounding is larger: without it, what is compared
// is what the ranks do.
struct DirectConvolutions {
  std::string before{name_of(conv_choice())};
  DirectConvolutions() { set_conv_choice("direct"); }
  ~DirectConvolutions() { set_conv_choice(before); }
};

// The gradient of one step by all ranks against that of one with the whole batch. in_double: with all sums in double, so that what
// is left is what the ranks tell each other.
void compare_gradients(bool batch_statistics, bool no_targets_on_last_rank, bool in_double = false) {
  std::optional<BackendGuard> guard;
  if (in_double) guard.emplace(*find_backend("ref"));
  Communicator& w = world();
  const DirectConvolutions direct;
  const Workshop shop;
  const Config config = shop.config("x", {"imgsz=96"});
  const auto set = open_split(config, "train", true, LogStyle::kQuiet);
  YoloSeg whole(parse_model_yaml("yolov8n-seg", "", 5)), part(parse_model_yaml("yolov8n-seg", "", 5));
  whole.init(3);
  part.init(3);
  whole.train(batch_statistics);
  part.train(batch_statistics);
  if (batch_statistics) synchronize_batch_norm(part, w);
  const ParameterArena whole_arena(whole), part_arena(part);
  const int64_t size = 2 * w.size();
  Batch all = one_batch(*set, size, 0, 1), own = one_batch(*set, 2, w.rank(), w.size());
  if (no_targets_on_last_rank) {
    const auto strip = [](Batch& b, const std::function<bool(int64_t)>& empty) {
      Batch kept = b;
      kept.targets.clear(), kept.target_image.clear();
      for (size_t t = 0; t < b.targets.size(); ++t) {
        if (!empty(b.target_image[t])) kept.targets.push_back(b.targets[t]), kept.target_image.push_back(b.target_image[t]);
      }
      b = kept;
    };
    strip(all, [&](int64_t i) { return i % w.size() == w.size() - 1; });
    if (w.rank() == w.size() - 1) strip(own, [](int64_t) { return true; });
    REQUIRE(!all.targets.empty());
  }
  const LossResult truth = SegmentationLoss()(whole.forward(normalize(all.images)), all);
  truth.total.backward();
  {  // What rounding alone does: one rank, the sums in another order.
    YoloSeg other(parse_model_yaml("yolov8n-seg", "", 5));
    other.init(3);
    other.train(batch_statistics);
    const ParameterArena other_arena(other);
    const Batch turned = reversed(all);
    SegmentationLoss()(other.forward(normalize(turned.images)), turned).total.backward();
    const Difference rounding = gradients(other_arena, whole_arena);
    MESSAGE("one rank, images in another order: largest difference " << rounding.worst << ", relative " << rounding.relative());
    CHECK(rounding.relative() <= 1e-5);
  }

  const SegmentationLoss loss({}, part.strides(), &w);
  DataParallel parallel(part_arena, w, 1 << 18);
  CHECK(parallel.buckets() > 10);
  std::vector<float> first;
  for (int pass = 0; pass < 3; ++pass) {  // the first learns the order, the others overlap
    part_arena.zero_grad();
    const LossResult own_loss = loss(part.forward(normalize(own.images)), own);
    parallel.backward(own_loss.total);
    const Difference d = gradients(part_arena, whole_arena);
    MESSAGE("gradient: largest difference " << d.worst << " of " << d.largest << ", relative " << d.relative());
    CHECK(d.relative() <= 1e-5);
    CHECK(d.worst <= 1e-5 * d.largest);
    const std::vector<float> bits = part_arena.grads(ParamGroup::kWeight).to_vector<float>();
    if (pass == 0) first = bits;
    CHECK(first == bits);
    const std::vector<LossReport> reports = w.all_gather(own_loss.report(), "reports");
    const LossReport report = joined(reports), expected = truth.report();
    CHECK(report.positives == expected.positives);
    CHECK(report.target_score_sum == doctest::Approx(expected.target_score_sum).epsilon(1e-5));
    CHECK(report.items.box == doctest::Approx(expected.items.box).epsilon(1e-5));
    CHECK(report.items.seg == doctest::Approx(expected.items.seg).epsilon(1e-5));
    CHECK(report.items.cls == doctest::Approx(expected.items.cls).epsilon(1e-5));
    CHECK(report.items.dfl == doctest::Approx(expected.items.dfl).epsilon(1e-5));
  }
  CHECK(parallel.in_step() == true);
  if (w.rank() == 1) part_arena.values(ParamGroup::kNorm).data<float>()[3] += 1e-7f;
  CHECK(parallel.in_step() == false);
  parallel.broadcast_values();
  CHECK(parallel.in_step() == true);
}

}  // namespace

TEST_CASE("ranks: batch norm over all ranks is that of all rows together, with ranks of different length") {
  Communicator& w = world();
  for (const Activation act : {Activation::kNone, Activation::kSilu}) {
    const int64_t channels = 13;
    std::vector<int64_t> rows, starts = {0};
    for (int r = 0; r < w.size(); ++r) rows.push_back(20 + 30 * r), starts.push_back(starts.back() + rows.back());
    const Tensor all = random_rows({1, 1, starts.back(), channels}, 1), upstream = random_rows({1, 1, starts.back(), channels}, 2);
    const Tensor residual = random_rows({1, 1, starts.back(), channels}, 3);
    const auto own = [&](const Tensor& t) { return t.narrow(2, starts[size_t(w.rank())], rows[size_t(w.rank())]).clone(); };
    struct Run {
      Tensor y, dx, dres, dgamma, dbeta, mean, var;
    };
    const auto run = [&](const Tensor& x, const Tensor& res, const Tensor& dy, Communicator* ranks) {
      const Variable vx(x, true), vres(res, true), gamma(random_rows({channels}, 4), true), beta(random_rows({channels}, 5), true);
      ag::BatchNormState state{Tensor::zeros({channels}), Tensor::full({channels}, 1.0)};
      state.ranks = ranks;
      const Variable y = ag::batch_norm_train(vx, gamma, beta, state, act, vres);
      y.backward(dy);
      return Run{y.data(), vx.grad(), vres.grad(), gamma.grad(), beta.grad(), state.running_mean, state.running_var};
    };
    const Run whole = run(all, residual, upstream, nullptr), part = run(own(all), own(residual), own(upstream), &w);
    w.all_reduce(part.dgamma, Reduce::kSum, "dgamma");
    w.all_reduce(part.dbeta, Reduce::kSum, "dbeta");
    const auto check = [](const Tensor& a, const Tensor& b) {
      Difference d;
      d.add(a, b);
      CHECK(d.worst <= 3e-6 * std::max(1.0, d.largest));
    };
    check(part.y, own(whole.y));
    check(part.dx, own(whole.dx));
    check(part.dres, own(whole.dres));
    check(part.dgamma, whole.dgamma);
    check(part.dbeta, whole.dbeta);
    check(part.mean, whole.mean);
    check(part.var, whole.var);
    // It is not what each rank would get from its own rows.
    const Run lonely = run(own(all), own(residual), own(upstream), nullptr);
    Difference d;
    d.add(lonely.y, own(whole.y));
    CHECK(d.worst > 1e-3);
  }
}

TEST_CASE("ranks: the gradient of a step is that of the whole batch, batch norm synchronised") { compare_gradients(true, false); }
TEST_CASE("ranks: the gradient of a step is that of the whole batch, batch norm with fixed statistics") {
  compare_gradients(false, false);
}
TEST_CASE("ranks: the gradient of a step is that of the whole batch, batch norm synchronised, sums in double") {
  compare_gradients(true, false, true);
}
TEST_CASE("ranks: a rank without a single object does its part") { compare_gradients(true, true); }

TEST_CASE("ranks: twelve steps of the trainer equal twelve of one rank with the whole batch") {
  Communicator& w = world();
  const Workshop shop;
  const std::vector<std::string> more = {"batch=4",    "epochs=3",     "optimizer=SGD", "val=false",
                                         "save=false", "sync_bn=true", "imgsz=96"};
  Trainer whole(shop.config(shop.alone(), more), LogStyle::kQuiet), part(shop.config("parts", more), LogStyle::kQuiet, {}, w);
  CHECK(part.train_loader().batches() == 4);
  Batch all, own;
  whole.train_loader().start_epoch(1), part.train_loader().start_epoch(1);
  while (whole.train_loader().next(all)) {
    REQUIRE(part.train_loader().next(own));
    for (int64_t k = 0; k < own.size(); ++k) CHECK(own.indices[size_t(k)] == all.indices[size_t(k * w.size() + w.rank())]);
  }
  const std::vector<float> before = part.arena().values(ParamGroup::kWeight).to_vector<float>();
  const ValidationResult a = whole.fit().validation, b = part.fit().validation;
  const Difference d = values(part.arena(), whole.arena());
  MESSAGE("largest difference of a weight " << d.worst << ", of all relative " << d.relative());
  CHECK(d.worst <= 1e-5);
  CHECK(b.loss.box == doctest::Approx(a.loss.box).epsilon(1e-4));
  CHECK(b.loss.seg == doctest::Approx(a.loss.seg).epsilon(1e-4));
  CHECK(b.loss.cls == doctest::Approx(a.loss.cls).epsilon(1e-4));
  CHECK(b.loss.dfl == doctest::Approx(a.loss.dfl).epsilon(1e-4));
  double moved = 0;
  const std::vector<float> after = part.arena().values(ParamGroup::kWeight).to_vector<float>();
  for (size_t i = 0; i < after.size(); ++i) moved = std::max(moved, std::abs(double(after[i]) - double(before[i])));
  CHECK(moved > 1e-4);  // there was something to compare
}

TEST_CASE("ranks: batches of several sizes have one size on all ranks; rectangular ones are for one rank") {
  const Workshop shop;
  const std::string batch = fmt::format("batch={}", 2 * world().size());
  Trainer part(shop.config("parts", {batch, "epochs=2", "val=false", "save=false", "multi_scale=true", "rect=true"}), LogStyle::kQuiet, {},
               world());
  CHECK(!part.config().flag("rect"));
  int64_t batches = 0;
  part.on_batch = [&](int64_t epoch, int64_t index, Batch& given) {
    const int side = int(multi_scale_side(64, 0, epoch, index));
    CHECK(given.resized == Size{side, side});
    ++batches;
  };
  part.fit();
  CHECK(batches == 2 * part.train_loader().batches());
  const auto weights = part.arena().values(ParamGroup::kWeight).to_vector<float>();
  for (const float sum : world().all_gather(std::accumulate(weights.begin(), weights.end(), 0.0f), "a sum of weights")) {
    CHECK(sum == std::accumulate(weights.begin(), weights.end(), 0.0f));
  }
}

TEST_CASE("ranks: a training with validation ends with equal weights everywhere and the metrics of one rank") {
  Communicator& w = world();
  const Workshop shop;
  for (const char* style : {"coco", "original"}) {
    const std::vector<std::string> more = {fmt::format("batch={}", 2 * w.size()), "epochs=2", std::string("map_style=") + style,
                                           "plots=true"};
    Trainer trainer(shop.config("run", more), LogStyle::kQuiet, {}, w);
    const TrainSummary s = trainer.fit();
    CHECK(s.epochs_done == 2);
    CHECK(DataParallel(trainer.arena(), w).in_step());
    // The best weights once more, in one process: every figure of it to the last bit, on all ranks.
    const fs::path folder = fs::path(shop.root) / "runs" / "run";
    LoadedModel best = load_model((folder / "weights" / "best.safetensors").string());
    const auto set = open_split(trainer.config(), "val", false, LogStyle::kQuiet);
    LoaderOptions options;
    options.batch = 4 * w.size();
    Loader loader(*set, options);
    EvaluatorOptions how;
    how.style = std::string(style) == "coco" ? MapStyle::kCoco : MapStyle::kOriginal;
    EvaluatorHooks hooks;
    std::string images;
    hooks.images = [&](const ImageScores& scores) {
      images = to_csv(scores, [&](int64_t index) { return set->image(index).file; });
      return std::vector<int64_t>();
    };
    const ValidationResult alone = Evaluator(set->names(), how).run(*best.model, *set, loader, hooks);
    CHECK(alone.images == 5);
    CHECK(s.validation.images == 5);
    CHECK(s.validation.instances == alone.instances);
    CHECK(s.validation.map_style == alone.map_style);
    for (const auto& [a, b] : {std::pair{s.validation.box, alone.box}, std::pair{s.validation.mask, alone.mask}}) {
      CHECK(std::memcmp(&a, &b, sizeof a) == 0);
    }
    if (w.leader()) {
      REQUIRE(s.validation.classes.size() == alone.classes.size());
      for (size_t c = 0; c < alone.classes.size(); ++c) {
        CHECK(s.validation.classes[c].mask.map == alone.classes[c].mask.map);
        CHECK(s.validation.classes[c].instances == alone.classes[c].instances);
      }
      for (const char* file : {"results.csv", "log.jsonl", "confusion_matrix.png", "MaskPR_curve.png", "val_batch0_pred.png"}) {
        CAPTURE(file);
        CHECK(fs::exists(folder / file));
      }
      CHECK(read_file(folder / "images.csv") == images);
      CHECK(std::count(images.begin(), images.end(), '\n') == 6);
      CHECK(!fs::exists(fs::path(shop.root) / "runs" / "run2"));
    }
    w.barrier("before the run goes");
    if (w.leader()) fs::remove_all(folder);
    w.barrier("after the run has gone");
  }
}

TEST_CASE("ranks: a validation that one of them is to stop ends on all") {
  Communicator& w = world();
  const Workshop shop;
  const auto set = open_split(shop.config("x"), "val", false, LogStyle::kQuiet);
  YoloSeg model(parse_model_yaml("yolov8n-seg", "", 5));
  model.init(3);
  LoaderOptions options;
  options.batch = 8;
  options.rank = w.rank();
  options.world = w.size();
  options.fill = false;
  Loader loader(*set, options);
  EvaluatorHooks hooks;
  hooks.stop = [&] { return w.rank() == w.size() - 1; };
  CHECK_THROWS_WITH_AS(Evaluator(set->names(), {}).run(model, *set, loader, hooks, w),
                       doctest::Contains("validation was interrupted"), Error);
}
