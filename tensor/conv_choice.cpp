#include "tensor/conv_choice.h"

#include <array>
#include <optional>

#include "tensor/base/check.h"
#include "tensor/base/env.h"

namespace tessera {

namespace {

constexpr std::array kChoices = {ConvChoice::kAuto, ConvChoice::kReference, ConvChoice::kTiled};
std::optional<ConvChoice> chosen;

ConvChoice parse(std::string_view text, std::string_view where) {
  for (const ConvChoice c : kChoices) {
    if (text == name_of(c)) return c;
  }
  throw Error(ErrorCode::kUsage, fmt::format("{} is '{}', expected auto, reference or tiled", where, text));
}

}  // namespace

std::string_view name_of(ConvChoice choice) {
  switch (choice) {
    case ConvChoice::kAuto: return "auto";
    case ConvChoice::kReference: return "reference";
    case ConvChoice::kTiled: return "tiled";
  }
  return "?";
}

ConvChoice conv_choice() {
  if (chosen) return *chosen;
  const auto text = env("TESSERA_CONV");
  return text ? parse(*text, "TESSERA_CONV") : ConvChoice::kAuto;
}

void set_conv_choice(std::string_view name) { chosen = parse(name, "--conv"); }

}  // namespace tessera
