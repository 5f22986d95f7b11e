// A few thousand damaged model yamls and argument files: each is read or refused with its name and a remedy.
#include "tests/support/damage.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/support/narrow_model.h"
#include "tests/support/temp_folder.h"
#include "yolo/config.h"
#include "yolo/model_yaml.h"

using namespace tessera;
using testing::Damage;
using testing::takes_or_refuses;
using testing::Verdicts;

namespace fs = std::filesystem;

namespace {

const std::vector<std::string> kWords = {"&a ", "*a", "!!int ", "? ", "<<: ", "---\n", "...\n", "- ", "%YAML 1.2\n", "~", "{}", "[]", "nc", "-1", "Segment", "Concat", "[1e3, 2]", "!", "null"};

}  // namespace

TEST_CASE("damage: model yamls are read or refused by name") {
  Damage damage(1, kWords);
  Verdicts verdicts;
  for (int round = 0; round < 4000; ++round) {
    CAPTURE(round);
    const std::string text = damage(std::string(testing::kNarrowModel));
    for (const int64_t nc : {int64_t(0), int64_t(80)}) {
      takes_or_refuses("net.yaml", [&] { parse_model_text(text, "net.yaml", "n", nc); }, verdicts,
                       {ErrorCode::kData, ErrorCode::kUsage});  // of a scale that is not there any more
    }
  }
  CHECK(verdicts.taken > 500);
  CHECK(verdicts.refused > 500);
}

TEST_CASE("damage: argument files are read or refused by name") {
  const std::string good = "# arguments\nepochs: 5\nlr0: 0.01\nmosaic: 0.5\ncos_lr: true\noptimizer: SGD\ndata: 'a b.yaml'\nresume:\nclasses: \"0,2\"\n";
  Damage damage(2, kWords);
  Verdicts verdicts;
  const testing::TempFolder folder;
  const fs::path file = folder / "args.yaml";
  for (int round = 0; round < 4000; ++round) {
    CAPTURE(round);
    fs::remove(file);
    std::ofstream(file, std::ios::binary) << damage(good);
    takes_or_refuses(file.string(), [&] {
      Config config(kTrain);
      config.read_file(file);
    }, verdicts, {ErrorCode::kData, ErrorCode::kUsage});
  }
  CHECK(verdicts.taken > 500);
  CHECK(verdicts.refused > 500);
}
