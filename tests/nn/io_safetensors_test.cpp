#include <random>

#include "nn/io/safetensors.h"
#include "tensor/base/file.h"
#include "tests/nn/io_helpers.h"

using namespace tessera;

namespace {

std::string file_of(const std::string& header, size_t values) {
  const uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), 8);
  return bytes + header + std::string(values, '\1');
}

Safetensors parse(std::string& bytes) {
  return parse_safetensors(std::as_writable_bytes(std::span(bytes)), nullptr, "x.safetensors");
}

StateDict example() {
  StateDict state;
  state.add("model.0.bn.num_batches_tracked", Tensor::from_vector<int64_t>({7}, {}));
  state.add("b.odd", Tensor::from_vector<uint8_t>({1, 2, 3}, {3}));
  state.add("a.f32", Tensor::from_floats({1, 2, 3, 4, 5, 6}, {2, 3}));
  state.add("f64", Tensor::from_vector<double>({0.1, -1e300}, {2}));
  state.add("half", Tensor::from_vector<Half>({Half(1.5f), Half(-2.f), Half(3.f)}, {3}));
  state.add("bf16", Tensor::from_vector<BFloat16>({BFloat16(1.5f)}, {1, 1}));
  state.add("i32", Tensor::from_vector<int32_t>({-5}, {1}));
  Tensor flags = Tensor::empty({2}, DType::kBool);
  flags.data<bool>()[0] = true;
  flags.data<bool>()[1] = false;
  state.add("bool", flags);
  state.add("empty", Tensor::empty({0, 4}));
  return state;
}

}  // namespace

TEST_CASE("safetensors: every type comes back, mapped and copied") {
  const TempFolder folder;
  const StateDict state = example();
  write_safetensors(folder / "a.safetensors", state, {{"key", "välue \"quoted\""}});
  for (const FileMemory memory : {FileMemory::kMapped, FileMemory::kCopied}) {
    const Safetensors back = read_safetensors(folder / "a.safetensors", memory);
    check_equal(state, back.tensors);
    CHECK(back.metadata.at("key") == "välue \"quoted\"");
    for (const auto& [name, tensor] : back.tensors) {
      CAPTURE(name);
      CHECK(reinterpret_cast<uintptr_t>(tensor.raw()) % size_of(tensor.dtype()) == 0);
    }
  }
  // Writing to a mapped tensor changes memory only.
  const Safetensors mapped = read_safetensors(folder / "a.safetensors");
  mapped.tensors.at("a.f32").data<float>()[0] = 99;
  CHECK(read_safetensors(folder / "a.safetensors").tensors.at("a.f32").data<float>()[0] == 1);
  // Values begin at a multiple of 64.
  const std::string bytes = read_file(folder / "a.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  CHECK((8 + header) % 64 == 0);
}

TEST_CASE("safetensors: every flipped bit is found, by the entry's name; files without checksums are read") {
  const TempFolder folder;
  write_safetensors(folder / "a.safetensors", example(), {{"key", "value"}});
  const std::string good = read_file(folder / "a.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, good.data(), 8);
  const auto refusal = [](std::string bytes) { return error_of([&] { parse(bytes); }); };
  const size_t key = good.find("crc32c");
  for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
    if (bit / 8 >= key && bit / 8 < key + 6) continue;  // by another name they are not there
    std::string bytes = good;
    bytes[bit / 8] = char(bytes[bit / 8] ^ 1 << bit % 8);
    const Error e = refusal(bytes);
    CHECK(e.code() == ErrorCode::kData);
    CHECK(e.where().file == "x.safetensors");
    CHECK(!e.hint().empty());
    if (bit / 8 >= 8 + header) CHECK(testing::says(e, "': "));  // in the values: an entry is named
  }
  std::string bytes = good;
  bytes.back() = char(bytes.back() ^ 1);
  CHECK(testing::says(refusal(bytes), "entry 'bool': the values do not match their checksum"));
  bytes = good;
  bytes.replace(bytes.find("value"), 5, "valve");
  CHECK(testing::says(refusal(bytes), "the header does not match its checksum"));
  bytes = without_checksums(good);
  bytes.back() = 0;
  CHECK(parse(bytes).tensors.size() == example().size());
  // As another program would leave them: values changed, checksums kept.
  bytes = good;
  bytes[bytes.find("\"crc32c\":\"") + 10] = 'x';
  CHECK(testing::says(refusal(bytes), "the checksums in its header cannot be read"));
  CHECK(read_safetensors(folder / "a.safetensors").metadata == std::map<std::string, std::string>{{"key", "value"}});
}

TEST_CASE("safetensors: strided tensors are written row-major") {
  const TempFolder folder;
  const Tensor base = Tensor::from_floats({1, 2, 3, 4, 5, 6}, {2, 3});
  StateDict state;
  state.add("transposed", base.permute({1, 0}));
  state.add("column", base.narrow(1, 1, 1));
  write_safetensors(folder / "a.safetensors", state);
  const StateDict back = read_safetensors(folder / "a.safetensors").tensors;
  CHECK(back.at("transposed").to_vector<float>() == std::vector<float>{1, 4, 2, 5, 3, 6});
  CHECK(back.at("column").to_vector<float>() == std::vector<float>{2, 5});
}

TEST_CASE("safetensors: files of the format's own library") {
  const Safetensors file = read_safetensors(golden("pt/state_dict.safetensors"));
  CHECK(file.tensors.size() == 13);
  CHECK(file.tensors.at("i64").to_vector<int64_t>() == std::vector<int64_t>{int64_t(1) << 40, -1});
  CHECK(file.tensors.at("bf16").to_vector<BFloat16>()[1].bits == 0x4380);
  CHECK(file.tensors.at("scalar").rank() == 0);
  CHECK(file.tensors.at("empty").shape() == Shape{2, 0});
}

TEST_CASE("safetensors: damaged and hostile headers are named") {
  struct Case {
    std::string header;
    size_t values;
    const char* expected;
  };
  const std::string good = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  const Case cases[] = {
      {"", 0, "not a JSON object"},
      {"[1]", 0, "not a JSON object"},
      {"{\"a\":", 0, "not valid JSON"},
      {"{" + good + "}", 4, "reach beyond"},
      {"{" + good + "}", 12, "at the end belong to no entry"},
      {"{" + good + "," + good + "}", 8, "occurs twice"},
      {"{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}," + good + "}", 8, "overlap"},
      {"{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[9,10]}," + good + "}", 10, "belong to no entry"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "backwards"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8, "needs 12 bytes"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "natural number"},
      {R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8, "natural number"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8]}})", 8, "absurdly large"},
      {R"({"a":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})", 0, "absurdly large"},
      {R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,2],"data_offsets":[0,8]}})", 8, "6 dimensions"},
      {R"({"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}})", 8, "F8_E4M3 is not supported"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,-8]}})", 8, "natural numbers"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})", 8, "natural numbers"},
      {R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", 8, "not a list"},
      {R"({"a":{"dtype":5,"shape":[2],"data_offsets":[0,8]}})", 8, "dtype"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", 8, "needs exactly"},
      {R"({"a":7})", 0, "needs exactly"},
      {R"({"a":{"dtype":"F32","shape":[[[[[[2]]]]]],"data_offsets":[0,8]}})", 8, "nested"},
      {R"({"__metadata__":{"a":1}})", 0, "not a string"},
      {R"({"__metadata__":[]})", 0, "not an object"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.header);
    std::string bytes = file_of(c.header, c.values);
    const Error error = error_of([&] { parse(bytes); });
    CHECK(error.code() == ErrorCode::kData);
    CHECK(error.where().file == "x.safetensors");
    CHECK_FALSE(error.hint().empty());
    CHECK_MESSAGE(contains(error.message(), c.expected), error.what());
  }
  std::string fine = file_of("{" + good + "}   ", 8);
  CHECK(parse(fine).tensors.size() == 1);
  std::string flag = file_of(R"({"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}})", 0) + '\2';
  CHECK(contains(error_of([&] { parse(flag); }).what(), "neither 0 nor 1"));
  std::string short_file = "abc", absurd = std::string(8, '\x7f') + "{}", longer = file_of("{}", 0);
  longer[0] = 100;
  CHECK(contains(error_of([&] { parse(short_file); }).what(), "too few"));
  CHECK(contains(error_of([&] { parse(absurd); }).what(), "not a safetensors file"));
  CHECK(contains(error_of([&] { parse(longer); }).what(), "only 2 follow"));
}

TEST_CASE("safetensors: unaligned entries of other writers are copied") {
  std::string bytes =
      file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})", 5);
  auto owner = std::make_shared<std::string>(bytes);
  const auto file = parse_safetensors(std::as_writable_bytes(std::span(*owner)), owner, "x");
  CHECK(reinterpret_cast<uintptr_t>(file.tensors.at("b").raw()) % 4 == 0);
  CHECK(file.tensors.begin()->name == "a");
}

TEST_CASE("safetensors: random damage never crashes") {
  const TempFolder folder;
  write_safetensors(folder / "a.safetensors", example(), {{"key", "value"}});
  const std::string good = without_checksums(read_file(folder / "a.safetensors"));
  std::mt19937 random(5);
  int loaded = 0, refused = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string bytes = good;
    for (unsigned flips = 1 + random() % 3; flips > 0; --flips) bytes[random() % bytes.size()] = char(random());
    if (round % 5 == 0) bytes.resize(random() % bytes.size());
    try {
      double sum = 0;
      for (const auto& entry : parse(bytes).tensors)
        if (entry.tensor.dtype() == DType::kF32)
          for (float x : entry.tensor.to_vector<float>()) sum += x;
      ++loaded;
    } catch (const Error& e) {
      CHECK(e.code() == ErrorCode::kData);
      ++refused;
    }
  }
  CHECK(loaded > 100);
  CHECK(refused > 1000);
}

TEST_CASE("state dict: matching, partial and strict load") {
  StateDict target, source;
  target.add("same", Tensor::zeros({2}));
  target.add("wider", Tensor::zeros({3}));
  target.add("new", Tensor::zeros({1}));
  source.add("wider", Tensor::from_floats({1, 1}, {2}));
  source.add("same", Tensor::from_vector<Half>({Half(1.5f), Half(2.f)}, {2}));
  source.add("old", Tensor::zeros({1}));
  const LoadReport report = load_matching(source, target);
  CHECK(target.at("same").to_vector<float>() == std::vector<float>{1.5f, 2.f});
  CHECK(target.at("wider").to_vector<float>() == std::vector<float>{0, 0, 0});
  CHECK(
      report.summary() ==
      "transferred 1/3 entries; 1 differ in shape (wider: file [2], model [3]); 1 not in the file (new); 1 not in the model (old)");
  CHECK_FALSE(report.complete());
  target.at("same").fill(0);
  const Error error = error_of([&] { load_strict(source, target, "w.pt"); });
  CHECK(error.code() == ErrorCode::kData);
  CHECK(target.at("same").data<float>()[0] == 0);
  CHECK(load_strict(target, target, "w.pt").complete());
  CHECK_THROWS_AS(source.add("old", Tensor()), Error);
  StateDict turned, upright;  // as many numbers in another shape
  turned.add("w", Tensor::from_floats({1, 2, 3, 4, 5, 6}, {2, 3}));
  upright.add("w", Tensor::zeros({3, 2}));
  CHECK(load_matching(turned, upright).mismatched.size() == 1);
  CHECK(upright.at("w").to_vector<float>() == std::vector<float>(6, 0));
}
