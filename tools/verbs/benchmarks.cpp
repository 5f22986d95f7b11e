#include "tools/verbs/benchmarks.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>

#include "autograd/grad_mode.h"
#include "cuda/install.h"
#include "data/loader_bench.h"
#include "nn/layers/conv_bn_act.h"
#include "nn/optim/ema.h"
#include "nn/optim/optimizer.h"
#include "nn/rounded_weights.h"
#include "tensor/backend.h"
#include "tensor/base/memory.h"
#include "tensor/base/parallel.h"
#include "tensor/base/scope.h"
#include "tensor/capture.h"
#include "tensor/cpu/peak.h"
#include "tensor/ops/random.h"
#include "tools/verbs/op_benchmark.h"
#include "tools/verbs/roof.h"
#include "yolo/config_values.h"
#include "yolo/eval/eval_bench.h"
#include "yolo/io/weights.h"
#include "yolo/train/loss.h"
#include "yolo/train/step_profile.h"
#include "yolo/train/train_step.h"
#include "yolo/train/training_data.h"

namespace tessera {

namespace {

using Json = nlohmann::ordered_json;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Median seconds of `runs` calls after one that warms caches and allocator.
double time_median(int64_t runs, const std::function<void()>& f) {
  f();
  std::vector<double> times;
  for (int64_t i = 0; i < runs; ++i) {
    const double start = seconds();
    f();
    times.push_back(seconds() - start);
  }
  return median_of(times);
}

// A batch like COCO's: random pixels, seven objects an image of various sizes.
Batch random_batch(int64_t images, int64_t size, int64_t nc, uint64_t seed) {
  Batch b;
  const Tensor noise = Tensor::empty({images, size, size, 3});
  ops::uniform(noise, {seed, RngPurpose::kTest, 1}, 0.0, 256.0);
  b.images = noise.to(DType::kU8);
  const int64_t m = size / 4;
  b.masks = Tensor::zeros({images, m, m}, DType::kI32);
  Rng rng(seed, RngPurpose::kTest, 2);
  for (int64_t i = 0; i < images; ++i) {
    for (int32_t k = 0; k < 7; ++k) {
      const double w = rng.uniform(0.05, 0.5), h = rng.uniform(0.05, 0.5);
      const double cx = rng.uniform(w / 2, 1 - w / 2), cy = rng.uniform(h / 2, 1 - h / 2);
      b.targets.push_back({int32_t(rng.below(nc)), {float(cx), float(cy), float(w), float(h)}});
      b.target_image.push_back(int32_t(i));
      int32_t* mask = b.masks.data<int32_t>() + i * m * m;
      for (int64_t y = int64_t((cy - h / 2) * double(m)); y < int64_t((cy + h / 2) * double(m)); ++y) {
        for (int64_t x = int64_t((cx - w / 2) * double(m)); x < int64_t((cx + w / 2) * double(m)); ++x) mask[y * m + x] = k + 1;
      }
    }
  }
  return b;
}

Json header(const Config& c, const std::string& model) {
  return {{"command", "bench"}, {"what", c.text("what")}, {"model", model}, {"imgsz", c.integer("imgsz")}, {"batch", c.integer("batch")},
          {"precision", c.text("precision")}, {"device", to_string(device_of(c))}, {"backend", backend_for(device_of(c)).name()}, {"threads", compute_threads()}};
}

double forward_flops(const YoloSeg& model, int64_t size) {
  double flops = 0;
  for (const LayerSummary& l : model.layer_table(size, size)) flops += l.flops;
  return flops;
}

void add_rates(Json& j, double step_seconds, int64_t batch, double flops_an_image, double peak, int64_t runs) {
  const double rate = double(batch) / step_seconds;
  j["images_per_s"] = rate;
  j["ms"] = step_seconds * 1e3;
  j["gflops"] = flops_an_image * rate / 1e9;
  j["peak_gflops"] = peak;
  // Arithmetic alone: multiply-adds of the convolutions at the peak measured in this run.
  j["bound_images_per_s"] = peak * 1e9 / flops_an_image;
  j["of_bound"] = rate / (peak * 1e9 / flops_an_image);
  j["peak_rss_mib"] = peak_resident_bytes() >> 20;
  j["runs"] = runs;
}

void add_vendor_use(Json& j) {
  const VendorUse use = vendor_use();
  if (use.planned > 0) j["plans"] = {{"shapes", use.planned}, {"refused", use.refused}, {"seconds", use.seconds}};
}

// --profile: more runs of the same work, after the ones that were timed as a whole.
void add_profile(Json& j, const Config& c, Device device, double peak, const std::function<void(StepProfile&)>& name,
                 const std::function<void()>& step) {
  if (c.integer("profile") == 0) return;
  StepProfile profile(device, c.integer("profile"), {peak, measured_copy_gbytes(device)});
  name(profile);
  do step();
  while (!profile.step_done());
  const Profile result = profile.result();
  j["profile"] = profile_json(result);
  j["profile_text"] = format_profile(result);
}

Json bench_step(const Config& c) {
  LoadedModel loaded = load_model(c.text("model"));
  YoloSeg& model = *loaded.model;
  model.to(device_of(c));
  model.set_compute_type(compute_type_of(c));
  model.set_recompute(recompute_of(c, model.device()));
  const int64_t size = c.integer("imgsz"), batch = c.integer("batch"), runs = c.integer("runs");
  const ParameterArena arena(model);
  Sgd optimizer(arena, true);
  Ema ema(arena);
  WeightUpdate updater(arena, optimizer, ema, {}, 10, {.on = compute_type_of(c) == DType::kF16});
  DataParallel ranks(arena, single_process());
  ScheduleValues values;
  values.lr.fill(1e-5);
  updater.set(values.lr, values.momentum);
  const SegmentationLoss criterion({}, model.strides());
  const Batch data = random_batch(batch, size, model.nc(), uint64_t(c.integer("seed")));
  Json j = header(c, model.spec().name);
  double forward = 0, loss_time = 0, backward = 0, update = 0;
  const auto wait = [&] { backend_for(model.device()).synchronize(); };
  const bool host = model.device() == Device::cpu();
  const Tensor images = data.images.to(model.device());  // a training's are there before its step begins
  const auto step = [&] {
    const double t0 = seconds();
    const RoundedWeights rounded(arena, compute_type_of(c));
    RawOutputs outputs = model.forward(Variable(images));
    wait();
    const double t1 = seconds();
    LossResult loss = criterion(outputs, data);
    outputs = {};
    wait();
    const double t2 = seconds();
    ranks.backward(loss.total, updater.loss_seed());
    wait();
    const double t3 = seconds();
    const ScopeGuard scope(&updater);
    updater.run();
    wait();
    const double t4 = seconds();
    forward = t1 - t0, loss_time = t2 - t1, backward = t3 - t2, update = t4 - t3;
  };
  const double peak = measured_gflops(model.device(), compute_type_of(c));
  double median = time_median(host ? runs : 1, step);
  if (!host) {
    // Whole steps as a training makes them, call by call and replayed: the batch of the next step goes over while the device works.
    for (const bool graph : {false, true}) {
      StepReplay::MakeRecorder make;
      if (graph) make = [&] { return backend_for(model.device()).recorder(); };
      TrainStep whole(model, criterion, ranks, updater,
                      {std::move(make), [&](const std::string& line) { j["graph_refused"] = line; }});
      const auto train = [&] {
        whole.start(data, values, true);
        whole.prefetch(data);
        whole.finish();
      };
      for (int i = 0; i <= StepReplay::kWarmUp; ++i) train();
      median = time_median(runs, train);
      j[graph ? "graph_ms" : "calls_ms"] = 1e3 * median;
      if (graph) j["device_ms"] = 1e3 * device_seconds(model.device(), runs, [&] { whole.repeat(); });
    }
    add_vendor_use(j);
  }
  add_rates(j, median, batch, 3 * forward_flops(model, size), peak, runs);
  j["last_ms"] = {{"forward", forward * 1e3}, {"loss", loss_time * 1e3}, {"backward", backward * 1e3}, {"update", update * 1e3}};
  const auto name = [&](StepProfile& profile) {
    profile.name(nullptr, "input", "");
    profile.name(model);
    profile.name(&criterion, "loss", "loss");
    profile.name(&updater, "optimizer", "optimizer");
  };
  add_profile(j, c, model.device(), peak, name, step);
  return j;
}

Json bench_infer(const Config& c) {
  LoadedModel loaded = load_model(c.text("model"));
  YoloSeg& model = *loaded.model;
  model.to(device_of(c));
  model.set_compute_type(compute_type_of(c));
  const int64_t size = c.integer("imgsz"), batch = c.is_explicit("batch") ? c.integer("batch") : 1, runs = std::max<int64_t>(c.integer("runs"), 10);
  model.train(false);
  model.fold_for_good();
  const NoGrad guard;
  const Variable images = normalize(random_batch(batch, size, model.nc(), 0).images.to(model.device()));
  Json j = header(c, model.spec().name);
  j["batch"] = batch;
  const double peak = measured_gflops(model.device(), compute_type_of(c));
  const auto run = [&] {
    model.forward(images);
    backend_for(model.device()).synchronize();
  };
  double median = time_median(runs, run);
  if (model.device() != Device::cpu()) {
    j["latency_ms"] = 1e3 * median;  // one batch, waited for
    median = device_seconds(model.device(), runs, [&] { model.forward(images); });
    // The device's own time: replays, so that no start of a kernel waits for the host.
    if (const auto recorder = backend_for(model.device()).recorder()) {
      try {
        const auto recording = recorder->record([&] { model.forward(images); });
        j["device_ms"] = 1e3 * device_seconds(model.device(), runs, [&] { recording->replay(); });
      } catch (const Error& e) {
        j["graph_refused"] = e.message();
      }
    }
    add_vendor_use(j);
  }
  add_rates(j, median, batch, forward_flops(model, size), peak, runs);
  add_profile(
      j, c, model.device(), peak, [&](StepProfile& profile) { profile.name(model); }, run);
  return j;
}

Json bench_op(const Config& c) {
  Json j = header(c, c.text("model"));
  const double copy = measured_copy_gbytes(device_of(c));
  j["copy_gbytes_per_s"] = copy;
  j["ops"] = op_benchmark(c, copy);
  if (device_of(c) != Device::cpu()) add_vendor_use(j);
  return j;
}

Json bench_loader(const Config& c, LogStyle log) {
  const auto set = open_split(c, "train", true, log);
  LoaderBenchOptions options;
  options.batch = c.integer("batch");
  options.threads = int(std::max<int64_t>(1, c.integer("workers")));
  const LoaderBench r = run_loader_bench(*set, options);
  Json j = header(c, "");
  j.erase("model");
  j["data"] = c.text("data");
  j["samples"] = r.samples;
  j["images_per_s"] = r.images_per_s;
  j["core_ms"] = r.core_ms;
  j["split_ms"] = {{"decode", r.decode_ms}, {"labels", r.labels_ms}, {"pixels", r.pixels_ms}, {"rasterize", r.rasterize_ms}};
  j["decodes"] = r.decodes;
  j["cache"] = c.text("cache");
  j["disk_reads"] = r.disk_reads;
  return j;
}

Json bench_eval(const Config& c) {
  EvalBenchOptions options;
  options.seed = uint64_t(c.integer("seed"));
  const EvalBenchResult r = run_eval_bench(options);
  const auto times = [](const EvalBenchTimes& t) {
    return Json{{"load_truth_s", t.load_truth}, {"load_results_s", t.load_results}, {"prepare_s", t.prepare}, {"evaluate_s", t.evaluate},
                {"total_s", t.total()}, {"map", t.summary.map()}};
  };
  return {{"command", "bench"}, {"what", "eval"}, {"threads", compute_threads()}, {"images", r.images}, {"objects", r.objects},
          {"detections", r.detections}, {"bytes", r.bytes}, {"box", times(r.box)}, {"mask", times(r.mask)},
          {"peak_rss_mib", peak_resident_bytes() >> 20}};
}

}  // namespace

Json run_benchmark(const Config& config, LogStyle log) {
  const std::string& what = config.text("what");
  if (what == "step") return bench_step(config);
  if (what == "infer") return bench_infer(config);
  if (what == "op") return bench_op(config);
  if (what == "loader") return bench_loader(config, log);
  return bench_eval(config);
}

std::string format_benchmark(const Json& result) {
  std::string text;
  for (const auto& [key, value] : result.items()) {
    if (key == "command" || key == "ops" || key == "profile" || key == "profile_text") continue;
    text += fmt::format("{:<20} {}\n", key, value.is_string() ? value.get<std::string>() : value.is_number_float() ? fmt::format("{:.4g}", value.get<double>()) : value.dump());
  }
  if (result.contains("profile_text")) text += fmt::format("\n{}", result["profile_text"].get<std::string>());
  if (!result.contains("ops")) return text;
  const auto cell = [](const Json& row, const char* key, double factor, const char* format) {
    return row.contains(key) ? fmt::format(fmt::runtime(format), row[key].get<double>() * factor) : std::string("-");
  };
  text += fmt::format("\n{:<20}{:<24}{:<17}{:>9}{:>9}{:>8}{:>8}{:>9}{:>10}{:>11}\n", "op", "shape", "direction", "ms", "GFLOP/s", "GB/s", "peak",
                      "of peak", "of bound", "max error");
  for (const auto& o : result["ops"]) {
    text += fmt::format("{:<20}{:<24}{:<17}{:>9}{:>9}{:>8}{:>8}{:>9}{:>10}{:>11}\n", o["op"].get<std::string>(), o["shape"].get<std::string>(),
                        o["direction"].get<std::string>(), cell(o, "ms", 1, "{:.3f}"), cell(o, "gflops", 1, "{:.1f}"),
                        cell(o, "gbytes_per_s", 1, "{:.1f}"), cell(o, "peak", 1, "{:.1f}"), cell(o, "of_peak", 100, "{:.0f}%"),
                        cell(o, "of_bound", 100, "{:.0f}%"), cell(o, "max_error", 1, "{:.1e}"));
  }
  return text;
}

}  // namespace tessera
