// The program started as two processes by mpirun: a training as a user runs it, its resume, its faults.
#include <algorithm>
#include <cstdlib>

#include "nn/io/checkpoint.h"
#include "tests/cli/workshop.h"

using namespace tessera::test;

#ifdef TESSERA_MPIRUN

namespace {

// mpirun is started in the program's place, with the program among its arguments.
RunOptions two(const Workshop& w) {
  RunOptions options = w.here();
  options.name = TESSERA_MPIRUN;
  options.environment = {"TESSERA_THREADS=1"};
  return options;
}

Arguments by_two(const Arguments& arguments) {
  Arguments all = {"--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-n", "2", TESSERA_PROGRAM};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return all;
}

// Processes of the run whose folder is the working directory of `w`, by rank.
pid_t process_of_rank(const Workshop& w, int rank) {
  const std::string folder = w.folder().path().string(), wanted = fmt::format("OMPI_COMM_WORLD_RANK={}", rank);
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator("/proc", failed)) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (fs::read_symlink(entry.path() / "cwd", failed).string() != folder) continue;
    std::stringstream variables(content(entry.path() / "environ"));
    for (std::string v; std::getline(variables, v, '\0');) {
      if (v == wanted) return pid_t(std::stoi(name));
    }
  }
  return 0;
}

// All that a run leaves as numbers, without the clock.
std::string state(const std::string& run_folder) {
  const tessera::Checkpoint c = tessera::load_checkpoint(run_folder + "/weights/last.safetensors");
  std::string text;
  const auto add = [&](const std::string& section, const tessera::StateDict& dict) {
    for (const auto& [name, tensor] : dict) {
      const tessera::Tensor dense = tensor.contiguous();
      text += section + "/" + name + ":" +
              std::string(static_cast<const char*>(dense.raw()), size_t(dense.numel()) * size_of(dense.dtype()));
    }
  };
  add("model", c.model);
  for (const auto& [section, dict] : c.sections) add(section, dict);
  return text;
}

}  // namespace

TEST_CASE("cli: two ranks train, interrupted and resumed to the same bits as without a pause") {
  const Workshop w;
  const Arguments more = {"--epochs", "4", "--batch", "4", "--json"};
  const Arguments arguments = by_two(w.train("whole", more));
  const Outcome whole = run(arguments, two(w));
  INFO(described(arguments, whole));
  REQUIRE(whole.code == 0);
  CHECK(says(whole.err, "2 ranks, 2 images each in a batch, 1 threads each; batch norm statistics of each rank"));
  // Rank 0 alone talks and writes.
  const Json j = whole.json();
  REQUIRE(j.is_object());
  CHECK(j["epoch"] == 4);
  CHECK(j["images"] == 2);
  CHECK(j["run_dir"] == w / "runs/whole");
  const auto first = whole.err.find("epoch 1/4  ");
  CHECK(first != std::string::npos);
  CHECK(whole.err.find("epoch 1/4  ", first + 1) == std::string::npos);
  CHECK(!fs::exists(w / "runs/whole2"));

  // The best weights have the same figures in one process.
  const Outcome val = run({"val", "--model", w / "runs/whole/weights/best.safetensors", "--data", w / "data.yaml", "--imgsz", "32",
                           "--batch", "8", "--json"},
                          w.here());
  REQUIRE(val.code == 0);
  CHECK(val.json()["box"] == j["box"]);
  CHECK(val.json()["mask"] == j["mask"]);
  CHECK(val.json()["classes"] == j["classes"]);

  for (const int number : {SIGUSR1, SIGINT}) {
    const std::string name = fmt::format("paused{}", number), folder = w / ("runs/" + name);
    CAPTURE(name);
    Process process(by_two(w.train(name, {"--epochs", "4", "--batch", "4"})), two(w));
    CHECK(process.wait_until([&] { return says(process.err(), "epoch 2/"); }));
    if (number == SIGUSR1) {
      process.send(SIGUSR1);  // to mpirun, which passes it on
    } else {
      const pid_t one = process_of_rank(w, 1);  // to one of the two: both stop, after the same step
      REQUIRE(one > 0);
      kill(one, SIGINT);
    }
    const Outcome outcome = process.finish();
    INFO(outcome.err);
    CHECK(outcome.code == 7);
    CHECK(says(outcome.err, "state saved. Go on with:\n  mpirun -n 2 " TESSERA_PROGRAM " train --resume " + folder + "\n"));
    REQUIRE(state(folder) != state(w / "runs/whole"));
    const Outcome resumed = run(by_two({"train", "--resume", folder}), two(w));
    INFO(resumed.err);
    CHECK(resumed.code == 0);
    CHECK(state(folder) == state(w / "runs/whole"));
  }

  // With another number of ranks a run goes on, and says what that means.
  const Outcome alone = run({"train", "--resume", w / "runs/whole", "--epochs", "5"}, w.here());
  CHECK(alone.code == 0);
  CHECK(says(alone.err, "note: the run had 2 ranks and goes on with 1"));
}

TEST_CASE("cli: synchronised batch norm is a training of its own") {
  const Workshop w;
  for (const char* on : {"false", "true"}) {
    const Outcome outcome = run(by_two(w.train(std::string("bn-") + on, {"--batch", "4", "--sync-bn", on})), two(w));
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    CHECK(says(outcome.err, std::string("batch norm statistics of ") + (std::string(on) == "true" ? "all" : "each rank")));
  }
  CHECK(state(w / "runs/bn-true") != state(w / "runs/bn-false"));
}

TEST_CASE("cli: a rank that dies: the other stops, names it and the call; the checkpoint stays and resumes") {
  const Workshop w;
  for (const int victim : {1, 0}) {
    const std::string name = fmt::format("dies{}", victim), folder = w / ("runs/" + name);
    CAPTURE(name);
    Process process(by_two(w.train(name, {"--epochs", "1000", "--batch", "4"})), two(w));
    CHECK(process.wait_until([&] { return fs::exists(folder + "/weights/last.safetensors") && says(process.err(), "epoch 3/"); }));
    const pid_t pid = process_of_rank(w, victim);
    REQUIRE(pid > 0);
    const auto start = std::chrono::steady_clock::now();
    kill(pid, SIGKILL);
    const Outcome outcome = process.finish();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    INFO(outcome.err);
    MESSAGE("all had stopped after " << seconds << " s");
    CHECK(seconds < 30);
    CHECK(outcome.code != 0);
    CHECK(says(outcome.err, fmt::format("rank {} (process {} on ", victim, pid)));
    CHECK(says(outcome.err, fmt::format("has ended; rank {} wa", 1 - victim)));  // waited for it in ..., was at work after ...
    const bool call = says(outcome.err, "all_reduce of ") || says(outcome.err, "all_gather of ") ||
                      says(outcome.err, "gather of ") || says(outcome.err, "broadcast of ");
    CHECK(call);
    CHECK(run({"inspect", "--model", folder + "/weights/last.safetensors"}).code == 0);
    const int64_t done = tessera::load_checkpoint(folder + "/weights/last.safetensors").meta.epoch + 1;
    const Outcome resumed = run(by_two({"train", "--resume", folder, "--epochs", std::to_string(done + 1)}), two(w));
    INFO(resumed.err);
    CHECK(resumed.code == 0);
  }
}

TEST_CASE("cli: what is wrong on every rank is told once; an uneven batch is refused") {
  const Workshop w;
  const Outcome odd = run(by_two(w.train("odd", {"--batch", "5"})), two(w));
  INFO(odd.err);
  CHECK(odd.code == 2);
  const size_t at = odd.err.find("error: a batch of 5 cannot be split evenly over 2 ranks (give --batch 6)");
  REQUIRE(at != std::string::npos);
  CHECK(odd.err.find("error: ", at + 1) == std::string::npos);
  CHECK(!fs::exists(w / "runs/odd"));

  const Outcome unknown = run(by_two(w.train("x", {"--epohcs", "5"})), two(w));
  INFO(unknown.err);
  CHECK(unknown.code == 2);
  CHECK(says(unknown.err, "error: "));
  const Outcome json = run(by_two(w.train("y", {"--batch", "5", "--json"})), two(w));
  CHECK(json.json()["error"]["code"] == 2);
}

#else

TEST_CASE("cli: two ranks") { MESSAGE("skipped: no MPI"); }

TEST_CASE("cli: a build without MPI does not pretend to be several processes") {
  const Workshop w;
  RunOptions options = w.here();
  options.environment = {"OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK=0"};
  refused(w.train("x"), 2, {"started as 2 processes, but this build has no MPI"}, options);
}

#endif
