// Philox4x32-10 counter-based random numbers (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
// A stream is named by (seed, purpose, index), so any thread, and any backend, can make the numbers of any sample without
// shared state: results never depend on the number of threads or on the order in which samples are made.
#pragma once

#include <array>
#include <cstdint>

namespace tessera {

// What a stream is for; part of the key so that streams of one seed never overlap. Values are stored in no file.
enum class RngPurpose : uint32_t { kInit = 1, kShuffle = 2, kAugment = 3, kShapes = 4, kTest = 5, kUser = 6, kMultiScale = 7 };

// One block of the generator: ten rounds over (counter, key).
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Sequential reader of one stream. Cheap to copy; the copy continues independently.
class Rng {
 public:
  Rng(uint64_t seed, RngPurpose purpose, uint64_t index = 0);

  uint32_t next_u32();
  uint64_t next_u64();
  double uniform();                           // [0, 1), 53 random bits
  double uniform(double low, double high);    // low + (high - low) * uniform()
  int64_t below(int64_t n);                   // 0 .. n-1 without modulo bias; n > 0
  double normal();                            // mean 0, deviation 1 (Box-Muller)
  double beta(double a, double b);            // Beta(a, b) by two gamma variates (Marsaglia and Tsang 2000)

 private:
  double gamma(double shape);

  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
};

}  // namespace tessera
