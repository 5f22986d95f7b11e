// Element types: sizes, and the conversions of the 16-bit floats against their definitions, for every bit pattern.
#include "tensor/dtype.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace tessera {
namespace {

TEST_CASE("every dtype has its size, its name and its kind") {
  CHECK(size_of(DType::kF64) == 8);
  CHECK(size_of(DType::kF32) == 4);
  CHECK(size_of(DType::kBF16) == 2);
  CHECK(size_of(DType::kF16) == 2);
  CHECK(size_of(DType::kI64) == 8);
  CHECK(size_of(DType::kI32) == 4);
  CHECK(size_of(DType::kU8) == 1);
  CHECK(size_of(DType::kBool) == 1);
  CHECK(name_of(DType::kBF16) == "bf16");
  CHECK(is_floating(DType::kF16));
  CHECK_FALSE(is_floating(DType::kI32));
}

// Value of a 16-bit float from its fields: (-1)^s * 2^(e - bias) * 1.m, subnormal 2^(1 - bias) * 0.m.
double by_definition(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const double sign = bits >> 15 ? -1.0 : 1.0;
  const int all_ones = (1 << exponent_bits) - 1;
  const int bias = all_ones / 2;
  const int exponent = int(bits >> mantissa_bits) & all_ones;
  const double mantissa = double(bits & ((1u << mantissa_bits) - 1)) / double(1u << mantissa_bits);
  if (exponent == all_ones) return mantissa != 0 ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias);
  return sign * std::ldexp(1 + mantissa, exponent - bias);
}

template <class T>
T from_bits(uint32_t bits) {
  T t;
  t.bits = uint16_t(bits);
  return t;
}

// Every pattern widens to its value and comes back; halfway points go to the even neighbour, a hair beside them to the nearer one.
template <class T>
void check_all(int exponent_bits, int mantissa_bits) {
  int64_t wrong_values = 0;
  int64_t wrong_ways_back = 0;
  int64_t wrong_rounding = 0;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = float(from_bits<T>(bits));
    const double defined = by_definition(bits, exponent_bits, mantissa_bits);
    if (std::isnan(defined)) {
      wrong_values += !std::isnan(value);
      wrong_ways_back += !std::isnan(float(T(value)));
      continue;
    }
    wrong_values += !(double(value) == defined && std::signbit(value) == std::signbit(defined));
    wrong_ways_back += T(value).bits != bits;
    const double next = by_definition(bits + 1, exponent_bits, mantissa_bits);  // one step away from zero
    if (std::isinf(defined) || std::isnan(next) || std::isinf(next) || (bits & 0x7fff) == 0x7fff) continue;
    const float middle = float((defined + next) / 2);  // exact: floats have room for the extra bit
    const uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    if (double(middle) != (defined + next) / 2) continue;  // below the smallest float
    wrong_rounding += T(middle).bits != even;
    wrong_rounding += T(std::nextafter(middle, float(next))).bits != bits + 1;
    wrong_rounding += T(std::nextafter(middle, float(defined))).bits != bits;
  }
  CHECK(wrong_values == 0);
  CHECK(wrong_ways_back == 0);
  CHECK(wrong_rounding == 0);
}

TEST_CASE("bf16 for every bit pattern") { check_all<BFloat16>(8, 7); }
TEST_CASE("f16 for every bit pattern") { check_all<Half>(5, 10); }

TEST_CASE("known 16-bit values") {
  CHECK(BFloat16(1.0f).bits == 0x3f80);
  CHECK(BFloat16(-2.0f).bits == 0xc000);
  CHECK(BFloat16(3.14159265f).bits == 0x4049);
  CHECK(BFloat16(std::numeric_limits<float>::max()).bits == 0x7f80);  // rounds to infinity
  CHECK(BFloat16(HUGE_VALF).bits == 0x7f80);
  CHECK(Half(1.0f).bits == 0x3c00);
  CHECK(Half(-2.0f).bits == 0xc000);
  CHECK(Half(0.1f).bits == 0x2e66);
  CHECK(Half(65504.0f).bits == 0x7bff);
  CHECK(Half(65519.996f).bits == 0x7bff);
  CHECK(Half(65520.0f).bits == 0x7c00);
  CHECK(Half(1e30f).bits == 0x7c00);
  CHECK(Half(-HUGE_VALF).bits == 0xfc00);
  CHECK(Half(0x1p-24f).bits == 1);
  CHECK(Half(0x1p-25f).bits == 0);
  CHECK(Half(0x1.8p-25f).bits == 1);
  CHECK(Half(-0.0f).bits == 0x8000);
}

}  // namespace
}  // namespace tessera
