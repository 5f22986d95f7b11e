#include "tensor/backend.h"

#include <vector>

#include "tensor/base/memory.h"

namespace tessera {

namespace {
struct Registry {
  std::vector<std::unique_ptr<Backend>> owned;
  std::vector<Backend*> list;
};
Registry& registry() {
  static Registry r;
  return r;
}
thread_local Backend* forced = nullptr;
}  // namespace

int64_t Backend::available_bytes() { return available_memory().bytes; }

void install(std::unique_ptr<Backend> backend) {
  registry().list.push_back(backend.get());
  registry().owned.push_back(std::move(backend));
}

std::span<Backend* const> available_backends() { return registry().list; }

Backend& backend_for(Device device) {
  if (forced != nullptr && forced->device_kind() == device.kind) return *forced;
  const auto& list = registry().list;
  for (auto it = list.rbegin(); it != list.rend(); ++it) {
    if ((*it)->device_kind() == device.kind) return **it;
  }
  throw Error(ErrorCode::kUsage, fmt::format("no backend for device {} in this program", to_string(device)), {},
              "tessera info lists what this build has");
}

Backend* find_backend(std::string_view name) {
  for (Backend* b : registry().list) {
    if (b->name() == name) return b;
  }
  return nullptr;
}

CachingAllocator& allocator_for(Device device) {
  if (device.kind == Device::Kind::kCpu && forced == nullptr) return host_allocator();
  return backend_for(device).allocator();
}

BackendGuard::BackendGuard(Backend& backend) : previous_(forced) { forced = &backend; }
BackendGuard::~BackendGuard() { forced = previous_; }

}  // namespace tessera
