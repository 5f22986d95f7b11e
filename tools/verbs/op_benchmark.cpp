#include "tools/verbs/op_benchmark.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "nn/layers/conv_bn_act.h"
#include "nn/layers/conv_transpose2d.h"
#include "tensor/base/parallel.h"
#include "tensor/base/rng.h"
#include "tensor/cpu/peak.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/random.h"
#include "tools/verbs/roof.h"
#include "yolo/config_values.h"
#include "yolo/io/weights.h"

namespace tessera {

namespace {

using Json = nlohmann::ordered_json;

struct ConvCase {
  Shape x, w;
  ConvParams p;
  bool transposed = false;

  Shape y() const { return transposed ? Shape{x[0], 2 * x[1], 2 * x[2], w[0]} : ops::conv2d_shape(x, w, p); }
  double flops() const {  // every pixel of the smaller map meets the whole filter
    const Shape small = transposed ? x : y();
    return 2.0 * double(small[0] * small[1] * small[2]) * double(numel(w));
  }
  std::string name() const { return fmt::format("{}>{} {}x{}/{} @{}", w[3], w[0], w[1], w[2], p.stride, x[1]); }
};

struct Cases {
  std::vector<ConvCase> convs;
  std::vector<Shape> norms;  // of what is normalised
};

std::string norm_name(const Shape& shape) { return fmt::format("{} @{}", shape[3], shape[1]); }

Cases cases_of(const std::vector<std::string>& models, int64_t size, int64_t batch) {
  Cases cases;
  std::map<std::tuple<bool, int64_t, int64_t, int64_t, int64_t, int64_t>, bool> seen;
  std::map<std::pair<int64_t, int64_t>, bool> seen_norms;
  for (const std::string& name : models) {
    const LoadedModel loaded = load_model(name);
    YoloSeg& model = *loaded.model;
    // The layer table gives the map size of each layer's output; inside the head it follows from level and branch.
    const auto table = model.layer_table(size, size);
    const auto map_size = [&](const std::string& path) {
      const size_t layer = std::stoull(path.substr(path.find('.') + 1));
      if (table[layer].module != "Segment") return table[layer].outputs.front()[0];
      const bool prototypes = path.find("proto") != std::string::npos;
      const size_t branch = path.find(".cv");
      const int64_t level = prototypes ? 0 : std::stoll(path.substr(branch + 5, 1));
      const int64_t map = size / model.strides()[size_t(level)];
      return prototypes && path.find("cv1") == std::string::npos ? 2 * map : map;
    };
    const auto add = [&](const ConvCase& k) {
      const auto key = std::tuple{k.transposed, k.w[3], k.w[0], k.w[1], k.p.stride, k.x[1]};
      if (seen.emplace(key, true).second) cases.convs.push_back(k);
    };
    model.for_each_module([&](const std::string& path, Module& m) {
      if (path.find("dfl") != std::string::npos) return;
      if (const auto* conv = dynamic_cast<Conv2d*>(&m)) {
        const int64_t in = map_size(path) * conv->params.stride;
        add({{batch, in, in, conv->weight.shape()[3]}, conv->weight.shape(), conv->params});
      } else if (const auto* up = dynamic_cast<ConvTranspose2d*>(&m)) {
        const int64_t in = map_size(path) / 2;
        add({{batch, in, in, up->weight.shape()[3]}, up->weight.shape(), {2, 0}, true});
      } else if (const auto* norm = dynamic_cast<BatchNorm2d*>(&m)) {
        const int64_t map = map_size(path), channels = norm->weight.shape()[0];
        if (seen_norms.emplace(std::pair{map, channels}, true).second) cases.norms.push_back({batch, map, map, channels});
      }
    });
  }
  return cases;
}

Tensor random_values(const Shape& shape, double most, DType type, Device device, uint32_t stream) {
  const Tensor values = Tensor::empty(shape, DType::kF32, device);
  ops::uniform(values, {1, RngPurpose::kTest, stream}, -most, most);
  return values.to(type);
}

enum class Direction { kForward, kBackwardData, kBackwardWeight };

// Single results of a convolution by its formula in f64 (tensor/ops/conv.h).
class ExactConv {
 public:
  ExactConv(const ConvCase& k, const Tensor& x, const Tensor& w, const Tensor& y)
      : k_(k), y_shape_(k.y()), x_(on_host(x)), w_(on_host(w)), y_(on_host(y)) {}

  // The largest difference of a sample of `result`, which is y, dx or dw, from its sums, over the largest of these.
  double largest_error(Direction d, const Tensor& result) const {
    const Tensor all = on_host(result);
    constexpr int64_t kSample = 48;
    std::array<double, kSample> exact, error;
    parallel_chunks(kSample, [&](int64_t s) {
      const int64_t at = Rng(1, RngPurpose::kTest, uint64_t(s)).below(all.numel());
      const double sum = d == Direction::kBackwardWeight ? weight(at) : pixel(at, d == Direction::kForward);
      exact[size_t(s)] = std::abs(sum);
      const double difference = std::abs(sum - double(all.data<float>()[at]));
      error[size_t(s)] =
          std::isfinite(difference) ? difference : std::numeric_limits<double>::max();  // NaN is greater than nothing
    });
    return *std::max_element(error.begin(), error.end()) / *std::max_element(exact.begin(), exact.end());
  }

 private:
  static Tensor on_host(const Tensor& t) { return t.to(Device::cpu()).to(DType::kF32); }

  // An element of y from x, or of dx from dy. A tap joins each pixel of the smaller map to one of the larger, the input but for a
  // transposed convolution.
  double pixel(int64_t at, bool of_y) const {
    const Shape& mine = of_y ? y_shape_ : k_.x;
    const Shape& other = of_y ? k_.x : y_shape_;
    const float* values = (of_y ? x_ : y_).data<float>();
    const int64_t channel = at % mine[3], column = at / mine[3] % mine[2], row = at / mine[3] / mine[2] % mine[1];
    const int64_t image = at / mine[3] / mine[2] / mine[1];
    const bool from_small = of_y != k_.transposed;
    const auto joined = [&](int64_t position, int64_t tap) {  // -1: none
      if (from_small) return position * k_.p.stride + tap - k_.p.pad;
      const int64_t d = position + k_.p.pad - tap;
      return d % k_.p.stride == 0 ? d / k_.p.stride : -1;
    };
    double sum = 0;
    for (int64_t ky = 0; ky < k_.w[1]; ++ky) {
      for (int64_t kx = 0; kx < k_.w[2]; ++kx) {
        const int64_t r = joined(row, ky), c = joined(column, kx);
        if (r < 0 || r >= other[1] || c < 0 || c >= other[2]) continue;
        const float* pixel = values + ((image * other[1] + r) * other[2] + c) * other[3];
        for (int64_t i = 0; i < other[3]; ++i) {
          sum += double(pixel[i]) * double(of_y ? weight_at(channel, ky, kx, i) : weight_at(i, ky, kx, channel));
        }
      }
    }
    return sum;
  }

  double weight(int64_t at) const {
    const int64_t i = at % k_.w[3], kx = at / k_.w[3] % k_.w[2], ky = at / k_.w[3] / k_.w[2] % k_.w[1],
                  o = at / k_.w[3] / k_.w[2] / k_.w[1];
    const Shape& small = k_.transposed ? k_.x : y_shape_;
    const Shape& large = k_.transposed ? y_shape_ : k_.x;
    const float* of_small = (k_.transposed ? x_ : y_).data<float>() + (k_.transposed ? i : o);
    const float* of_large = (k_.transposed ? y_ : x_).data<float>() + (k_.transposed ? o : i);
    double sum = 0;
    for (int64_t n = 0; n < small[0]; ++n) {
      for (int64_t r = 0; r < small[1]; ++r) {
        const int64_t row = r * k_.p.stride + ky - k_.p.pad;
        if (row < 0 || row >= large[1]) continue;
        for (int64_t c = 0; c < small[2]; ++c) {
          const int64_t column = c * k_.p.stride + kx - k_.p.pad;
          if (column < 0 || column >= large[2]) continue;
          sum += double(of_small[((n * small[1] + r) * small[2] + c) * small[3]]) *
                 double(of_large[((n * large[1] + row) * large[2] + column) * large[3]]);
        }
      }
    }
    return sum;
  }
  float weight_at(int64_t o, int64_t ky, int64_t kx, int64_t i) const {
    return w_.data<float>()[((o * k_.w[1] + ky) * k_.w[2] + kx) * k_.w[3] + i];
  }

  const ConvCase& k_;
  Shape y_shape_;
  Tensor x_, w_, y_;
};

class Bench {
 public:
  Bench(const Config& c, double copy_gbytes_per_s)
      : device_(device_of(c)), type_(compute_type_of(c)), runs_(c.integer("runs")), copy_(copy_gbytes_per_s) {
    if (device_ != Device::cpu()) peak_ = measured_gflops(device_, type_);
  }

  void conv(const ConvCase& k) {
    uint32_t stream = 0;
    const auto random = [&](const Shape& shape, double most) { return random_values(shape, most, type_, device_, ++stream); };
    const Tensor w = random(k.w, 0.1), dw = Tensor::zeros(k.w, wide_of(type_), device_);
    const Shape y_shape = k.y();
    const double images_bytes = double(size_of(type_)) * double(numel(k.x) + numel(y_shape));
    const double bytes = images_bytes + double(size_of(type_)) * double(w.numel());
    // In turn, so that on a device nothing is in a cache from the call before.
    constexpr double kBeyondCaches = 200e6;
    const size_t turns = device_ == Device::cpu() ? 1 : size_t(std::clamp(kBeyondCaches / images_bytes, 1.0, 32.0));
    std::vector<Tensor> xs, ys;
    for (size_t i = 0; i < turns; ++i) xs.push_back(random(k.x, 1)), ys.push_back(random(y_shape, 1));
    size_t turn = 0;
    const Tensor no_bias = Tensor::zeros({k.w[0]}, wide_of(type_), device_);
    const std::tuple<Direction, const char*, std::function<Tensor(const Tensor&, const Tensor&)>> directions[] = {
        {Direction::kForward, "forward",
         [&](const Tensor& x, const Tensor& y) {
           return k.transposed ? ops::conv_transpose2x2(x, w, no_bias) : ops::conv2d(x, w, k.p, {}, Activation::kNone, {}, y);
         }},
        {Direction::kBackwardData, "backward_data",
         [&](const Tensor& x, const Tensor& y) {
           return k.transposed ? ops::conv_transpose2x2_backward_data(y, w) : ops::conv2d_backward_data(y, w, k.x, k.p, x);
         }},
        {Direction::kBackwardWeight, "backward_weight",
         [&](const Tensor& x, const Tensor& y) {
           k.transposed ? ops::conv_transpose2x2_backward_weight(x, y, dw, false)
                        : ops::conv2d_backward_weight(x, y, dw, k.p, false);
           return dw;
         }},
    };
    Tensor x = xs[0], y = ys[0];
    for (const auto& [direction, name, run] : directions) {
      Json& row = add(k.transposed ? "conv_transpose2x2" : "conv2d", k.name(), name, k.flops(), bytes, [&] {
        turn = (turn + 1) % turns;
        run(xs[turn], ys[turn]);
      });
      const Tensor result = run(x, y);
      if (direction == Direction::kForward) y = result;
      if (direction == Direction::kBackwardData) x = result;
      row["max_error"] = ExactConv(k, x, w, y).largest_error(direction, result);
    }
  }

  void norm(const Shape& shape) {
    const int64_t channels = shape[3];
    const Tensor x = random_values(shape, 1, type_, device_, 1), dy = random_values(shape, 1, type_, device_, 2);
    const Tensor gamma = random_values({channels}, 1, wide_of(type_), device_, 3),
                 beta = random_values({channels}, 1, wide_of(type_), device_, 4);
    const Tensor dgamma = Tensor::zeros({channels}, wide_of(type_), device_),
                 dbeta = Tensor::zeros({channels}, wide_of(type_), device_);
    const Tensor y = Tensor::empty(shape, type_, device_);
    const std::string name = norm_name(shape);
    const double bytes = double(size_of(type_)) * double(numel(shape));
    constexpr double kEps = 1e-3;
    const auto [mean, rstd] = ops::batch_norm_stats(x, kEps);
    add("batch_norm", name, "statistics", 0, bytes, [&] { ops::batch_norm_stats(x, kEps); });
    add("batch_norm_silu", name, "forward", 0, 2 * bytes,
        [&] { ops::batch_norm_apply(x, mean, rstd, gamma, beta, Activation::kSilu, {}, y); });
    // Reads both twice and writes once: the sums come before the first gradient.
    add("batch_norm_silu", name, "backward", 0, 5 * bytes,
        [&] { ops::batch_norm_backward(x, dy, mean, rstd, gamma, beta, Activation::kSilu, dgamma, dbeta, false); });
  }

  Json rows = Json::array();

 private:
  // flops 0: bound by memory alone.
  Json& add(const char* op, const std::string& shape, const char* direction, double flops, double bytes,
            const std::function<void()>& call) {
    std::vector<double> times, peaks, parts;
    const int64_t rounds = device_ == Device::cpu() ? runs_ : 1;
    for (int64_t i = 0; i < rounds; ++i) {
      if (device_ == Device::cpu() && flops > 0) peak_ = measure_multiply_add_gflops(type_, 1);
      times.push_back(device_seconds(device_, device_ == Device::cpu() ? 1 : runs_, call));
      peaks.push_back(peak_), parts.push_back(flops / times.back() / 1e9 / peak_);
    }
    const double t = median_of(times), peak = median_of(peaks);
    Json row = {{"op", op}, {"shape", shape}, {"direction", direction}, {"ms", t * 1e3}, {"gbytes_per_s", bytes / t / 1e9}};
    if (flops > 0) {
      row["gflops"] = flops / t / 1e9;
      row["peak"] = peak;
      row["of_peak"] = median_of(parts);
    }
    const double by_memory = bytes / copy_ / 1e9;
    row["bound_ms"] = 1e3 * std::max(flops / peak / 1e9, by_memory);
    row["of_bound"] = flops / peak / 1e9 >= by_memory ? median_of(parts) : by_memory / t;
    rows.push_back(std::move(row));
    return rows.back();
  }

  Device device_;
  DType type_;
  int64_t runs_;
  double copy_;
  double peak_ = 1;
};

}  // namespace

Json op_benchmark(const Config& c, double copy_gbytes_per_s) {
  std::vector<std::string> models = {c.text("model")};
  if (models[0] == "all") models = {"yolov8n-seg", "yolov8s-seg", "yolov8m-seg", "yolov8l-seg", "yolov8x-seg"};
  const Cases cases = cases_of(models, c.integer("imgsz"), c.integer("batch"));
  Bench bench(c, copy_gbytes_per_s);
  const std::string& wanted = c.text("shape");
  for (const ConvCase& k : cases.convs) {
    if (k.name().starts_with(wanted)) bench.conv(k);
  }
  for (const Shape& shape : cases.norms) {
    if (norm_name(shape).starts_with(wanted)) bench.norm(shape);
  }
  if (bench.rows.empty()) {
    throw Error(ErrorCode::kUsage, fmt::format("shape={}: {} has no such shape", wanted, c.text("model")), {},
                "tessera bench op lists them: input>output channels, filter/stride, @ side of the map");
  }
  return bench.rows;
}

}  // namespace tessera
