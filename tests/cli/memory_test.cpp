// Memory as a user meets it: planned, refused, and the same after two hundred epochs.
#include <algorithm>

#include "tests/cli/workshop.h"

using namespace tessera::test;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // what is resident says little then
#else
constexpr bool kSanitized = false;
#endif

RunOptions with_memory(const Workshop& w, int mib) {
  RunOptions options = w.here();
  options.environment = {"TESSERA_MEMORY=" + std::to_string(mib)};
  return options;
}

Arguments large(const Workshop& w, const std::string& batch, const std::string& imgsz) {
  return w.train("large", {"--model", "yolov8n-seg", "--imgsz", imgsz, "--batch", batch});
}

}  // namespace

TEST_CASE("cli: a batch that does not fit is refused before the run folder exists, with the one that fits") {
  const Workshop w;
  const Outcome refused = run(large(w, "6", "640"), with_memory(w, kSanitized ? 900 : 600));
  CHECK(refused.code == 4);
  INFO(refused.err);
  CHECK(refused.err.find("batch 6 at 640 pixels needs") != std::string::npos);
  CHECK(refused.err.find("TESSERA_MEMORY leaves") != std::string::npos);
  CHECK(refused.err.find("would fit; --batch -1 chooses one") != std::string::npos);
  CHECK(!fs::exists(w / "runs/large"));
  CHECK(run(large(w, "1", "640"), with_memory(w, 64)).err.find("not even a batch of 1") != std::string::npos);
  CHECK(run(w.train("x"), with_memory(w, -5)).code == 2);
}

TEST_CASE("cli: what a validation draws of thousands of classes is planned, and refused where it does not fit") {
  const Workshop w;
  std::string yaml = "path: .\ntrain: images/train\nval: images/val\nnames:\n";
  for (int i = 0; i < 3000; ++i) yaml += fmt::format("  {}: class {}\n", i, i);
  const auto arguments = [&](const char* plots) {
    return w.train("many", {"--data", w.write("many.yaml", yaml), "--model", "yolov8n-seg", "--imgsz", "64", "--batch", "1",
                            "--plots", plots});
  };
  const int room = kSanitized ? 700 : 400;  // the network and its training take some 200
  const Outcome refused = run(arguments("true"), with_memory(w, room));
  CHECK(refused.code == 4);
  INFO(refused.err);
  CHECK(refused.err.find("batch 1 at 64 pixels needs") != std::string::npos);
  CHECK(refused.err.find("--plots false") != std::string::npos);
  CHECK(!fs::exists(w / "runs/many"));
  const Outcome taken = run(arguments("false"), with_memory(w, room));
  INFO(taken.err);
  CHECK(taken.code == 0);
  if (kSanitized) return;
  const Json j = Json::parse(content(w / "runs/many/metrics.json"));
  const double planned = j["planned_peak_mib"], measured = j["peak_rss_mib"];
  MESSAGE("3000 classes without plots: planned " << planned << " MiB, measured " << measured);
  CHECK(planned >= 0.95 * measured);
}

TEST_CASE("cli: --batch -1 chooses a batch that fits, and the run remembers it") {
  const Workshop w;
  Arguments arguments = large(w, "-1", "160");
  const Outcome outcome = run(arguments, with_memory(w, kSanitized ? 1200 : 400));
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  const size_t at = outcome.err.find("batch ");
  REQUIRE(at != std::string::npos);
  const int batch = std::atoi(outcome.err.c_str() + at + 6);
  CHECK(batch >= 1);
  if (!kSanitized) CHECK(batch < 64);
  CHECK(content(w / "runs/large/args.yaml").find(fmt::format("batch: {}", batch)) != std::string::npos);
}

TEST_CASE("cli: the peak of memory is told before the first step, at most 5 % too low and 10 % too high") {
  if (kSanitized) {
    MESSAGE("skipped: sanitizers change what is resident");
    return;
  }
  struct Run {
    std::string imgsz, batch, precision, conv;
  };
  for (const auto& [imgsz, batch, precision, conv] : {Run{"160", "6", "fp32", "auto"}, {"160", "6", "bf16", "auto"}, {"320", "3", "fp32", "direct"},
                                                      {"640", "1", "fp32", "auto"}}) {
    const Workshop w;
    Arguments arguments = large(w, batch, imgsz);
    arguments.insert(arguments.end(), {"--precision", precision, "--conv", conv});
    const Outcome outcome = run(arguments, w.here());
    REQUIRE(outcome.code == 0);
    const Json j = Json::parse(content(w / "runs/large/metrics.json"));
    const double planned = j["planned_peak_mib"], measured = j["peak_rss_mib"];
    MESSAGE("n at " << imgsz << ", batch " << batch << ", " << precision << ", " << conv << ": planned " << planned << " MiB, measured "
                    << measured);
    CHECK(planned >= 0.95 * measured);
    CHECK(planned <= 1.1 * measured);
  }
}

TEST_CASE("cli: 200 epochs take no more memory than 20") {
  const Workshop w;
  RunOptions options = w.here();
  options.environment = {"ASAN_OPTIONS=quarantine_size_mb=8"};  // what that sanitizer withholds from reuse would look like growth
  const size_t epochs = kSanitized ? 60 : 200;  // they take minutes there
  const Outcome outcome = run(w.train("long", {"--imgsz", "64", "--epochs", std::to_string(epochs), "--patience", "0"}), options);
  REQUIRE(outcome.code == 0);
  std::istringstream log(content(w / "runs/long/log.jsonl"));
  std::vector<int64_t> resident;
  for (std::string line; std::getline(log, line);) {
    const Json j = Json::parse(line);
    if (j["event"] == "epoch") resident.push_back(j["rss_mib"]);
  }
  REQUIRE(resident.size() == epochs);
  const int64_t early = *std::max_element(resident.begin(), resident.begin() + 20);
  const int64_t late = *std::max_element(resident.begin() + 20, resident.end());
  MESSAGE("resident: at most " << early << " MiB in epochs 1 to 20, " << late << " in those after, " << resident.back()
                               << " at the end");
  CHECK(late <= early + (kSanitized ? 64 : 4));
}

TEST_CASE("cli: an image that no memory holds is not called damaged, and predict goes on with the others") {
  if (kSanitized) {
    MESSAGE("skipped: a sanitizer needs more address space than the limit");
    return;
  }
  const Workshop w;
  fs::create_directory(w / "photos");
  for (const char* name : {"photos/a.png", "photos/c.png"}) w.write(name, image_png(48, 40));
  w.write("photos/b.png", raw_png(12000, 12000, 1));  // 412 MiB of pixels
  const Shell predict =
      shell(w.folder(), fmt::format("ulimit -v 500000; '{}' predict --model '{}' --source photos --save-json --project runs",
                                    TESSERA_PROGRAM, Workshop::trained()));
  INFO(predict.out);
  CHECK(predict.code == 4);
  CHECK(says(predict.out, "error: photos/b.png: there is not enough memory to decode this image (scale it down"));
  CHECK(says(predict.out, "3/3 photos/c.png: 40x48"));
  CHECK(Json::parse(content(w / "runs/predict/predictions.json")).at("errors")[0].at("code") == 4);
}
