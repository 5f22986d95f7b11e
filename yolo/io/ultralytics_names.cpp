#include "yolo/io/ultralytics_names.h"

namespace tessera {

namespace {
bool is_transposed(const std::string& name) { return name.ends_with("upsample.weight"); }
}  // namespace

std::string canonical_name(const std::string& name) {
  std::string_view rest = name;
  while (rest.starts_with("module.") || rest.starts_with("model.model.")) rest.remove_prefix(rest.find('.') + 1);
  return std::string(rest);
}

StateDict to_file_layout(const StateDict& state) {
  StateDict out;
  for (const auto& [name, t] : state) {
    if (t.rank() != 4) {
      out.add(name, t);
    } else {
      out.add(name, (is_transposed(name) ? t.permute({3, 0, 1, 2}) : t.permute({0, 3, 1, 2})).contiguous());
    }
  }
  return out;
}

StateDict from_file_layout(const StateDict& state) {
  StateDict out;
  for (const auto& [file_name, t] : state) {
    const std::string name = canonical_name(file_name);
    if (t.rank() != 4) {
      out.set(name, t);
    } else {
      out.set(name, (is_transposed(name) ? t.permute({1, 2, 3, 0}) : t.permute({0, 2, 3, 1})).contiguous());
    }
  }
  return out;
}

Shape to_file_shape(const std::string& name, const Shape& s) {
  if (s.rank() != 4) return s;
  return is_transposed(name) ? Shape{s[3], s[0], s[1], s[2]} : Shape{s[0], s[3], s[1], s[2]};
}

}  // namespace tessera
