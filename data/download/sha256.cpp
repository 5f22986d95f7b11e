#include "data/download/sha256.h"

#include <fmt/format.h>
#include <nettle/sha2.h>
#include <nettle/version.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "tensor/base/check.h"
#include "tensor/base/file.h"
#include "tensor/base/interrupt.h"

namespace tessera {

struct Sha256::State {
  sha256_ctx context;
};

Sha256::Sha256() : state_(std::make_unique<State>()) { sha256_init(&state_->context); }
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(std::span<const std::byte> bytes) {
  sha256_update(&state_->context, bytes.size(), reinterpret_cast<const uint8_t*>(bytes.data()));
}

std::string Sha256::hex() const {
  sha256_ctx copy = state_->context;  // the digest ends a context
  std::array<uint8_t, SHA256_DIGEST_SIZE> digest;
#if NETTLE_VERSION_MAJOR >= 4
  sha256_digest(&copy, digest.data());
#else
  sha256_digest(&copy, digest.size(), digest.data());
#endif
  std::string text;
  for (const uint8_t byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

std::string sha256_of(const std::filesystem::path& file) {
  size_t size = 0;
  const int fd = open_regular_file(file, size);
  const std::unique_ptr<const int, void (*)(const int*)> closer(&fd, [](const int* f) { ::close(*f); });
  Sha256 sum;
  std::vector<std::byte> buffer(size_t(1) << 20);
  while (true) {
    if (interrupt_requested())
      throw Error(ErrorCode::kInterrupted, "interrupted while a checksum was taken", {file.string()}, "start it again");
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_file_error("read", file, errno);
    if (n == 0) return sum.hex();
    sum.update(std::span(buffer).first(size_t(n)));
  }
}

}  // namespace tessera
