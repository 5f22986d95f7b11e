// How the program answers its command line: help, mistyped and illegal arguments, precedence, what is not there.
#include "tests/cli/workshop.h"

using namespace tessera::test;

TEST_CASE("cli: every verb has a help with examples; without a verb the overview and exit code 2") {
  for (const char* verb : {"train", "val", "predict", "export", "inspect", "bench", "download", "completion", "man", "selftest", "info"}) {
    CAPTURE(verb);
    for (const Arguments& arguments : {Arguments{verb, "--help"}, Arguments{verb, "--imgsz", "wrong", "-h"}}) {
      const Outcome outcome = run(arguments);
      CHECK(outcome.code == 0);
      CHECK(says(outcome.out, "\nExamples:\n  "));
      CHECK(says(outcome.out, "Usage: tessera "));
      CHECK(outcome.err.empty());
    }
  }
  for (const char* name : {"train_seg", "val_seg", "predict_seg", "export_seg"}) {
    RunOptions options;
    options.name = name;
    const std::string verb = std::string(name).substr(0, std::string_view(name).find('_'));
    CHECK(run({"--help"}, options).out == run({verb, "--help"}).out);
  }
  const Outcome alone = run({});
  CHECK(alone.code == 2);
  CHECK(says(alone.out, "Verbs:\n  train"));
  CHECK(run({"--help"}).code == 0);
  CHECK(run({"--version"}).out.starts_with("tessera "));
}

TEST_CASE("cli: mistyped names and illegal values are exit code 2 with what was meant") {
  const Workshop w;
  struct Row {
    Arguments arguments;
    std::vector<std::string> parts;
  };
  const std::string data = w / "data.yaml";
  for (const Row& row : std::vector<Row>{
           {{"trian"}, {"unknown verb 'trian'", "did you mean train?"}},
           {{"fly"}, {"unknown verb 'fly'", "known: train, val, predict"}},
           {{"train", "--epocs", "3"}, {"unknown argument 'epocs'", "did you mean --epochs?"}},
           {{"train", "imgz=64"}, {"unknown argument 'imgz'", "did you mean --imgsz?"}},
           {{"predict", "--epochs", "3"}, {"this verb takes no argument 'epochs'"}},
           {{"train", "--data", data, "--imgsz", "100"}, {"imgsz=100 is not a multiple of 32", "the next one is 128"}},
           {{"train", "--data", data, "--device", "cuda"}, {"device 'cuda' is not there", "use --device cpu"}},
           {{"train", "--data", data, "--conv", "own,model.0=fast"}, {"'model.0=fast' is not a choice of kernels", "direct"}},
           {{"selftest", "--conv", "cudnn"}, {"--conv cudnn", "use --conv own"}},
           {{"inspect", "--imgsz", "100"}, {"imgsz=100 is not a multiple of 32", "the next one is 128"}},
           {{"train", "--data", data, "--device", "0,1"},
            {"device '0,1' names 2 devices for 1 process", "mpirun -n 2 train_seg --device 0,1"}},
           {{"predict", "--device", "7", "--source", "x.jpg"}, {"device '7' is not there"}},
           {{"train"}, {"--data is missing"}},
           {{"predict"}, {"--source is missing"}},
           {{"train", "--data"}, {"--data needs a value (data yaml: a path"}},
           {{"train", "--", "data.yaml"}, {"'--' is not an argument", "--name value"}},
           {{"train", "data.yaml"}, {"'data.yaml' is not an argument", "--name value"}},
           {{"train", "--data", data, "--model", "yolov9n-seg"}, {"there is no model 'yolov9n-seg'", "yolov8n-seg"}},
           {{"train", "--data", data, "--classes", "0,7"}, {"7 is not in this data set", "ids run from 0 to 1"}},
           {{"train", "--data", data, "--fraction", "0"}, {"fraction", "above 0"}},
           {{"train", "--data", data, "--optimizer", "AdamW", "--momentum", "1"}, {"momentum=1", "below 1"}},
           {{"train", "--data", data, "--imgsz", "32", "--name", ".."},
            {"--name '..' is not the name of a folder", "leave --name out"}},
           {{"train", "--data", data, "--imgsz", "32", "--name", "trials/./"}, {"--name 'trials/./' is not the name"}},
           {{"val", "--data", data}, {"no weights to validate", ".safetensors"}},
           {{"val", "--gt", "x.json"}, {"--gt and --predictions belong together"}},
           {{"train", "--resume", "--project", w / "none"}, {"no weights/last.safetensors below", "--resume runs/segment/train"}},
       }) {
    CAPTURE(row.parts[0]);
    refused(row.arguments, 2, row.parts, w.here());
  }
  // The allowed range stands in the message itself.
  for (const auto& [argument, range] :
       {std::pair{"epochs=0", "a whole number from 1 to 1000000"}, std::pair{"lr0=nan", "a number from 0 to 1"},
        std::pair{"batch=-5", "a whole number from 1 to 65536"}, std::pair{"conf=2", "a number from 0 to 1"},
        std::pair{"box=inf", "a number of at least 0"}, std::pair{"optimizer=Lion", "auto SGD Adam AdamW"}}) {
    const bool of_val = std::string_view(argument).starts_with("conf");
    const Outcome outcome = run({of_val ? "val" : "train", "--data", data, argument}, w.here());
    CHECK(outcome.code == 2);
    CHECK(outcome.err == fmt::format("error: {}: expected {}{}\n", argument, says(range, "auto") ? "one of: " : "", range));
  }
  CHECK(!fs::exists(w / "runs"));  // nothing was begun
}

TEST_CASE("cli: default < file < environment < command line, shown with origins") {
  const Workshop w;
  const std::string file = w.write("run.yaml", "epochs: 5\nbatch: 6\nimgsz: 64\n");
  RunOptions options = w.here();
  options.environment = {"TESSERA_ARG_BATCH=7", "TESSERA_ARG_IMGSZ=96"};
  const Outcome outcome = run({"train", "--cfg", file, "--imgsz=128", "--print-config"}, options);
  CHECK(outcome.code == 0);
  for (const std::string& line :
       {fmt::format("{:<18} {:<24} {}\n", "nbs", 64, "default"), fmt::format("{:<18} {:<24} {}\n", "epochs", 5, file),
        fmt::format("{:<18} {:<24} {}\n", "batch", 7, "TESSERA_ARG_BATCH"),
        fmt::format("{:<18} {:<24} {}\n", "imgsz", 128, "command line")}) {
    CHECK(says(outcome.out, line));
  }
  w.write("run.yaml", "epochs: 5\n  batch: [\n");
  refused({"train", "--cfg", file}, 3, {file + ":2:", "not valid yaml"}, w.here());
  w.write("run.yaml", "epochs: 5\nepocs: 6\n");
  refused({"train", "--cfg", file}, 2, {file + ":2:1: unknown argument 'epocs'", "did you mean --epochs?"}, w.here());
  refused({"train", "--cfg", w / "nowhere.yaml"}, 3, {w / "nowhere.yaml"}, w.here());
  options.environment = {"TESSERA_ARG_EPOCS=3"};
  refused({"train"}, 2, {"TESSERA_ARG_EPOCS", "did you mean --epochs?"}, options);
}

TEST_CASE("cli: a file of the original: what is left out is noted, what is not there refused, with the place") {
  const Workshop w;
  const std::string kept = "task: segment\nmode: train\ndata: nowhere.yaml\nepochs: 2\namp: true\nlr0: 0.01\n";
  const std::string file = w.write("args.yaml", kept + "erasing: 0.2\nint8: false\nsave_dir: runs/segment/train\n");
  const Outcome outcome = run({"train", "--cfg", file}, w.here());
  CHECK(outcome.code == 3);  // the data is not there; what comes before is what counts
  CHECK(says(outcome.err, fmt::format("note: left out of {}, without meaning here: erasing: 0.2\n", file)));
  w.write("args.yaml", kept + "half: true\n");
  refused({"val", "--cfg", file}, 2, {file + ":7:1: half: true asks for something that is not there", "--precision"}, w.here());
  refused({"train", "amp=True"}, 2, {"amp=True: an argument of the original", "--precision bf16 or fp16"}, w.here());
  refused({"predict", "--embed", "5"}, 2, {"embed=5: an argument of the original", "remove it"}, w.here());
}

TEST_CASE("cli: weights to start from belong to the network that is named, or bring theirs") {
  const Workshop w;
  const std::string& weights = Workshop::trained();
  const Outcome alone = run({"train", "--data", w / "data.yaml", "--pretrained", weights, "--imgsz", "32", "--epochs", "1", "--val",
                             "false", "--plots", "false", "--project", w / "runs"},
                            w.here());
  INFO(alone.err);
  CHECK(alone.code == 0);
  CHECK(says(alone.err, "weights: transferred 417/417 entries"));
  CHECK(says(alone.err, ": 246334 parameters"));
  const Outcome both = run(w.train("both", {"--model", "yolov8n-seg", "--pretrained", weights}), w.here());
  INFO(both.err);
  CHECK(both.code == 0);
  CHECK(says(both.err, "differ in shape (model.0.conv.weight: file [8, 3, 3, 3], model [16, 3, 3, 3]"));
  CHECK(says(both.err, "yolov8n-seg: 3264006 parameters"));  // the one that was asked for
  CHECK(run(w.train("true", {"pretrained=True", "resume=False"}), w.here()).code == 0);
  CHECK(run(w.train("false", {"pretrained=False"}), w.here()).code == 0);
  refused(w.train("x", {"--model", weights, "--pretrained", "false"}), 2, {weights + " holds weights", "yolov8n-seg"}, w.here());
  refused(w.train("x", {"--model", weights, "--pretrained", weights + "x.pt"}), 2, {weights + " holds weights too"}, w.here());
  refused(w.train("x", {"--pretrained", "yolov8s-seg"}), 2, {"yolov8s-seg: this is no file of weights"}, w.here());
}

TEST_CASE("cli: val, predict and export take what the training of the model says where nothing is given") {
  const Workshop w;
  const auto ends = [&](const Arguments& arguments, const RunOptions& from) {
    const Outcome o = run(arguments, from);
    INFO(described(arguments, o));
    CHECK(o.code == 0);
    return o;
  };
  ends(w.train("one", {"--single-cls"}), w.here());
  const std::string weights = w / "runs/one/weights/best.safetensors";
  const Outcome val = ends({"val", "--model", weights, "--json"}, w.here());
  CHECK(says(val.err, fmt::format("as in the training of {}: --imgsz 32 --data {} --single-cls true\n", weights, w / "data.yaml")));
  CHECK(val.json()["data"] == w / "data.yaml");
  CHECK(val.json()["classes"][0]["name"] == "item");
  const Outcome given =
      ends({"val", "--model", weights, "--json", "--data", w / "data.yaml", "--single-cls", "--imgsz", "32"}, w.here());
  CHECK(!says(given.err, "as in the training"));
  for (const char* part : {"box", "mask", "classes"}) CHECK(given.json()[part] == val.json()[part]);
  // Its data are sought as they were named.
  RunOptions elsewhere = w.here();
  elsewhere.folder = "/";
  ends(w.train("near", {"--data", "data.yaml"}), w.here());
  refused({"val", "--model", w / "runs/near/weights/best.safetensors"}, 3, {"there is no data yaml 'data.yaml'"}, elsewhere);

  const auto found = [&](const Arguments& more) {
    Arguments all = {"predict", "--model", Workshop::trained(), "--source", w / "images/val", "--conf", "0", "--no-save", "--json"};
    all.insert(all.end(), more.begin(), more.end());
    const Json results = ends(all, w.here()).json()["results"];
    Json detections = Json::array();
    for (const Json& image : results) detections.push_back(image["detections"]);
    return detections;
  };
  const Json by_default = found({});
  CHECK(by_default == found({"--imgsz", "32"}));
  CHECK(by_default != found({"--imgsz", "64"}));

  if (std::string(run({"info", "--json"}).json().value("onnx", "")).starts_with("not in this build")) return;
  CHECK(ends({"export", "--model", Workshop::trained(), "--output", "x.onnx", "--json"}, w.here()).json()["imgsz"] == Json{32, 32});
}

TEST_CASE("cli: masks of any ratio, as index maps and as planes") {
  const Workshop w;
  for (const char* ratio : {"1", "2", "3", "32"}) {
    for (const char* overlap : {"true", "false"}) {
      CAPTURE(ratio);
      CHECK(run(w.train("m", {"--mask-ratio", ratio, "--overlap-mask", overlap}), w.here()).code == 0);
    }
  }
}

TEST_CASE("cli: a request beyond the memory is exit code 4, not a crash") {
  RunOptions options;
  options.environment = {"ASAN_OPTIONS=allocator_may_return_null=1", "TSAN_OPTIONS=allocator_may_return_null=1"};
  const Outcome outcome = run({"bench", "infer", "--imgsz", "8192", "--batch", "65536"}, options);
  CHECK(outcome.code == 4);
  CHECK(error_line(outcome).starts_with("error: "));
}
