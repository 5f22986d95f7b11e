#include "nn/io/onnx_graph.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "tensor/base/file.h"
#include "tests/nn/io_helpers.h"
#include "tests/support/damage.h"

using namespace tessera;
using testing::Damage;
using testing::takes_or_refuses;
using testing::Verdicts;

namespace {

// False, said aloud, in a build without protobuf.
bool ready() {
  if (!has_onnx()) MESSAGE("skipped: " << describe_onnx());
  return has_onnx();
}

OnnxGraph small_graph() {
  OnnxGraph g;
  g.opset = 18, g.ir_version = 9, g.producer = "test", g.producer_version = "2", g.name = "small";
  g.metadata = {{"names", "{0: 'a'}"}, {"empty", ""}};
  g.inputs = {{"x", DType::kF16, {{-1, "batch"}, {3, {}}}}};
  g.outputs = {{"y", DType::kF32, {{2, {}}, {0, {}}}}};
  g.constants = {{"w", Tensor::from_vector<float>({1, 2, 3, 4, 5, 6}, {2, 3}).permute({1, 0})},
                 {"h", Tensor::full({3}, 0.5, DType::kF16)},
                 {"i", Tensor::from_vector<int64_t>({-1, int64_t(1) << 40}, {2})},
                 {"scalar", Tensor::scalar(7)},
                 {"none", Tensor::zeros({0, 4})}};
  g.nodes = {{"Conv", "first", {"x", "w", ""}, {"a", "b"}, {{"strides", std::vector<int64_t>{2, 1}}, {"group", int64_t(1)}, {"mode", std::string("same")},
                                                           {"alpha", 0.25f}, {"scales", std::vector<float>{1, 2}}, {"value", Tensor::from_vector<int64_t>({3}, {1})}}},
             {"Add", "", {"a", "h"}, {"y"}, {}}};
  return g;
}

std::string bytes_of(const Tensor& t) {
  const Tensor dense = t.contiguous();
  return {static_cast<const char*>(dense.raw()), size_t(dense.numel()) * size_of(dense.dtype())};
}

}  // namespace

TEST_CASE("onnx: what is written is read") {
  if (!ready()) return;
  const TempFolder folder;
  const std::filesystem::path file = folder / "g.onnx";
  const OnnxGraph g = small_graph();
  write_onnx(file, g);
  const OnnxGraph r = read_onnx(file);
  CHECK(r.opset == 18);
  CHECK(r.ir_version == 9);
  CHECK(r.producer == "test");
  CHECK(r.producer_version == "2");
  CHECK(r.name == "small");
  CHECK(r.metadata == g.metadata);
  CHECK(r.metadata_of("names") == "{0: 'a'}");
  CHECK(r.metadata_of("other").empty());
  REQUIRE(r.inputs.size() == 1);
  CHECK(r.inputs[0].name == "x");
  CHECK(r.inputs[0].type == DType::kF16);
  CHECK(r.inputs[0].dims[0].size == -1);
  CHECK(r.inputs[0].dims[0].name == "batch");
  CHECK(r.inputs[0].dims[1].size == 3);
  CHECK(r.outputs[0].dims[1].size == 0);
  REQUIRE(r.constants.size() == g.constants.size());
  for (size_t i = 0; i < g.constants.size(); ++i) {
    CAPTURE(g.constants[i].first);
    CHECK(r.constants[i].first == g.constants[i].first);
    CHECK(r.constants[i].second.shape() == g.constants[i].second.shape());
    CHECK(r.constants[i].second.dtype() == g.constants[i].second.dtype());
    CHECK(bytes_of(r.constants[i].second) == bytes_of(g.constants[i].second));
  }
  CHECK(r.constants[0].second.to_vector<float>() == std::vector<float>{1, 4, 2, 5, 3, 6});  // row by row, whatever it was in memory
  REQUIRE(r.nodes.size() == 2);
  const OnnxNode& n = r.nodes[0];
  CHECK(n.inputs == g.nodes[0].inputs);
  CHECK(n.outputs == g.nodes[0].outputs);
  CHECK(std::get<std::vector<int64_t>>(n.find("strides")->value) == std::vector<int64_t>{2, 1});
  CHECK(std::get<int64_t>(n.find("group")->value) == 1);
  CHECK(std::get<std::string>(n.find("mode")->value) == "same");
  CHECK(std::get<float>(n.find("alpha")->value) == 0.25f);
  CHECK(std::get<std::vector<float>>(n.find("scales")->value) == std::vector<float>{1, 2});
  CHECK(std::get<Tensor>(n.find("value")->value).to_vector<int64_t>() == std::vector<int64_t>{3});
  CHECK(n.find("pads") == nullptr);
}

TEST_CASE("onnx: a flipped bit of a constant is found") {
  if (!ready()) return;
  const TempFolder folder;
  const std::filesystem::path file = folder / "g.onnx";
  OnnxGraph g;
  g.name = "x";
  std::vector<float> values(500, 1.f);
  g.constants = {{"weight", Tensor::from_vector(values, {500})}};
  write_onnx(file, g);
  const std::string good = read_file(file);
  const float one = 1;
  char pattern[8];
  std::memcpy(pattern, &one, 4), std::memcpy(pattern + 4, &one, 4);
  const size_t at = good.find(std::string(pattern, 8));
  REQUIRE(at != std::string::npos);
  for (const size_t i : {at, at + 1001, at + 1999}) {
    std::string bad = good;
    bad[i] = char(bad[i] ^ 4);
    const Error e = error_of([&] { parse_onnx(bad, "bad.onnx", ""); });
    CHECK(e.code() == ErrorCode::kData);
    CHECK(e.where().file == "bad.onnx");
    CHECK(e.message() == "constant 'weight': its values do not match their checksum");
  }
}

TEST_CASE("onnx: a constant without values is not the larger for it") {
  if (!ready()) return;
  const TempFolder folder;
  OnnxGraph g = small_graph();
  g.constants = {{"none", Tensor::zeros({0, int64_t(1) << 56})}};
  write_onnx(folder / "g.onnx", g);
  const Error e = error_of([&] { read_onnx(folder / "g.onnx"); });  // its strides would be products of that size
  CHECK(e.code() == ErrorCode::kData);
  CHECK(e.message() == "constant 'none': impossible sizes");
}

TEST_CASE("onnx: damaged files are read or refused by name") {
  if (!ready()) return;
  const TempFolder folder;
  const std::filesystem::path file = folder / "g.onnx";
  write_onnx(file, small_graph());
  const std::string good = read_file(file);
  Damage damage(5, {"Conv", "location", "\x08\x01", "\x12", "../../etc/passwd"});
  Verdicts verdicts;
  for (int round = 0; round < 6000; ++round) {
    CAPTURE(round);
    const std::string bad = damage(good);
    takes_or_refuses("bad.onnx", [&] { parse_onnx(bad, "bad.onnx", folder / "."); }, verdicts);
  }
  CHECK(verdicts.taken > 100);  // lengths stand before what they are of, so that most changes break the file
  CHECK(verdicts.refused > 300);
}
