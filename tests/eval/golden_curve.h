// A curve of tests/golden/curves.json against ours.
#pragma once

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

namespace tessera::testing {

// golden: of curves.json; points: the positions of expected.at("at") by length. `undefined` is what ours holds for its nulls, which
// it counts as 1 in the sum.
inline void check_curve(const std::vector<double>& ours, const nlohmann::json& expected, const nlohmann::json& points,
                        double undefined = 1) {
  const auto& at = points.at(std::to_string(ours.size()));
  int64_t missing = 0;
  for (size_t i = 0; i < at.size(); ++i) {
    const auto& value = expected.at("at")[i];
    CAPTURE(i);
    CHECK(ours[at[i].get<size_t>()] == doctest::Approx(value.is_null() ? undefined : value.get<double>()).epsilon(1e-9));
    missing += value.is_null();
  }
  if (undefined != 1 && missing > 0) return;
  CHECK(std::accumulate(ours.begin(), ours.end(), 0.0) == doctest::Approx(expected.at("sum").get<double>()).epsilon(1e-9));
}

}  // namespace tessera::testing
