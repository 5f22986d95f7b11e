#include "tensor/cpu/targets.h"

#include <algorithm>
#include <array>

#include "hwy/targets.h"
#include "tensor/base/check.h"

namespace tessera::cpu {

namespace {

struct Target {
  std::string_view name;
  int64_t mask;
};
constexpr std::array kTargets = {Target{"avx512", HWY_AVX3}, Target{"avx2", HWY_AVX2}};

// What the CPU has, whatever was forced since; asked once, before any force_target().
int64_t hardware_targets() {
  static const int64_t mask = hwy::SupportedTargets();
  return mask;
}

int64_t forced = 0;

}  // namespace

std::vector<std::string_view> runnable_targets() {
  std::vector<std::string_view> names;
  for (const Target& t : kTargets) {
    if (hardware_targets() & t.mask) names.push_back(t.name);
  }
  return names;
}

std::string_view current_target() {
  const int64_t usable = forced != 0 ? forced : hardware_targets();
  for (const Target& t : kTargets) {
    if (usable & t.mask) return t.name;
  }
  return {};
}

void force_target(std::string_view name) {
  const auto t = std::find_if(kTargets.begin(), kTargets.end(), [&](const Target& c) { return c.name == name; });
  TESSERA_CHECK(t != kTargets.end() && (hardware_targets() & t->mask), "'{}' is not a vector target of this CPU", name);
  forced = t->mask;
  hwy::SetSupportedTargetsForTest(forced);
  hwy::GetChosenTarget().Update(forced);
}

}  // namespace tessera::cpu
