// Model files that are cut, hostile or of something else: exit code 3, the file and the fault in one sentence, nothing executed.
#include <algorithm>

#include "tests/cli/workshop.h"

using namespace tessera::test;

namespace {

// A file with this header and so many bytes of values.
std::string safetensors(const std::string& header, size_t values) {
  std::string out;
  for (size_t i = 0; i < 8; ++i) out += char(header.size() >> (8 * i) & 255);
  return out + header + std::string(values, '\0');
}

}  // namespace

TEST_CASE("cli: hostile and damaged .pt files are refused, and none of their code runs") {
  const Workshop w;
  const fs::path golden = fs::path(TESSERA_SOURCE_DIR) / "tests/golden";
  int files = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(golden / "checkpoint")) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("bad_") && name != "legacy.pt") continue;
    CAPTURE(name);
    const std::string copy = w / name;
    fs::copy_file(entry.path(), copy);
    refused({"inspect", "--model", copy}, 3, {copy + ": "}, w.here());
    ++files;
  }
  CHECK(files > 30);
  CHECK(!fs::exists(w / "tessera_was_here"));  // what the hostile ones would make
  // Good files of something that is no YOLOv8-seg model.
  for (const char* name : {"pt/code.pt", "pt/complex.pt", "pt/script.pt", "pt/legacy.pt", "checkpoint/plain.pt"}) {
    CAPTURE(name);
    refused({"inspect", "--model", (golden / name).string()}, 3, {(golden / name).string() + ": "}, w.here());
  }
  const std::string code = (golden / "checkpoint/bad_system.pt").string();
  refused({"train", "--data", w / "data.yaml", "--pretrained", code}, 3, {code, "holds code (os.system)", "nothing of it was run"},
          w.here());
  refused({"predict", "--model", code, "--source", w / "images/val"}, 3, {code, "holds code"}, w.here());
  refused({"val", "--model", code, "--data", w / "data.yaml"}, 3, {code, "holds code"}, w.here());
}

TEST_CASE("cli: damaged .safetensors files are refused with the entry at fault") {
  const Workshop w;
  // One or two entries of four floats with these offsets.
  const auto entries = [](const char* first, const char* second = nullptr, const char* second_name = "b") {
    constexpr const char* kEntry = R"("{}":{{"dtype":"F32","shape":[4],"data_offsets":[{}]}})";
    const std::string one = fmt::format(fmt::runtime(kEntry), "a", first);
    return second == nullptr ? fmt::format("{{{}}}", one)
                             : fmt::format("{{{},{}}}", one, fmt::format(fmt::runtime(kEntry), second_name, second));
  };
  struct Row {
    std::string bytes;
    const char* message;
  };
  for (const Row& row : std::vector<Row>{
           {safetensors(entries("0,16", "8,24"), 24), "entry 'b': its values overlap"},
           {safetensors(entries("0,16", "16,32"), 20), "reach beyond the 20 bytes"},
           {safetensors(entries("0,18446744073709551615"), 16), "entry 'a': data_offsets"},
           {safetensors(entries("0,12"), 12), "needs 16 bytes but data_offsets give 12"},
           {safetensors(entries("16,0"), 16), "run backwards"},
           {safetensors(entries("0,16", "0,16", "a"), 16), "the name occurs twice"},
           {safetensors(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}})", 16), "absurdly large"},
           {safetensors("{\"a\":", 0), "not valid JSON"},
           {safetensors("[]", 0), "not a JSON object"},
           {std::string(8, '\x7F') + "text", "not a safetensors file"},
           {"", "too few"},
           {safetensors(entries("0,16"), 16), "of no YOLOv8 segmentation model"},
       }) {
    CAPTURE(row.message);
    const std::string file = w.write("bad.safetensors", row.bytes);
    refused({"inspect", "--model", file}, 3, {file + ": ", row.message}, w.here());
  }
  const std::string good = content(Workshop::trained());
  for (const size_t length : {size_t(4), size_t(100), good.size() / 2, good.size() - 1}) {
    CAPTURE(length);
    const std::string file = w.write("cut.safetensors", good.substr(0, length));
    refused({"predict", "--model", file, "--source", w / "images/val"}, 3, {file + ": "}, w.here());
  }
  refused({"inspect", "--model", w / "none.safetensors"}, 3, {w / "none.safetensors", "No such file"}, w.here());
  refused({"inspect", "--model", w / "none.pt"}, 3, {w / "none.pt", "No such file"}, w.here());
}

TEST_CASE("cli: weights of another class count: training takes what fits, validation refuses") {
  const Workshop w;
  w.write("three.yaml", "train: images/train\nval: images/val\nnames: [cat, dog, cow]\n");
  refused({"val", "--model", Workshop::trained(), "--data", w / "three.yaml", "--imgsz", "32"}, 3,
          {Workshop::trained(), "the model has 2 classes, the data 3"}, w.here());
  Arguments arguments = w.train("transfer", {"--model", Workshop::trained(), "--data", w / "three.yaml"});
  const Outcome outcome = run(arguments, w.here());
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  CHECK(says(outcome.err, "weights: "));
  CHECK(says(outcome.err, "3 classes"));
}

TEST_CASE("cli: a flipped bit in a checkpoint is found, and what is left is named") {
  const Workshop w;
  const fs::path trained = fs::path(Workshop::trained()).parent_path();
  for (const char* name : {"best.safetensors", "last.safetensors"}) {
    fs::create_directories(w / "runs/r/weights");
    fs::copy_file(trained / name, w / ("runs/r/weights/" + std::string(name)));
  }
  const std::string best = w / "runs/r/weights/best.safetensors", last = w / "runs/r/weights/last.safetensors";
  std::string bytes = content(last);
  bytes[bytes.size() - 1000] ^= 4;
  w.write("runs/r/weights/last.safetensors", bytes);
  refused({"train", "--resume", w / "runs/r", "--epochs", "2"}, 3,
          {last + ": entry '", "the values do not match their checksum", "--model " + best}, w.here());
  refused({"inspect", "--model", last}, 3, {last, "checksum"}, w.here());
  CHECK(run({"inspect", "--model", best}).code == 0);
}

TEST_CASE("cli: what cannot be resumed says why") {
  const Workshop w;
  const std::string run_folder = fs::path(Workshop::trained()).parent_path().parent_path().string();
  refused({"train", "--resume", run_folder}, 2, {"the run is complete: 1 of 1 epochs", "larger --epochs"}, w.here());
  refused({"train", "--resume", run_folder + "/weights/best.safetensors"}, 3,
          {"best.safetensors", "weights only, no training state"}, w.here());
  refused({"train", "--resume", run_folder, "--imgsz", "64", "--epochs", "2"}, 2,
          {"--imgsz cannot change in a resumed run", "'32'"}, w.here());
  const std::string last = content(run_folder + "/weights/last.safetensors");
  w.write("cut/weights/last.safetensors", last.substr(0, last.size() / 2));
  refused({"train", "--resume", w / "cut"}, 3, {w / "cut/weights/last.safetensors"}, w.here());
  fs::create_directories(w / "begun/weights");
  refused({"train", "--resume", w / "begun"}, 3, {w / "begun", "no checkpoint yet", "start it again"}, w.here());
  refused({"train", "--resume", w / "nowhere"}, 3, {w / "nowhere", "there is no run or checkpoint here"}, w.here());
}
