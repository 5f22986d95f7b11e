// Element types and the host forms of the 16-bit floats.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tessera {

enum class DType : uint8_t { kF64, kF32, kBF16, kF16, kI64, kI32, kU8, kBool };

size_t size_of(DType type);              // bytes of one element
std::string_view name_of(DType type);    // "f64", "f32", "bf16", "f16", "i64", "i32", "u8", "bool"
bool is_floating(DType type);
DType wide_of(DType type);               // of sums and per-channel vectors beside tensors of `type`: f32 for 16-bit floats, else `type`

// Upper half of a float (8 exponent bits, 7 mantissa bits). Conversion rounds to nearest even; NaN stays NaN.
struct BFloat16 {
  uint16_t bits = 0;
  BFloat16() = default;
  explicit BFloat16(float value) {
    uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = uint16_t(u >> 16 | 0x40u);
    } else {
      bits = uint16_t((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
    }
  }
  explicit operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
};

// IEEE 754 binary16. Conversion rounds to nearest even; overflow becomes infinity, NaN stays NaN.
struct Half {
  uint16_t bits = 0;
  Half() = default;
  explicit Half(float value);
  explicit operator float() const;
};

template <class T>
struct DTypeOf;
template <> struct DTypeOf<double> { static constexpr DType value = DType::kF64; };
template <> struct DTypeOf<float> { static constexpr DType value = DType::kF32; };
template <> struct DTypeOf<BFloat16> { static constexpr DType value = DType::kBF16; };
template <> struct DTypeOf<Half> { static constexpr DType value = DType::kF16; };
template <> struct DTypeOf<int64_t> { static constexpr DType value = DType::kI64; };
template <> struct DTypeOf<int32_t> { static constexpr DType value = DType::kI32; };
template <> struct DTypeOf<uint8_t> { static constexpr DType value = DType::kU8; };
template <> struct DTypeOf<bool> { static constexpr DType value = DType::kBool; };
template <class T>
inline constexpr DType kDTypeOf = DTypeOf<T>::value;

}  // namespace tessera
