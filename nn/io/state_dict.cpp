#include "nn/io/state_dict.h"

#include <algorithm>

namespace tessera {

namespace {

constexpr size_t kNamesShown = 3;

template <class List, class Text>
std::string first_few(const List& list, Text text) {
  std::string joined;
  for (size_t i = 0; i < std::min(list.size(), kNamesShown); ++i) joined += (i ? "; " : "") + text(list[i]);
  return list.size() > kNamesShown ? joined + "; ..." : joined;
}

std::string itself(const std::string& name) { return name; }

LoadReport compare(const StateDict& source, const StateDict& target) {
  LoadReport report;
  for (const auto& [name, tensor] : target) {
    const Tensor* found = source.find(name);
    if (found == nullptr) {
      report.missing.push_back(name);
    } else if (found->shape() != tensor.shape()) {
      report.mismatched.push_back({name, found->shape(), tensor.shape()});
    } else {
      report.matched.push_back(name);
    }
  }
  for (const auto& entry : source)
    if (!target.contains(entry.name)) report.unexpected.push_back(entry.name);
  return report;
}

void copy_matched(const LoadReport& report, const StateDict& source, const StateDict& target) {
  for (const std::string& name : report.matched) {
    target.at(name).copy_from(source.at(name));
  }
}

}  // namespace

std::string LoadReport::summary() const {
  std::string text = fmt::format("transferred {}/{} entries", matched.size(), matched.size() + missing.size() + mismatched.size());
  if (!mismatched.empty())
    text += fmt::format("; {} differ in shape ({})", mismatched.size(), first_few(mismatched, [](const Mismatch& m) {
                          return fmt::format("{}: file {}, model {}", m.name, to_string(m.in_file), to_string(m.in_model));
                        }));
  if (!missing.empty()) text += fmt::format("; {} not in the file ({})", missing.size(), first_few(missing, itself));
  if (!unexpected.empty()) text += fmt::format("; {} not in the model ({})", unexpected.size(), first_few(unexpected, itself));
  return text;
}

LoadReport load_matching(const StateDict& source, const StateDict& target) {
  LoadReport report = compare(source, target);
  copy_matched(report, source, target);
  return report;
}

LoadReport load_strict(const StateDict& source, const StateDict& target, const std::string& file) {
  LoadReport report = compare(source, target);
  if (!report.complete())
    throw Error(ErrorCode::kData, "the weights do not fit the model: " + report.summary(), {file},
                "the file belongs to another model scale or class count; train from it instead of resuming it");
  copy_matched(report, source, target);
  return report;
}

double saved_number(const StateDict& state, const std::string& name) {
  const Tensor* saved = state.find(name);
  if (saved == nullptr || saved->numel() != 1) {
    throw Error(ErrorCode::kData,
                fmt::format("checkpoint entry '{}' is {}, expected one number", name, saved ? describe(*saved) : "missing"));
  }
  return saved->item();
}

int64_t saved_count(const StateDict& state, const std::string& name) {
  constexpr double kMost = 9007199254740992;  // whole numbers of a double
  const double count = saved_number(state, name);
  if (!(count >= 0 && count <= kMost))
    throw Error(ErrorCode::kData, fmt::format("checkpoint entry '{}' is {}, which counts nothing", name, count));
  return int64_t(count);
}

}  // namespace tessera
