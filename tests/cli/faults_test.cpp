// What must not cost work: folders that cannot be written, a full disk, kills and signals. Whatever happens, the old checkpoint
// loads, and --resume goes on from it.
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>

#include "tests/cli/workshop.h"
#include "tests/support/run_figures.h"

using namespace tessera::test;
using tessera::testing::figures_in;

namespace {

// Rows of results.csv; each epoch stands there once and in order.
int64_t epochs_in(const std::string& run_folder) {
  std::stringstream in(content(run_folder + "/results.csv"));
  std::string line;
  std::getline(in, line);
  int64_t rows = 0;
  while (std::getline(in, line)) {
    CHECK(std::stoll(line) == rows + 1);
    ++rows;
  }
  return rows;
}

bool has_temporary(const std::string& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (says(entry.path().filename().string(), ".tessera-tmp")) return true;
  }
  return false;
}

// Goes on to one epoch more than were done, and checks that all is whole.
void resume_and_check(const Workshop& w, const std::string& run_folder) {
  CAPTURE(run_folder);
  const int64_t done = epochs_in(run_folder);
  const Outcome outcome = run({"train", "--resume", run_folder, "--epochs", std::to_string(done + 1)}, w.here());
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  CHECK(epochs_in(run_folder) == done + 1);
  CHECK(!has_temporary(run_folder + "/weights"));
  CHECK(run({"inspect", "--model", run_folder + "/weights/best.safetensors"}).code == 0);
}

// The first bytes of what a program writes into the pipe that it takes for a file, and no more.
void read_a_little(const std::string& pipe) {
  const int reader = open(pipe.c_str(), O_RDONLY);
  char text[16];
  CHECK(read(reader, text, sizeof text) > 0);
  close(reader);
}

// A tmpfs of 8 MiB where that is allowed.
struct SmallDisk {
  std::string path;
  bool mounted = false;
  explicit SmallDisk(const std::string& p) : path(p) {
    fs::create_directories(path);
    mounted = mount("tmpfs", path.c_str(), "tmpfs", 0, "size=8m") == 0;
  }
  ~SmallDisk() {
    if (mounted) umount2(path.c_str(), MNT_DETACH);
  }
};

}  // namespace

TEST_CASE("cli: a run folder that cannot be written is exit code 6 before anything is trained") {
  const Workshop w;
  const std::string file = w.write("file", "mine");
  for (const std::string& project : {file + "/runs", std::string("/proc/runs")}) {
    CAPTURE(project);
    const Outcome outcome = refused(w.train("x", {"--project", project}), 6, {project, "cannot be created", "--project"}, w.here());
    CHECK(!says(outcome.err, "epoch 1/1"));
    refused({"predict", "--model", Workshop::trained(), "--source", w / "images/val", "--imgsz", "32", "--project", project}, 6,
            {project}, w.here());
    refused(
        {"val", "--model", Workshop::trained(), "--data", w / "data.yaml", "--imgsz", "32", "--save-json", "--project", project}, 6,
        {project}, w.here());
  }
  CHECK(content(file) == "mine");
  w.write("runs/x/weights", "mine");
  const Outcome outcome = refused(w.train("x", {"--exist-ok"}), 6, {w / "runs/x/weights", "Not a directory"}, w.here());
  CHECK(!says(outcome.err, "epoch 1/1"));
}

TEST_CASE("cli: results that stdout does not take are exit code 6") {
  for (const Arguments& arguments : {Arguments{"info", "--json"}, Arguments{"inspect"}, Arguments{"train", "--help"}}) {
    RunOptions options;
    options.out = "/dev/full";
    const Outcome outcome = run(arguments, options);
    CHECK(outcome.code == 6);
    CHECK(says(outcome.err, "No space left on device"));
  }
}

TEST_CASE("cli: a log that stderr does not take, or a closed stderr, costs the log and nothing else") {
  const Workshop w;
  for (const char* err : {"/dev/full", kClosed}) {
    CAPTURE(err);
    RunOptions options = w.here();
    options.err = err;
    const Outcome outcome = run(w.train("log", {"--exist-ok"}), options);
    CHECK(outcome.code == 0);
    CHECK(says(outcome.out, "box  mAP50-95"));
    CHECK(content(w / "runs/log/results.csv").starts_with("epoch,time,"));
    CHECK(run({"inspect", "--model", w / "runs/log/weights/last.safetensors"}).code == 0);
    CHECK(run({"train"}, options).code == 2);
  }
}

TEST_CASE("cli: a reader that goes away ends neither a training nor the saving of its state") {
  const Workshop w;
  RunOptions options = w.here();
  options.err = w / "log";
  REQUIRE(mkfifo(options.err.c_str(), 0666) == 0);
  Process process(w.train("tee", {"--epochs", "1000"}), options);
  read_a_little(options.err);  // as the tee of `2>&1 | tee log`, which the Ctrl-C of a terminal ends at once
  CHECK(process.wait_until([&] { return epochs_in(w / "runs/tee") >= 2; }));
  process.send(SIGINT);
  const Outcome outcome = process.finish();
  CHECK(outcome.signal == 0);
  CHECK(outcome.code == 7);
  resume_and_check(w, w / "runs/tee");

  // Results that nobody reads end the program as a shell expects of it: | head -1.
  fs::create_directory(w / "many");
  for (int i = 0; i < 500; ++i) fs::create_hard_link(w / "images/val/v0.png", w / fmt::format("many/{}.png", i));
  RunOptions piped = w.here();
  piped.out = w / "results";
  REQUIRE(mkfifo(piped.out.c_str(), 0666) == 0);
  Process predict({"predict", "--source", w / "many", "--imgsz", "640", "--no-save"}, piped);
  read_a_little(piped.out);
  const Outcome ended = predict.finish();
  CHECK(ended.signal == SIGPIPE);
  CHECK(!says(ended.err, "error"));
}

TEST_CASE("cli: one process at a time trains in a run folder") {
  const Workshop w;
  Process first(w.train("one", {"--epochs", "1000"}), w.here());
  CHECK(first.wait_until([&] { return says(first.err(), "epoch 1/"); }));
  const std::string run_folder = w / "runs/one";
  refused(w.train("one", {"--exist-ok"}), 2, {run_folder + ": another process is training", "another --name"}, w.here());
  refused({"train", "--resume", run_folder}, 2, {run_folder + ": another process is training"}, w.here());
  first.send(SIGKILL);
  first.finish();
  resume_and_check(w, run_folder);  // the lock has ended with it
}

TEST_CASE("cli: --resume takes the checkpoint's own name, also from within the run, and refuses one outside of a run") {
  const Workshop w;
  REQUIRE(run(w.train("r"), w.here()).code == 0);
  RunOptions inside = w.here();
  for (const auto& [folder, file, epochs] :
       {std::tuple{"runs/r/weights", "last.safetensors", "2"}, {"runs/r", "weights/last.safetensors", "3"}}) {
    inside.folder = w / folder;
    const Outcome outcome = run({"train", "--resume", file, "--epochs", epochs}, inside);
    INFO(outcome.err);
    CHECK(outcome.code == 0);
    CHECK(epochs_in(w / "runs/r") == std::stoll(epochs));
    CHECK(!fs::exists(w / "runs/r/weights/weights"));
  }
  fs::copy_file(w / "runs/r/weights/last.safetensors", w / "last.safetensors");
  refused({"train", "--resume", w / "last.safetensors", "--epochs", "4"}, 3, {w / "last.safetensors", "in no run folder"},
          w.here());
}

TEST_CASE("cli: a full disk is exit code 6, the old checkpoint stays and resumes") {
  const Workshop w;
  const Outcome first = run(w.train("full"), w.here());
  REQUIRE(first.code == 0);
  const std::string run_folder = w / "runs/full", last = run_folder + "/weights/last.safetensors";
  const std::string before = content(last);
  RunOptions options = w.here();
  options.file_limit = int64_t(before.size() / 2);
  refused({"train", "--resume", run_folder, "--epochs", "3"}, 6,
          {last + ": cannot write: File too large", "a file that was there before is intact"}, options);
  CHECK(content(last) == before);
  CHECK(!has_temporary(run_folder + "/weights"));
  CHECK(run({"inspect", "--model", last}).code == 0);
  resume_and_check(w, run_folder);

  const SmallDisk disk(w / "disk");
  if (!disk.mounted) {
    MESSAGE("skipped: a small disk cannot be mounted here");
    return;
  }
  const Outcome full = refused(w.train("small", {"--project", disk.path, "--epochs", "5"}), 6,
                               {disk.path, "the disk or the quota is full"}, w.here());
  CHECK(says(full.err, "epoch 1/5"));
  CHECK(run({"inspect", "--model", disk.path + "/small/weights/last.safetensors"}).code == 0);
  CHECK(!has_temporary(disk.path + "/small/weights"));
}

TEST_CASE("cli: killed at any moment, a run resumes or says that there is nothing to resume") {
  const Workshop w;
  int resumed = 0;
  // Before the first epoch, in an epoch, after a checkpoint, and while one is being written.
  const std::vector<std::pair<const char*, std::function<bool(const std::string&, const Process&)>>> moments = {
      {"begun", [](const std::string& f, const Process&) { return fs::exists(f); }},
      {"stepping", [](const std::string& f, const Process&) { return fs::exists(f + "/log.jsonl"); }},
      {"first save", [](const std::string& f, const Process&) { return has_temporary(f + "/weights"); }},
      {"saved", [](const std::string& f, const Process&) { return fs::exists(f + "/weights/last.safetensors"); }},
      {"best", [](const std::string& f, const Process&) { return fs::exists(f + "/weights/best.safetensors"); }},
      {"second", [](const std::string&, const Process& p) { return says(p.err(), "epoch 2/"); }},
      {"third", [](const std::string&, const Process& p) { return says(p.err(), "epoch 3/"); }},
      {"later save",
       [](const std::string& f, const Process& p) { return says(p.err(), "epoch 2/") && has_temporary(f + "/weights"); }},
  };
  for (const auto& [name, reached] : moments) {
    CAPTURE(name);
    const std::string run_folder = w / ("runs/" + std::string(name));
    Process process(w.train(name, {"--epochs", "1000"}), w.here());
    const bool in_time = process.wait_until([&, &reached = reached] { return reached(run_folder, process); });
    CHECK(in_time);
    process.send(SIGKILL);
    CHECK(process.finish().signal == SIGKILL);
    if (fs::exists(run_folder + "/weights/last.safetensors")) {
      CHECK(run({"inspect", "--model", run_folder + "/weights/last.safetensors"}).code == 0);
      resume_and_check(w, run_folder);
      ++resumed;
    } else {
      refused({"train", "--resume", run_folder}, 3, {run_folder + ": this run has no checkpoint yet", "start it again"}, w.here());
    }
  }
  CHECK(resumed >= 4);
}

TEST_CASE("cli: killed between two files of an epoch, or before the end's figures, a resume makes all that the run would have") {
  const Workshop w;
  const Arguments more = {"--epochs", "4", "--save-period", "1"};
  REQUIRE(run(w.train("whole", more), w.here()).code == 0);
  const std::vector<std::string> files = {"best", "last", "epoch0", "epoch1", "epoch2", "epoch3"};
  const std::vector<std::pair<const char*, std::function<bool(const std::string&)>>> moments = {
      {"a file of the epoch", [](const std::string& f) { return fs::exists(f + "/weights/epoch2.safetensors"); }},
      {"its best", [](const std::string& f) { return fs::exists(f + "/weights/best.safetensors"); }},
      {"the last epoch", [](const std::string& f) { return fs::exists(f + "/weights/epoch3.safetensors"); }},
  };
  for (const auto& [name, reached] : moments) {
    CAPTURE(name);
    const std::string run_folder = w / ("runs/" + std::string(name));
    Process process(w.train(name, more), w.here());
    process.wait_until([&, &reached = reached] { return reached(run_folder); });
    process.send(SIGKILL);
    if (process.finish().signal != SIGKILL) continue;  // it was quicker
    const bool begun = fs::exists(run_folder + "/weights/last.safetensors");
    const Outcome outcome = begun ? run({"train", "--resume", run_folder}, w.here())
                                  : run(w.train(name, {"--epochs", "4", "--save-period", "1", "--exist-ok"}), w.here());
    INFO(outcome.err);
    CHECK(outcome.code == 0);
    for (const std::string& file : files) {
      CAPTURE(file);
      CHECK(fs::exists(run_folder + "/weights/" + file + ".safetensors"));
    }
    CHECK(!has_temporary(run_folder + "/weights"));
    CHECK(Json::parse(content(run_folder + "/metrics.json"))["epoch"] == 4);
    const auto figures = [](const std::string& folder) { return Json::parse(content(folder + "/metrics.json"))["mask"]; };
    CHECK(figures(run_folder) == figures(w / "runs/whole"));
    refused({"train", "--resume", run_folder}, 2, {"the run is complete: 4 of 4 epochs", "larger --epochs"}, w.here());
  }
  // A run that patience ended is complete too.
  REQUIRE(run(w.train("patient", {"--epochs", "50", "--patience", "1", "--lr0", "0", "--optimizer", "SGD"}), w.here()).code == 0);
  refused({"train", "--resume", w / "runs/patient"}, 2,
          {"the run is complete: --patience 1 ended it after epoch", "larger --patience"}, w.here());
}

TEST_CASE("cli: killed in a validation, which may outlast everything else, a run keeps the epoch's training") {
  const Workshop w;
  for (int i = 2; i < 400; ++i) {
    for (const char* file : {"images/val/v{}.png", "labels/val/v{}.txt"})
      fs::create_hard_link(w / fmt::format(fmt::runtime(file), 0), w / fmt::format(fmt::runtime(file), i));
  }
  REQUIRE(run(w.train("whole", {"--epochs", "2"}), w.here()).code == 0);
  const std::string run_folder = w / "runs/killed";
  Process process(w.train("killed", {"--epochs", "2"}), w.here());
  CHECK(process.wait_until([&] { return fs::exists(run_folder + "/weights/last.safetensors"); }));
  process.send(SIGKILL);
  process.finish();
  CHECK(epochs_in(run_folder) == 0);
  const Outcome resumed = run({"train", "--resume", run_folder}, w.here());
  INFO(resumed.err);
  CHECK(resumed.code == 0);
  CHECK(says(resumed.err, "resuming at epoch 1, batch 3"));  // of 3
  CHECK(figures_in(run_folder) == figures_in(w / "runs/whole"));
}

TEST_CASE("cli: SIGINT, SIGTERM and SIGHUP finish the step, save, print the resume line and exit with 7") {
  const Workshop w;
  for (const auto& [number, moment] : {std::pair{SIGINT, "run folder "}, std::pair{SIGINT, "epoch 2/"},
                                       std::pair{SIGTERM, "epoch 1/"}, std::pair{SIGHUP, "epoch 1/"}}) {
    const std::string name = fmt::format("signal{}{}", number, moment[6]), run_folder = w / ("runs/" + name);
    CAPTURE(name);
    Process process(w.train(name, {"--epochs", "1000"}), w.here());
    const bool in_time = process.wait_until([&, part = moment] { return says(process.err(), part); });
    CHECK(in_time);
    process.send(number);
    const Outcome outcome = process.finish();
    INFO(outcome.err);
    CHECK(outcome.signal == 0);
    CHECK(outcome.code == 7);
    CHECK(says(outcome.err, "state saved. Go on with:\n  " TESSERA_PROGRAM " train --resume " + run_folder + "\n"));
    resume_and_check(w, run_folder);
  }
  // A lone --resume takes the newest run of the project, and --json reports what was measured: nothing, when no epoch was complete.
  Process process(w.train("json", {"--epochs", "1000", "--json"}), w.here());
  CHECK(process.wait_until([&] { return says(process.err(), "run folder "); }));
  process.send(SIGTERM);
  const Outcome outcome = process.finish();
  CHECK(outcome.code == 7);
  const Json j = outcome.json();
  REQUIRE(j.is_object());
  CHECK(j["run_dir"] == w / "runs/json");
  const Outcome resumed =
      run({"train", "--resume", "--project", w / "runs", "--epochs", std::to_string(int(j["epoch"]) + 1), "--json"}, w.here());
  INFO(resumed.err);
  CHECK(resumed.code == 0);
  CHECK(resumed.json()["run_dir"] == w / "runs/json");
  CHECK(resumed.json()["data"] == w / "data.yaml");
}

TEST_CASE("cli: predict that is interrupted leaves the results of the images before") {
  const Workshop w;
  fs::create_directory(w / "many");
  const fs::path image = fs::directory_iterator(w / "images/val")->path();
  for (int i = 0; i < 500; ++i) fs::create_hard_link(image, w / fmt::format("many/{}{}", i, image.extension().string()));
  Process process({"predict", "--source", w / "many", "--imgsz", "640", "--project", w / "runs", "--save-json", "--no-save"}, w.here());
  CHECK(process.wait_until([&] { return says(process.out(), "3/500"); }));
  process.send(SIGINT);
  const Outcome outcome = process.finish();
  INFO(outcome.err);
  CHECK(outcome.code == 7);
  const Json j = Json::parse(content(w / "runs/predict/predictions.json"));
  CHECK(j["interrupted"] == true);
  CHECK(j["images"] >= 3);
  CHECK(j["images"] == j["results"].size());
}

TEST_CASE("cli: a second SIGINT ends at once") {
  const Workshop w;
  // Steps long enough for a second signal to arrive within one.
  Process process(w.train("twice", {"--model", "yolov8n-seg", "--imgsz", "640", "--batch", "6", "--epochs", "1000"}), w.here());
  CHECK(process.wait_until([&] { return says(process.err(), "run folder "); }));
  process.send(SIGINT);
  CHECK(process.wait_until([&] { return says(process.err(), "Ctrl-C again: at once"); }));
  process.send(SIGINT);
  const Outcome outcome = process.finish();
  INFO(outcome.err);
  CHECK(outcome.signal == 0);
  CHECK(outcome.code == 7);
  CHECK(!says(outcome.err, "state saved"));
  CHECK(!fs::exists(w / "runs/twice/weights/last.safetensors"));
  // Verbs that have nothing to save end by the signal itself.
  Process bench({"bench", "step", "--imgsz", "640", "--runs", "1000"});
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  bench.send(SIGINT);
  CHECK(bench.finish().signal == SIGINT);
}

TEST_CASE("cli: a new run in the folder of an earlier one keeps its checkpoints aside, and is never mistaken for it") {
  const Workshop w;
  const std::string run_folder = w / "runs/again", weights = run_folder + "/weights/";
  REQUIRE(run(w.train("again", {"--epochs", "2"}), w.here()).code == 0);
  const std::string last = content(weights + "last.safetensors"), best = content(weights + "best.safetensors");
  // Steps so long that the first epoch does not end.
  Process process(w.train("again", {"--exist-ok", "--model", "yolov8n-seg", "--imgsz", "640", "--batch", "6", "--epochs", "1000"}),
                  w.here());
  CHECK(process.wait_until([&] { return says(process.err(), "; run folder "); }));
  process.send(SIGKILL);
  const Outcome killed = process.finish();
  CHECK(says(killed.err, "are kept previous_metrics.json, weights/previous_best.safetensors, weights/previous_last.safetensors"));
  CHECK(content(weights + "previous_last.safetensors") == last);
  CHECK(content(weights + "previous_best.safetensors") == best);
  CHECK(!fs::exists(run_folder + "/metrics.json"));
  refused({"train", "--resume", run_folder}, 3,
          {run_folder + ": this run has no checkpoint yet", "--resume " + weights + "previous_last.safetensors"}, w.here());
  // Begun once more, the older one is still there; and it can be gone on with.
  const Outcome third = run(w.train("again", {"--exist-ok"}), w.here());
  CHECK(third.code == 0);
  CHECK(content(weights + "previous_last.safetensors") == last);
  CHECK(content(weights + "last.safetensors") != last);
  const Outcome earlier = run({"train", "--resume", weights + "previous_last.safetensors", "--epochs", "3"}, w.here());
  INFO(earlier.err);
  CHECK(earlier.code == 0);
  CHECK(says(earlier.err, "epoch 3/3"));
}

TEST_CASE("cli: best weights that are gone or damaged are sought anew by a resume, and lost checkpoints are named") {
  const Workshop w;
  const std::string run_folder = w / "runs/lost", best = run_folder + "/weights/best.safetensors";
  REQUIRE(run(w.train("lost", {"--epochs", "2"}), w.here()).code == 0);
  REQUIRE(Json::parse(content(run_folder + "/metrics.json"))["best_value"] > 0);
  // From now on no epoch is as good as the first ones.
  for (int i = 0; i < 2; ++i) w.write(fmt::format("labels/val/v{}.txt", i), "0 0.9 0.9 0.95 0.9 0.9 0.95\n");
  fs::remove(best);
  for (const auto& [epochs, what] : {std::pair{"3", "cannot read"}, std::pair{"4", "too few for a safetensors file"}}) {
    const Outcome outcome = run({"train", "--resume", run_folder, "--epochs", epochs}, w.here());
    INFO(outcome.err);
    CHECK(outcome.code == 0);
    CHECK(says(outcome.err, "note: " + best + ": "));
    CHECK(says(outcome.err, what));
    CHECK(says(outcome.out, "epoch " + std::string(epochs) + ", best by fitness"));
    CHECK(run({"inspect", "--model", best}).code == 0);
    CHECK(Json::parse(content(run_folder + "/metrics.json"))["model"] == "yolov8n-seg");  // not the name of what is resumed
    w.write("runs/lost/weights/best.safetensors", "");
  }
  fs::remove(run_folder + "/weights/last.safetensors");
  refused({"train", "--resume", run_folder}, 3, {run_folder, "last.safetensors is not there", "--model " + best}, w.here());
}

TEST_CASE("cli: a run begun with a relative path is resumed from another folder with --data; --batch -1 keeps its batch") {
  const Workshop w;
  fs::create_directories(w / "below");
  RunOptions below = w.here();
  below.folder = fs::path(w / "below");
  REQUIRE(run(w.train("far", {"--data", "data.yaml"}), w.here()).code == 0);
  Arguments resume = {"train", "--resume", w / "runs/far", "--epochs", "2", "--batch", "-1"};
  refused(resume, 3, {"there is no data yaml 'data.yaml'", "--data"}, below);
  resume.insert(resume.end(), {"--data", w / "data.yaml"});
  const Outcome outcome = run(resume, below);
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  CHECK(says(outcome.err, "batch 2, 3 batches an epoch"));
}

TEST_CASE("cli: a resumed run finds its data in another place; other classes are refused, other images are told") {
  const Workshop w;
  REQUIRE(run(w.train("moved"), w.here()).code == 0);
  const std::string run_folder = w / "runs/moved";
  for (const char* part : {"images", "labels"}) {
    fs::create_directories(w / "elsewhere");
    fs::rename(w / part, w / ("elsewhere/" + std::string(part)));
  }
  refused({"train", "--resume", run_folder, "--epochs", "2"}, 3, {w / "data.yaml", "the images are not there"}, w.here());
  const auto yaml = [&](const std::string& names) {
    return w.write("elsewhere/data.yaml", "train: images/train\nval: images/val\nnames: " + names + "\n");
  };
  const auto resume = [&](const char* epochs) {
    return Arguments{"train", "--resume", run_folder, "--epochs", epochs, "--data", w / "elsewhere/data.yaml"};
  };
  yaml("[cat, dog, cow]");
  refused(resume("2"), 3, {"the checkpoint has 2 classes, the data 3"}, w.here());
  yaml("[dog, cat]");
  refused(resume("2"), 3, {"class 0 is 'dog' in the data and 'cat' in the checkpoint"}, w.here());
  yaml("[cat, hound]");
  const Outcome same = run(resume("2"), w.here());
  INFO(same.err);
  CHECK(same.code == 0);
  CHECK(says(same.err, "note: class 1 was called 'dog' and is 'hound' now"));
  CHECK(!says(same.err, "has changed"));
  w.write("elsewhere/labels/train/t3.txt", "0 0.1 0.1 0.9 0.1 0.9 0.9\n");
  const Outcome changed = run(resume("3"), w.here());
  INFO(changed.err);
  CHECK(changed.code == 0);
  CHECK(says(changed.err, "note: the training data has changed since (6 images then, 6 now)"));
  // From then on it is the run's data.
  CHECK(!says(run({"train", "--resume", run_folder, "--epochs", "4"}, w.here()).err, "has changed"));
}

TEST_CASE("cli: an image that goes bad while a run trains on it ends the run with its state saved") {
  const Workshop w;
  const std::string run_folder = w / "runs/gone";
  // Images of another run's folder, read anew for each sample.
  Process process(w.train("gone", {"--epochs", "1000"}), w.here());
  CHECK(process.wait_until([&] { return fs::exists(run_folder + "/args.yaml") || says(process.err(), "; run folder "); }));
  for (int i = 0; i < 2; ++i) w.write(fmt::format("images/val/v{}.png", i), "junk");
  const Outcome outcome = process.wait_until([&] { return says(process.err(), "epoch 2/"); }) ? Outcome{} : process.finish();
  if (outcome.code < 0) return;  // it had read them before
  INFO(outcome.err);
  CHECK(outcome.code == 3);
  CHECK(says(error_line(outcome), "images/val/v"));
  for (int i = 0; i < 2; ++i) w.write(fmt::format("images/val/v{}.png", i), image_png(48, 40));
  const Outcome resumed = run({"train", "--resume", run_folder, "--epochs", "1"}, w.here());
  INFO(resumed.err);
  CHECK(resumed.code == 0);
  CHECK(says(resumed.err, "resuming at epoch 1, batch 3"));
}
