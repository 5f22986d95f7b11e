// What a run leaves of one that was in its folder before.
#include <set>

#include "tests/cli/workshop.h"

using namespace tessera::test;

namespace {

using Names = std::set<std::string>;

Names files_of(const fs::path& folder) {
  Names names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) names.insert(entry.path().lexically_relative(folder).string());
  }
  return names;
}

}  // namespace

TEST_CASE("cli: a training in a used folder leaves no results of the earlier one that look like its own") {
  const Workshop w;
  const Names bare = {"args.yaml", "images.csv", "log.jsonl", "metrics.json", "report.html", "results.csv"};
  const std::string folder = w / "runs/again";
  REQUIRE(run(w.train("again", {"--epochs", "2", "--plots", "true", "--save-period", "1", "--profile", "1", "--tensorboard"}), w.here()).code == 0);
  for (const char* name : {"train_batch0.png", "labels.png", "results.png", "profile.csv", "val_batch0_labels.png",
                           "val_batch0_pred.png", "confusion_matrix.png", "confusion_matrix_normalized.png", "BoxPR_curve.png",
                           "MaskF1_curve.png", "worst_images.png", "weights/epoch1.safetensors"}) {
    CAPTURE(name);
    CHECK(fs::exists(fs::path(folder) / name));
  }
  w.write("runs/again/notes.txt", "mine");
  w.write("runs/again/predictions.json", "[]");
  const Outcome second = run(w.train("again", {"--exist-ok", "--save", "false"}), w.here());
  INFO(second.err);
  CHECK(second.code == 0);
  CHECK(says(second.err,
             "are kept previous_metrics.json, weights/previous_best.safetensors, weights/previous_epoch0.safetensors, "
             "weights/previous_epoch1.safetensors, weights/previous_last.safetensors"));
  Names expected = bare;
  expected.insert({"notes.txt", "previous_metrics.json", "weights/previous_best.safetensors", "weights/previous_epoch0.safetensors",
                   "weights/previous_epoch1.safetensors", "weights/previous_last.safetensors"});
  CHECK(files_of(folder) == expected);
  CHECK(!run(w.train("again", {"--exist-ok", "--save", "false", "--json"}), w.here()).json().contains("weights"));
  // Runs without a checkpoint do not push out the one that has some; the next that has does, whole.
  CHECK(files_of(folder) == expected);
  REQUIRE(run(w.train("again", {"--exist-ok"}), w.here()).code == 0);
  REQUIRE(run(w.train("again", {"--exist-ok", "--save", "false"}), w.here()).code == 0);
  for (const char* name : {"weights/previous_epoch0.safetensors", "weights/previous_epoch1.safetensors"}) expected.erase(name);
  CHECK(files_of(folder) == expected);
}

TEST_CASE("cli: a validation in a used folder leaves no results of the earlier one that look like its own") {
  const Workshop w;
  const std::string folder = w / "runs/val";
  const auto val = [&](const Arguments& more) {
    Arguments all = {"val",     "--model", Workshop::trained(), "--data",   w / "data.yaml",
                     "--imgsz", "32",      "--project",         w / "runs", "--exist-ok"};
    all.insert(all.end(), more.begin(), more.end());
    const Outcome outcome = run(all, w.here());
    CHECK(outcome.code == 0);
    return outcome.err;
  };
  val({"--plots", "--save-json", "--save-txt", "--conf", "0", "--max-det", "3"});
  const Names all = files_of(folder);
  for (const char* name : {"val_batch0_pred.png", "BoxR_curve.png", "worst_images.png", "predictions.json", "labels/v0.txt"})
    CHECK(all.contains(name));
  CHECK(says(val({"--plots", "false", "--save-json"}), "are kept previous_labels"));
  const Names few = {"images.csv", "metrics.json", "predictions.json", "report.html", "previous_labels/v0.txt", "previous_labels/v1.txt"};
  CHECK(files_of(folder) == few);
  val({"--plots"});
  CHECK(!fs::exists(folder + "/predictions.json"));
  // Labels that no validation has left are not touched: the folder may be that of a data set.
  w.write("runs/data/labels/v0.txt", kGoodRow);
  w.write("runs/data/metrics.json", "no validation's");
  val({"--plots", "--name", "data"});
  CHECK(content(w / "runs/data/labels/v0.txt") == kGoodRow);
}

TEST_CASE("cli: predict in a used folder replaces by name, and leaves no predictions.json of another run") {
  const Workshop w;
  const auto predict = [&](const Arguments& more) {
    Arguments all = {"predict", "--model",   Workshop::trained(), "--imgsz",    "32",         "--max-det",
                     "3",       "--project", w / "runs",          "--exist-ok", "--save-txt", "--save-crop"};
    all.insert(all.end(), more.begin(), more.end());
    CHECK(run(all, w.here()).code == 0);
    return files_of(w / "runs/predict");
  };
  const Names all = predict({"--source", w / "images/val", "--conf", "0", "--save-json"});
  const auto crops = [](const Names& names) {
    return std::count_if(names.begin(), names.end(), [](const std::string& name) { return name.starts_with("crops/"); });
  };
  CHECK(all.contains("predictions.json"));
  CHECK(crops(all) >= 2);
  // Nothing is as certain as that: v0 is without objects now, v1 as it was.
  const Names again = predict({"--source", w / "images/val/v0.png", "--conf", "1"});
  CHECK(!again.contains("predictions.json"));
  CHECK(!again.contains("labels/v0.txt"));
  CHECK(again.contains("labels/v1.txt"));
  for (const std::string& name : again) CHECK(!name.ends_with("/v0.jpg"));
  CHECK(crops(again) >= 1);
}

TEST_CASE("cli: a name may hold folders, and what is no folder takes a number as a run does") {
  const Workshop w;
  for (const char* name : {"trials/a", "trials/a/"}) REQUIRE(run(w.train(name), w.here()).code == 0);
  CHECK(fs::exists(w / "runs/trials/a/metrics.json"));
  CHECK(fs::exists(w / "runs/trials/a2/metrics.json"));
  // A lone --resume finds the newest of them.
  w.write("runs/old/weights/last.safetensors", "older");
  fs::last_write_time(w / "runs/old/weights/last.safetensors", fs::file_time_type::clock::now() - std::chrono::hours(1));
  const Outcome more = run({"train", "--project", w / "runs", "--resume", "--epochs", "2"}, w.here());
  CHECK(says(more.err, "trials/a2"));
  CHECK(more.code == 0);
  w.write("runs/taken", "a file");
  fs::create_symlink("nowhere", w / "runs/taken2");
  REQUIRE(run(w.train("taken"), w.here()).code == 0);
  CHECK(fs::exists(w / "runs/taken3/metrics.json"));
  CHECK(content(w / "runs/taken") == "a file");
  refused(w.train("taken", {"--exist-ok"}), 6, {"taken", "cannot be created"}, w.here());
}

TEST_CASE("cli: --resume takes a run by its folder, its weights folder or its checkpoint, from wherever it is named") {
  const Workshop w;
  REQUIRE(run(w.train("a"), w.here()).code == 0);
  RunOptions inside = w.here();
  inside.folder = fs::path(w / "runs/a/weights");
  int epochs = 1;
  const auto resumes_with = [&](Arguments arguments, const RunOptions& from) {
    CAPTURE(arguments);
    arguments.insert(arguments.begin(), "train");
    for (const std::string& more : {std::string("--epochs"), std::to_string(++epochs)}) arguments.push_back(more);
    const Outcome o = run(arguments, from);
    INFO(o.err);
    CHECK(o.code == 0);
    CHECK(Json::parse(content(w / "runs/a/metrics.json"))["epoch"] == epochs);
  };
  const auto resumes = [&](const std::string& run_of, const RunOptions& from) { resumes_with({"--resume", run_of}, from); };
  for (const char* name : {"runs/a", "runs/a/", "runs/a/weights", "runs/a/weights/last.safetensors"}) resumes(name, w.here());
  for (const char* name : {"last.safetensors", "./last.safetensors", ".", "..", "../weights/last.safetensors"})
    resumes(name, inside);
  // A lone --resume seeks below --project, however that is spelled, and beside --model means that run.
  resumes_with({"--resume", "--project", "../../../runs"}, inside);
  resumes_with({"resume=True", "model=runs/a/weights/last.safetensors"}, w.here());
  resumes_with({"--resume", w / "runs/a", "--model", "runs/a/weights/last.safetensors", "--exist-ok"}, w.here());
  refused({"train", "--resume", "--model", "runs/a/weights/best.safetensors"}, 3, {"best.safetensors", "weights only"}, w.here());
  refused({"train", "--resume", "runs/a", "--project", "elsewhere"}, 2, {"--project cannot change in a resumed run"}, w.here());
  fs::create_directories(w / "other");
  fs::copy_file(w / "runs/a/weights/last.safetensors", w / "other/last.safetensors");
  refused({"train", "--resume", "./other/last.safetensors"}, 3, {"lies in no run folder"}, w.here());
}
