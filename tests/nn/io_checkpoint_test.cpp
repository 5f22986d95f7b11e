#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <limits>
#include <random>

#include "nn/io/checkpoint.h"
#include "tensor/base/file.h"
#include "tests/nn/io_helpers.h"
#include "tests/support/small_disk.h"

using namespace tessera;

namespace {

// Every value tells the generation, so a mixture of two saves would show.
Checkpoint generation(int64_t n, int64_t elements = 1 << 16) {
  Checkpoint c;
  c.meta.step = n;
  c.meta.scale = std::string(1, 'n');
  c.model.add("model.0.conv.weight", Tensor::full({elements}, double(n)));
  c.model.add("model.0.bn.num_batches_tracked", Tensor::full({}, double(n), DType::kI64));
  c.sections["raw"].add("model.0.conv.weight", Tensor::full({elements}, double(n)));
  return c;
}

void check_generation(const std::filesystem::path& path, int64_t at_least) {
  const Checkpoint c = load_checkpoint(path);
  CHECK(c.meta.step >= at_least);
  for (const StateDict* state : {&c.model, &c.sections.at("raw")}) {
    const Tensor& t = state->at("model.0.conv.weight");
    const float* p = t.data<float>();
    bool same = true;
    for (int64_t i = 0; i < t.numel(); ++i) same &= p[i] == float(c.meta.step);
    CHECK(same);
  }
}

}  // namespace

TEST_CASE("checkpoint: everything comes back") {
  const TempFolder folder;
  Checkpoint c = generation(5, 10);
  c.meta.task = "segment";
  c.meta.nc = 2;
  c.meta.model_yaml = "nc: 2\n";
  c.meta.class_names = {"cat", "dög"};
  c.meta.epoch = 3;
  c.meta.best_fitness = 0.1 + 0.2;
  c.meta.best_epoch = 2;
  c.meta.args = {{"lr0", "0.01"}, {"data", "a b.yaml"}};
  c.meta.counters = {{"rng.seed", -1}, {"loader.batch", int64_t(1) << 60}};
  c.meta.numbers = {{"a", 1e-310},
                    {"b", std::numeric_limits<double>::infinity()},
                    {"c", std::nan("")},
                    {"d", -std::numeric_limits<double>::infinity()}};
  c.sections["optimizer.momentum"].add("model.0.conv.weight", Tensor::full({10}, 0.5));
  save_checkpoint(folder / "last.safetensors", c);
  const Checkpoint back = load_checkpoint(folder / "last.safetensors");
  CHECK(back.meta.format == 1);
  CHECK(back.meta.task == "segment");
  CHECK(back.meta.scale == "n");
  CHECK(back.meta.nc == 2);
  CHECK(back.meta.model_yaml == "nc: 2\n");
  CHECK(back.meta.class_names == c.meta.class_names);
  CHECK(back.meta.epoch == 3);
  CHECK(back.meta.step == 5);
  CHECK(back.meta.best_fitness == 0.1 + 0.2);
  CHECK(back.meta.best_epoch == 2);
  CHECK(back.meta.args == c.meta.args);
  CHECK(back.meta.counters == c.meta.counters);
  CHECK(back.meta.numbers.at("a") == 1e-310);
  CHECK(back.meta.numbers.at("b") == std::numeric_limits<double>::infinity());
  CHECK(back.meta.numbers.at("d") == -std::numeric_limits<double>::infinity());
  CHECK(std::isnan(back.meta.numbers.at("c")));
  check_equal(c.model, back.model);
  CHECK(back.sections.size() == 2);
  check_equal(c.sections.at("raw"), back.section("raw", "f"));
  check_equal(c.sections.at("optimizer.momentum"), back.section("optimizer.momentum", "f"));
  // Saving what was mapped from the same path.
  save_checkpoint(folder / "last.safetensors", back);
  check_equal(c.model, load_checkpoint(folder / "last.safetensors").model);
}

TEST_CASE("checkpoint: plain models load, without training state") {
  const TempFolder folder;
  StateDict state;
  state.add("w", Tensor::full({2}, 1));
  write_safetensors(folder / "m.safetensors", state);
  const Checkpoint c = load_checkpoint(folder / "m.safetensors");
  CHECK(c.meta.format == 0);
  check_equal(state, c.model);
  const Error error = error_of([&] { c.section("raw", "m.safetensors"); });
  CHECK(error.code() == ErrorCode::kData);
  CHECK(contains(error.hint(), "last.safetensors"));
}

TEST_CASE("checkpoint: foreign metadata and contents are refused") {
  const TempFolder folder;
  const auto refused = [&](const std::string& meta, const std::string& name = "w") {
    StateDict state;
    state.add(name, Tensor::full({2}, 1));
    write_safetensors(folder / "m.safetensors", state, {{"tessera", meta}});
    const Error error = error_of([&] { load_checkpoint(folder / "m.safetensors"); });
    CHECK(error.code() == ErrorCode::kData);
    CHECK_FALSE(error.hint().empty());
    return std::string(error.what());
  };
  CHECK(contains(refused("nonsense"), "cannot be read"));
  CHECK(contains(refused("{}"), "cannot be read"));
  CHECK(contains(refused(R"({"format":2})"), "newer"));
  const std::string rest =
      R"("task":"","scale":"n","epoch":0,"step":0,"best_fitness":0,"best_epoch":0,"args":{},"counters":{},"numbers":{})";
  CHECK(contains(refused(R"({"format":1,"nc":3,"class_names":["a"],)" + rest + "}"), "contradicts"));
  CHECK(contains(refused(R"({"format":1,"nc":"x","class_names":[],)" + rest + "}"), "cannot be read"));
  for (const char* number : {"1e300", "0.5"}) {  // of which a conversion to int64 is undefined, or another number
    CAPTURE(number);
    CHECK(contains(refused(R"({"class_names":[],"nc":0,"format":)" + std::string(number) + "," + rest + "}"), "cannot be read"));
    CHECK(contains(refused(R"({"class_names":[],"format":1,"nc":)" + std::string(number) + "," + rest + "}"), "cannot be read"));
    std::string counted = R"({"format":1,"class_names":[],"nc":0,)" + rest + "}";
    counted.replace(counted.find(R"("counters":{})"), 13, R"("counters":{"x":)" + std::string(number) + "}");
    CHECK(contains(refused(counted), "cannot be read"));
  }
  CHECK(contains(refused(R"({"format":1,"nc":0,"class_names":[],)" + rest + "}", "raw/w"), "no model weights"));
  CHECK_THROWS_AS(save_checkpoint(folder / "x",
                                  [] {
                                    Checkpoint c;
                                    c.model.add("a/b", Tensor::full({1}, 0));
                                    return c;
                                  }()),
                  Error);
}

TEST_CASE("checkpoint: killed at any moment of a save, the file loads") {
  const TempFolder folder;
  const auto path = folder / "last.safetensors";
  save_checkpoint(path, generation(0));
  std::mt19937 random(3);
  int64_t reached = 0;
  for (int round = 0; round < 20 || (reached == 0 && round < 400); ++round) {  // beside other tests, some children never get to run
    const Checkpoint first = generation(reached + 1), second = generation(reached + 2);
    const pid_t child = ::fork();
    if (child == 0) {
      while (true) {
        save_checkpoint(path, first);
        save_checkpoint(path, second);
      }
    }
    ::usleep(random() % 20000);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    check_generation(path, reached);
    reached = load_checkpoint(path).meta.step;
  }
  CHECK(reached > 0);
  save_checkpoint(path, generation(reached));
  CHECK(entries_in(folder.path()) == 1);  // what the killed ones left is gone
}

TEST_CASE("checkpoint: a full disk keeps the old file") {
  const TempFolder folder;
  testing::on_small_disk(folder.path(), "1m", [&] {
    const auto path = folder / "last.safetensors";
    save_checkpoint(path, generation(1));
    try {
      save_checkpoint(path, generation(2, 1 << 17));
      return 1;
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kIo || !contains(e.hint(), "full")) return 2;
    }
    if (load_checkpoint(path).meta.step != 1 || entries_in(folder.path()) != 1) return 3;
    save_checkpoint(path, generation(3, 1 << 10));  // the place of the failed file is free again
    return load_checkpoint(path).meta.step == 3 ? 0 : 4;
  });
}
