#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <unistd.h>

#include <memory>

#include "tensor/backend.h"
#include "tensor/ref/ref_backend.h"

namespace tessera::fuzz {

namespace fs = std::filesystem;

namespace {

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "tessera-fuzz-XXXXXX").string();
    require(mkdtemp(name.data()) != nullptr, "a temporary folder can be made");
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace

const fs::path& folder() {
  static const Folder own;
  return own.path();
}

// By the plain calls: targets write a file in every round.
std::string file_with(const char* name, std::string_view content) {
  std::string path = (folder() / name).string();
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  require(fd >= 0 && ::write(fd, content.data(), content.size()) == ssize_t(content.size()), "the input can be written to a file");
  ::close(fd);
  return path;
}

std::string file_with(const char* name, const uint8_t* data, size_t size) { return file_with(name, text_of(data, size)); }

}  // namespace tessera::fuzz

// One thread and the plain kernels, so that a round is the same each time it is run. (clang 14 does not compile tensor/cpu.)
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  setenv("TESSERA_THREADS", "1", 0);
  tessera::install(std::make_unique<tessera::RefBackend>());
  return 0;
}
