// An archive of a data set: whatever it holds, nothing is written outside of its folder, and what is refused leaves nothing behind.
// The note beside a download that was cut is read from the same bytes.
#include "data/download/unpack.h"

#include "data/download/part_file.h"
#include "tests/fuzz/fuzz.h"

using namespace tessera;

namespace fs = std::filesystem;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fs::path outside = fuzz::folder() / "outside", target = outside / "target";
  fs::create_directories(target);
  const std::string archive = fuzz::file_with("set.zip", data, size);
  const auto answers = {ErrorCode::kData, ErrorCode::kIo};  // a name that is too long for the file system
  const bool taken = fuzz::takes_or_refuses(
      fuzz::folder().string(), [&] { unpack(archive, target); }, answers);
  const auto entries = [](const fs::path& folder) {
    return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
  };
  fuzz::require(entries(outside) == 1, "nothing is written outside");
  fuzz::require(taken || entries(target) == 0, "what is refused leaves nothing");
  fs::remove_all(outside);

  fuzz::file_with("a.zip.part", "0123456789");
  fuzz::file_with("a.zip.part.json", data, size);
  const PartFile part(fuzz::folder() / "a.zip", "https://example.org/a.zip");
  fuzz::require(part.size() >= 0 && part.size() <= 10, "no more is there than the file holds");
  return 0;
}
