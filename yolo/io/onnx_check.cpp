#include "yolo/io/onnx_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "autograd/grad_mode.h"
#include "tensor/base/file.h"
#include "tensor/base/rng.h"
#include "yolo/io/onnx_program.h"

namespace tessera {

namespace {

namespace fs = std::filesystem;

// f32 (N, H, W, 3) in [0, 1]: slopes of colour, rectangles, and noise; the same for the same sizes.
Tensor test_images(int64_t n, int64_t h, int64_t w) {
  const Tensor out = Tensor::empty({n, h, w, 3});
  float* p = out.data<float>();
  for (int64_t i = 0; i < n; ++i) {
    Rng rng(1, RngPurpose::kUser, uint64_t(i));
    const double low = rng.uniform(0.1, 0.3), high = rng.uniform(0.4, 0.8);
    for (int64_t y = 0; y < h; ++y) {
      for (int64_t x = 0; x < w; ++x) {
        const double u = double(x) / double(w), v = double(y) / double(h);
        const bool inside = u > low && u < high && v > low && v < high;
        for (const double colour : {inside ? 0.9 : u, inside ? v : 0.5, inside ? 0.1 : v}) *p++ = float(0.9 * colour + 0.1 * rng.uniform());
      }
    }
  }
  return out;
}

// What output0 (N, 4 + nc + masks, A) and output1 are to be, row-major, and the greatest of coefficients and prototypes.
struct Expected {
  std::vector<float> rows, prototypes;
  double coefficient = 0, prototype = 0;
};

double sigma(double x) { return 1 / (1 + std::exp(-x)); }

// The expectation of the softmax over the bins.
double distance(const float* logits) {
  const float top = *std::max_element(logits, logits + kDistanceBins);
  double sum = 0, weighted = 0;
  for (int64_t i = 0; i < kDistanceBins; ++i) {
    const double e = std::exp(double(logits[i]) - double(top));
    sum += e, weighted += e * double(i);
  }
  return weighted / sum;
}

Expected expected_of(YoloSeg& model, const Tensor& images) {
  const NoGrad no_grad;
  const RawOutputs raw = model.forward(Variable(images));
  const int64_t n = images.size(0), nc = model.nc(), masks = model.masks(), channels = 4 + nc + masks;
  int64_t anchors = 0;
  for (const Variable& map : raw.box) anchors += map.data().size(1) * map.data().size(2);
  Expected out;
  out.rows.resize(size_t(n * channels * anchors));
  int64_t first = 0;
  for (size_t level = 0; level < raw.box.size(); ++level) {
    const int64_t h = raw.box[level].data().size(1), w = raw.box[level].data().size(2);
    const std::vector<float> box = raw.box[level].data().to_vector<float>(), cls = raw.cls[level].data().to_vector<float>(),
                             coefficients = raw.coefficients[level].data().to_vector<float>();
    const double stride = double(model.strides()[level]);
    for (int64_t cell = 0; cell < n * h * w; ++cell) {
      const int64_t image = cell / (h * w), y = cell / w % h, x = cell % w;
      float* to = out.rows.data() + image * channels * anchors + first + y * w + x;
      const float* logits = box.data() + cell * kBoxLogits;
      const double left = distance(logits), top = distance(logits + kDistanceBins), right = distance(logits + 2 * kDistanceBins),
                   bottom = distance(logits + 3 * kDistanceBins);
      to[0] = float((double(x) + 0.5 + (right - left) / 2) * stride);
      to[anchors] = float((double(y) + 0.5 + (bottom - top) / 2) * stride);
      to[2 * anchors] = float((left + right) * stride);
      to[3 * anchors] = float((top + bottom) * stride);
      for (int64_t c = 0; c < nc; ++c) to[(4 + c) * anchors] = float(sigma(double(cls[size_t(cell * nc + c)])));
      for (int64_t k = 0; k < masks; ++k) {
        const float v = coefficients[size_t(cell * masks + k)];
        to[(4 + nc + k) * anchors] = v;
        out.coefficient = std::max(out.coefficient, std::abs(double(v)));
      }
    }
    first += h * w;
  }
  out.prototypes = raw.prototypes.data().permute({0, 3, 1, 2}).to_vector<float>();
  for (const float v : out.prototypes) out.prototype = std::max(out.prototype, std::abs(double(v)));
  return out;
}

// NaN and what is missing count as infinitely far.
double worse(double so_far, double found, double wanted) {
  const double d = std::abs(found - wanted);
  return std::isfinite(d) ? std::max(so_far, d) : INFINITY;
}

OnnxDifference difference(const std::vector<Tensor>& found, const Expected& wanted, int64_t nc, int64_t masks) {
  const std::vector<float> rows = found[0].to_vector<float>(), prototypes = found[1].to_vector<float>();
  if (rows.size() != wanted.rows.size() || prototypes.size() != wanted.prototypes.size()) return {INFINITY, INFINITY, INFINITY, INFINITY};
  OnnxDifference d;
  const size_t channels = size_t(4 + nc + masks), anchors = size_t(found[0].size(2));
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t channel = i / anchors % channels;
    double& part = channel < 4 ? d.box_px : channel < size_t(4 + nc) ? d.score : d.coefficients;
    part = worse(part, double(rows[i]), double(wanted.rows[i]));
  }
  for (size_t i = 0; i < prototypes.size(); ++i) d.prototypes = worse(d.prototypes, double(prototypes[i]), double(wanted.prototypes[i]));
  d.coefficients /= std::max(wanted.coefficient, 1e-6);
  d.prototypes /= std::max(wanted.prototype, 1e-6);
  return d;
}

void keep_greatest(OnnxDifference& of_all, const OnnxDifference& d) {
  of_all.box_px = std::max(of_all.box_px, d.box_px), of_all.score = std::max(of_all.score, d.score);
  of_all.coefficients = std::max(of_all.coefficients, d.coefficients), of_all.prototypes = std::max(of_all.prototypes, d.prototypes);
}

// The rounded weights must be those of `exact`, rounded; then the graph is compared with the exact ones in their place.
void check_rounding(OnnxGraph& read, const OnnxGraph& exact, const std::string& file) {
  bool same = read.constants.size() == exact.constants.size();
  for (size_t i = 0; same && i < exact.constants.size(); ++i) {
    const auto& [name, tensor] = exact.constants[i];
    Tensor& found = read.constants[i].second;
    const Tensor rounded = tensor.to(found.dtype()).contiguous();
    same = read.constants[i].first == name && rounded.shape() == found.shape() &&
           std::memcmp(rounded.raw(), found.raw(), size_t(found.numel()) * size_of(found.dtype())) == 0;
    if (is_floating(found.dtype())) {
      for (const float v : found.to(DType::kF32).to_vector<float>()) {
        if (!std::isfinite(v)) throw Error(ErrorCode::kData, fmt::format("weight '{}' is beyond the 65504 that fp16 holds", name), {file}, "export it without --half");
      }
    }
    found = tensor;
  }
  TESSERA_CHECK(same, "{}: its weights are not those of the model, rounded", file);
}

std::string told(const OnnxDifference& d) {
  return fmt::format("box {:.2g} px, score {:.2g}, coefficients {:.2g}, prototypes {:.2g} of the largest", d.box_px, d.score, d.coefficients, d.prototypes);
}

OnnxReport check_file(YoloSeg& model, const std::vector<std::string>& names, const fs::path& file, const OnnxExportOptions& o) {
  OnnxReport report;
  report.height = o.height, report.width = o.width, report.batch = o.batch;
  report.bytes = int64_t(fs::file_size(file));
  OnnxGraph exact_graph = read_onnx(file);
  std::unique_ptr<OnnxProgram> as_written;
  if (o.half) {
    as_written = std::make_unique<OnnxProgram>(read_onnx(file), file.string());
    OnnxExportOptions full = o;
    full.half = false;
    check_rounding(exact_graph, build_onnx(model, names, full), file.string());
  }
  const OnnxProgram program(std::move(exact_graph), file.string());
  model.train(false);
  model.fold();
  std::vector<std::array<int64_t, 3>> sizes = {{o.batch, o.height, o.width}};
  if (o.dynamic) sizes.push_back({o.batch + 1, 2 * model.max_stride(), 3 * model.max_stride()});  // free they are
  for (const auto& [n, h, w] : sizes) {
    const Tensor images = test_images(n, h, w);
    const Expected wanted = expected_of(model, images);
    const Tensor x = images.permute({0, 3, 1, 2});
    keep_greatest(report.file, difference(program.run(x), wanted, model.nc(), model.masks()));
    if (as_written) keep_greatest(report.rounding, difference(as_written->run(x), wanted, model.nc(), model.masks()));
  }
  model.unfold();
  const OnnxDifference &d = report.file, &most = kOnnxTolerance;
  const bool near = d.box_px <= most.box_px && d.score <= most.score && d.coefficients <= most.coefficients && d.prototypes <= most.prototypes;
  TESSERA_CHECK(near, "the exported file does not give what the model gives: {} (allowed: {}); it was removed", told(d), told(most));
  return report;
}

}  // namespace

fs::path unchecked_file(const fs::path& file) { return file.string() + ".unchecked"; }

OnnxReport export_onnx(YoloSeg& model, const std::vector<std::string>& names, const fs::path& file, const OnnxExportOptions& options) {
  const OnnxGraph graph = build_onnx(model, names, options);
  const fs::path unchecked = unchecked_file(file);
  struct Remover {
    const fs::path& path;
    ~Remover() {
      std::error_code ignored;
      fs::remove(path, ignored);
    }
  } const remover{unchecked};
  std::error_code failed;
  if (file.has_parent_path()) fs::create_directories(file.parent_path(), failed);
  if (failed) throw_file_error("create the folder", file.parent_path(), failed.value());
  write_onnx(unchecked, graph);
  const OnnxReport report = check_file(model, names, unchecked, options);
  fs::rename(unchecked, file, failed);
  if (failed) throw_file_error("write", file, failed.value());
  return report;
}

}  // namespace tessera
