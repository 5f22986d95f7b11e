#include "tensor/base/start_threads.h"

#include <system_error>

#include "tensor/base/check.h"

namespace tessera {

void start_threads(std::vector<std::thread>& threads, int count, const std::function<void(int)>& body,
                   const std::function<void()>& stop, const std::string& remedy) {
  threads.reserve(threads.size() + size_t(count));
  for (int i = 0; i < count; ++i) {
    try {
      threads.emplace_back(body, i);
    } catch (const std::system_error& e) {
      stop();
      for (std::thread& t : threads) t.join();
      threads.clear();
      throw Error(ErrorCode::kMemory,
                  fmt::format("the system starts no more threads after {} of {}: {}", i, count, e.code().message()), {}, remedy);
    }
  }
}

}  // namespace tessera
