// SHA-256, as the sums beside downloads are given everywhere.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(std::span<const std::byte> bytes);
  std::string hex() const;  // of all bytes so far: 64 digits, lower case

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Of a whole file. Error as read_file; Error(kInterrupted) after a signal.
std::string sha256_of(const std::filesystem::path& file);

}  // namespace tessera
