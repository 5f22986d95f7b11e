#include "tensor/conv_choice.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <utility>

#include "tensor/base/check.h"
#include "tensor/base/env.h"
#include "tensor/base/scope.h"

namespace tessera {

namespace {

constexpr std::pair<std::string_view, ConvChoice> kNames[] = {
    {"auto", ConvChoice::kAuto},     {"naive", ConvChoice::kNaive}, {"own", ConvChoice::kOwn},
    {"direct", ConvChoice::kDirect}, {"cudnn", ConvChoice::kCudnn},
};

struct Choices {
  ConvChoice of_all = ConvChoice::kAuto;
  std::vector<ConvPattern> patterns;
};
std::optional<Choices> chosen;

Choices parse(std::string_view text, std::string_view where) {
  Choices out;
  for (bool more = true; more;) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    more = comma != text.npos;
    if (more) text.remove_prefix(comma + 1);
    const size_t equals = part.find('=');
    const std::string_view name = equals == part.npos ? part : part.substr(equals + 1);
    const auto known = std::find_if(std::begin(kNames), std::end(kNames), [&](const auto& n) { return n.first == name; });
    if (known == std::end(kNames) || equals == 0) {
      throw Error(ErrorCode::kUsage, fmt::format("{}: '{}' is not a choice of kernels", where, part), {},
                  "expected auto, naive, own, direct or cudnn, and for layers name=choice: own,model.0=cudnn,model.22.*=naive");
    }
    if (equals == part.npos) {
      out.of_all = known->second;
    } else {
      out.patterns.push_back({std::string(part.substr(0, equals)), known->second});
    }
  }
  return out;
}

const Choices& choices() {
  if (!chosen) {
    const auto text = env("TESSERA_CONV");
    chosen = text ? parse(*text, "TESSERA_CONV") : Choices{};
  }
  return *chosen;
}

}  // namespace

bool ConvPattern::names(std::string_view name) const {
  return layer.ends_with('*') ? name.starts_with(std::string_view(layer).substr(0, layer.size() - 1)) : name == layer;
}

std::string_view name_of(ConvChoice choice) {
  return std::find_if(std::begin(kNames), std::end(kNames), [&](const auto& n) { return n.second == choice; })->first;
}

ConvChoice conv_choice() { return choices().of_all; }
const std::vector<ConvPattern>& conv_patterns() { return choices().patterns; }

bool conv_chosen_anywhere(ConvChoice choice) {
  const Choices& c = choices();
  return c.of_all == choice ||
         std::any_of(c.patterns.begin(), c.patterns.end(), [&](const ConvPattern& p) { return p.choice == choice; });
}

namespace {
struct Owners {
  std::shared_mutex mutex;
  std::map<const void*, ConvChoice> choices;
};
Owners& owners() {
  static Owners o;
  return o;
}
}  // namespace

void set_conv_choice_of(const void* owner, ConvChoice choice) {
  Owners& o = owners();
  const std::unique_lock lock(o.mutex);
  if (choice == ConvChoice::kAuto) {
    o.choices.erase(owner);
  } else {
    o.choices[owner] = choice;
  }
}

ConvChoice conv_choice_here() {
  Owners& o = owners();
  const std::shared_lock lock(o.mutex);
  const auto known = o.choices.find(current_scope().owner);
  return known == o.choices.end() ? ConvChoice::kAuto : known->second;
}

void set_conv_choice(std::string_view text) { chosen = parse(text, "--conv"); }

}  // namespace tessera
