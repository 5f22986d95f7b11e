#include "yolo/io/onnx_network.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "tensor/ops/pointwise.h"

namespace tessera {

namespace {

constexpr const char* kExportAgain = "export it again: tessera export --model best.safetensors, or with the original: format=onnx";
constexpr int64_t kMostClasses = 100000, kMostMasks = 100000;

// Reads a number at the front of the text.
bool take_number(std::string_view& text, int64_t& value) {
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc()) return false;
  text.remove_prefix(size_t(end - text.data()));
  return true;
}

bool take(std::string_view& text, char c) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  while (text.starts_with(' ')) text.remove_prefix(1);
  return true;
}

// "640" or "[480, 640]"; false: neither.
bool size_from(std::string_view text, std::array<int64_t, 2>& size) {
  if (!take(text, '[')) {
    if (!take_number(text, size[0])) return false;
    size[1] = size[0];
    return true;
  }
  return take_number(text, size[0]) && take(text, ',') && take_number(text, size[1]);
}

void append_utf8(uint32_t code, std::string& to) {
  if (code < 0x80) {
    to += char(code);
    return;
  }
  const int follow = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr uint32_t kFirst[] = {0, 0xC0, 0xE0, 0xF0};
  to += char(kFirst[follow] | code >> 6 * follow);
  for (int i = follow - 1; i >= 0; --i) to += char(0x80 | (code >> 6 * i & 0x3F));
}

// What stands behind a backslash in a text of Python's repr(), which writes so what cannot be printed; false: nothing that it
// writes.
bool take_escape(std::string_view& text, std::string& to) {
  if (text.empty()) return false;
  const char kind = text.front();
  text.remove_prefix(1);
  constexpr std::string_view kNumbered = "xuU", kNamed = "ntr", kMeant = "\n\t\r";
  if (const size_t at = kNamed.find(kind); at != std::string_view::npos) return to += kMeant[at], true;
  const size_t at = kNumbered.find(kind);
  if (at == std::string_view::npos) return to += kind, true;
  const size_t digits = size_t(2) << at;
  uint32_t code = 0;
  if (text.size() < digits) return false;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + digits, code, 16);
  if (failed != std::errc() || end != text.data() + digits || code > 0x10FFFF) return false;
  text.remove_prefix(digits);
  append_utf8(code >= 0xD800 && code < 0xE000 ? 0xFFFD : code, to);  // half of a pair is no character
  return true;
}

}  // namespace

std::vector<std::string> names_from_python(std::string_view text) {
  std::map<int64_t, std::string> found;
  if (!take(text, '{')) return {};
  while (!take(text, '}')) {
    int64_t id = 0;
    if (!take_number(text, id) || !take(text, ':')) return {};
    const char quote = text.empty() ? '\0' : text.front();
    if (quote != '\'' && quote != '"') return {};
    std::string name;
    text.remove_prefix(1);
    while (!text.empty() && text.front() != quote) {
      const char c = text.front();
      text.remove_prefix(1);
      if (c != '\\') {
        name += c;
      } else if (!take_escape(text, name)) {
        return {};
      }
    }
    if (text.empty() || id < 0 || id >= kMostClasses) return {};
    text.remove_prefix(1);
    found[id] = std::move(name);
    if (!take(text, ',') && !text.starts_with('}')) return {};
  }
  std::vector<std::string> names;
  for (auto& [id, name] : found) {
    if (id != int64_t(names.size())) return {};
    names.push_back(std::move(name));
  }
  return names;
}

OnnxNetwork::OnnxNetwork(const std::filesystem::path& file) : file_(file.string()) {
  OnnxGraph graph = read_onnx(file);
  if (const std::string_view task = graph.metadata_of("task"); !task.empty() && task != "segment") {
    refuse(fmt::format("holds a model for '{}', not for segmentation", task), "only YOLOv8 segmentation models can be run");
  }
  if (graph.metadata_of("args").find("'nms': True") != std::string_view::npos) {
    refuse("it was exported with nms=True, which fixes confidence and overlap in the file", "export it without: nms=False");
  }
  program_ = std::make_unique<OnnxProgram>(std::move(graph), file_);
  read_sizes();
  read_outputs();
}

void OnnxNetwork::refuse(const std::string& what, const std::string& hint) const { throw Error(ErrorCode::kData, what, {file_}, hint); }

void OnnxNetwork::read_sizes() {
  const OnnxValue& input = program_->input();
  const auto& dims = input.dims;
  if (dims.size() != 4 || dims[1].size != 3 || !is_floating(input.type)) {
    refuse(fmt::format("its input '{}' is no image of (N, 3, H, W)", input.name), kExportAgain);
  }
  const auto number_of = [&](std::string_view key, int64_t fallback) {
    std::string_view text = program_->graph().metadata_of(key);
    int64_t value = 0;
    return take_number(text, value) && value > 0 && value <= 65536 ? value : fallback;
  };
  dynamic_ = dims[2].size < 0 && dims[3].size < 0;
  if (dynamic_ != (dims[0].size < 0)) {
    refuse("of batch, height and width some are free and some are not", "export it with all of them free (dynamic=True), or none");
  }
  strides_.back() = number_of("stride", 32);
  strides_[1] = strides_[2] / 2, strides_[0] = strides_[2] / 4;
  if (strides_[0] * 4 != strides_[2]) refuse(fmt::format("its stride is {}", strides_[2]), kExportAgain);
  if (dynamic_) {
    batch_ = number_of("batch", 1);
    if (!size_from(program_->graph().metadata_of("imgsz"), size_)) size_ = {640, 640};
  } else {
    batch_ = dims[0].size;
    size_ = {dims[2].size, dims[3].size};
  }
  for (const int64_t s : size_) {
    if (s < max_stride() || s > 8192 || s % max_stride() != 0 || batch_ < 1 || batch_ > 65536) {
      refuse(
          fmt::format("images of {} x {}, {} at a time, are not possible at stride {}", size_[0], size_[1], batch_, max_stride()),
          kExportAgain);
    }
  }
}

int64_t OnnxNetwork::imgsz(int64_t asked) const {
  const auto [height, width] = size_;
  if (asked == 0) return std::max(height, width);
  if (dynamic_ || (asked == height && asked == width)) return asked;
  throw Error(ErrorCode::kUsage, fmt::format("imgsz={}: the file takes {} x {} only", asked, height, width), {file_},
              "leave imgsz out, or export the model with --dynamic");
}

void OnnxNetwork::read_outputs() {
  const auto& outputs = program_->graph().outputs;
  if (outputs.size() != 2 || outputs[0].dims.size() != 3 || outputs[1].dims.size() != 4) {
    refuse(fmt::format("it has {} outputs; a segmentation model has output0 (N, 4 + classes + coefficients, anchors) and output1 (N, coefficients, height, width)",
                       outputs.size()),
           kExportAgain);
  }
  masks_ = outputs[1].dims[1].size > 0 ? outputs[1].dims[1].size : 32;
  if (masks_ > kMostMasks) refuse(fmt::format("its output1 has {} prototypes", masks_), kExportAgain);
  const int64_t channels = outputs[0].dims[1].size;
  read_names(channels < 0 ? -1 : channels - 4 - masks_);
}

void OnnxNetwork::read_names(int64_t count) {
  const std::string_view text = program_->graph().metadata_of("names");
  names_ = names_from_python(text);
  if (!text.empty() && names_.empty()) refuse("its metadata 'names' is no list of class names", kExportAgain);
  if (count < 0) count = int64_t(names_.size());
  if (count < 1 || count > kMostClasses || (!names_.empty() && int64_t(names_.size()) != count)) {
    refuse(fmt::format("{} class names for outputs of {} classes", names_.size(), count), kExportAgain);
  }
  for (int64_t i = int64_t(names_.size()); i < count; ++i) names_.push_back(fmt::format("class{}", i));
}

void OnnxNetwork::place(const Tensor& images) {
  const int64_t h = images.size(1), w = images.size(2);
  if (!dynamic_ && (h != size_[0] || w != size_[1])) {
    throw Error(ErrorCode::kUsage, fmt::format("an image of {} x {} for a file that takes {} x {} only", h, w, size_[0], size_[1]),
                {file_}, "export it with --dynamic for images of any size");
  }
  images_ = ops::scale_u8(images, 1.0 / 255.0, DType::kF32).permute({0, 3, 1, 2});
}

RawOutputs OnnxNetwork::run() {
  RawOutputs out;
  out.decoded = true;
  const int64_t n = images_.size(0), step = dynamic_ ? n : batch_;
  for (int64_t first = 0; first < n; first += step) {
    const int64_t here = std::min(step, n - first);
    Tensor part = images_.narrow(0, first, here);
    if (here < step) {
      const Tensor filled = Tensor::zeros({step, images_.size(2), images_.size(3), 3}).permute({0, 3, 1, 2});
      filled.narrow(0, 0, here).copy_from(part);
      part = filled;
    }
    run_part(part, out, first, here);
  }
  return out;
}

// Of a part its first `images`, which are number `first` and on of all.
void OnnxNetwork::run_part(const Tensor& part, RawOutputs& into, int64_t first, int64_t images) const {
  const std::vector<Tensor> results = program_->run(part);
  const int64_t n = part.size(0), h = part.size(2), w = part.size(3), all = images_.size(0);
  int64_t anchors = 0;
  for (const int64_t s : strides_) anchors += (h / s) * (w / s);
  const Shape expected = {n, 4 + nc() + masks_, anchors};
  const Tensor &rows = results[0], &prototypes = results[1];
  const bool fits = rows.shape() == expected && prototypes.rank() == 4 && prototypes.size(0) == n && prototypes.size(1) == masks_ &&
                    prototypes.size(2) == 2 * (h / strides_[0]) && prototypes.size(3) == 2 * (w / strides_[0]);
  if (!fits || rows.dtype() != DType::kF32 || prototypes.dtype() != DType::kF32) {
    refuse(fmt::format("output0 is {} and output1 {} for an image of {} x {}, expected {} anchors of {} numbers", describe(rows),
                       describe(prototypes), h, w, anchors, 4 + nc() + masks_),
           kExportAgain);
  }
  const auto place = [&](Variable& to, const Tensor& from) {  // (images, h, w, channels)
    if (!to.defined()) to = Variable(Tensor::empty({all, from.size(1), from.size(2), from.size(3)}));
    to.data().narrow(0, first, images).copy_from(from);
  };
  const Tensor by_anchor = rows.permute({0, 2, 1}).contiguous();  // (N, A, channels)
  int64_t at = 0;
  for (size_t level = 0; level < size_t(kAnchorLevels); ++level) {
    const int64_t y = h / strides_[level], x = w / strides_[level];
    const Tensor map = by_anchor.narrow(1, at, y * x).narrow(0, 0, images).contiguous().view({images, y, x, expected[1]});
    place(into.box[level], map.narrow(-1, 0, 4));
    place(into.cls[level], map.narrow(-1, 4, nc()));
    place(into.coefficients[level], map.narrow(-1, 4 + nc(), masks_));
    at += y * x;
  }
  place(into.prototypes, prototypes.permute({0, 2, 3, 1}).narrow(0, 0, images));
}

}  // namespace tessera
