// The argument table: where values come from, the forms they are written in, what is refused and with which words.
#include "yolo/config.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "tensor/base/check.h"
#include "tests/support/error_of.h"
#include "tests/support/temp_folder.h"
#include "yolo/config_values.h"
#include "yolo/original_arguments.h"

using namespace tessera;
using tessera::testing::error_of;
namespace fs = std::filesystem;

namespace {

struct YamlFile {
  testing::TempFolder folder;
  fs::path path;
  explicit YamlFile(std::string_view text) : path(folder.write("args.yaml", text)) {}
};

struct Environment {
  std::string name;
  Environment(std::string n, const char* value) : name(std::move(n)) { setenv(name.c_str(), value, 1); }
  ~Environment() { unsetenv(name.c_str()); }
};

Config parsed(const std::vector<std::string>& arguments, Verb verb = kTrain) {
  Config config(verb);
  config.read_arguments(arguments);
  return config;
}

Error refused(const std::vector<std::string>& arguments, Verb verb = kTrain) {
  return error_of([&] { parsed(arguments, verb); });
}

}  // namespace

TEST_CASE("config: a batch of -1 is for training, a lone --profile takes ten steps") {
  Config train(kTrain);
  train.read_arguments({"--batch", "-1", "--profile", "--imgsz=64"});
  CHECK(train.integer("batch") == -1);
  CHECK(train.integer("profile") == 10);
  CHECK(train.integer("imgsz") == 64);
  train.read_arguments({"--profile", "imgsz=96"});
  CHECK(train.integer("profile") == 10);
  CHECK(train.integer("imgsz") == 96);
  train.read_arguments({"--profile", "3"});
  CHECK(train.integer("profile") == 3);
  CHECK_THROWS_AS(train.read_arguments({"--batch", "-2"}), Error);
  CHECK_THROWS_AS(train.read_arguments({"--batch", "0"}), Error);
  CHECK_THROWS_AS(Config(kVal).read_arguments({"--batch", "-1"}), Error);
}

TEST_CASE("config: default < file < environment < command line, each with its origin") {
  const YamlFile file("epochs: 5\nbatch: 6\nimgsz: 64\n");
  const Environment batch("TESSERA_ARG_BATCH", "7"), size("TESSERA_ARG_IMGSZ", "96");
  Config config(kTrain);
  config.read_file(file.path);
  config.read_environment();
  config.read_arguments({"--imgsz", "128"});
  struct Row {
    const char* name;
    int64_t value;
    std::string origin;
    bool explicitly;
  };
  for (const Row& row : {Row{"nbs", 64, "default", false}, Row{"epochs", 5, file.path.string(), true},
                         Row{"batch", 7, "TESSERA_ARG_BATCH", true}, Row{"imgsz", 128, "command line", true}}) {
    CAPTURE(row.name);
    CHECK(config.integer(row.name) == row.value);
    CHECK(config.origin(row.name) == row.origin);
    CHECK(config.is_explicit(row.name) == row.explicitly);
    // --print-config shows the same.
    const std::string text = config.print();
    const size_t line = text.find(fmt::format("{:<18} {:<24} {}\n", row.name, row.value, row.origin));
    CHECK(line != std::string::npos);
  }
}

TEST_CASE("config: a whole number may be written as yaml writers put one that was computed") {
  const YamlFile file("epochs: 1.0\nimgsz: 64.0\nbatch: 1.6e1\nworkers: 0.0\n");
  Config config(kTrain);
  config.read_file(file.path);
  CHECK(config.integer("epochs") == 1);
  CHECK(config.integer("imgsz") == 64);
  CHECK(config.integer("batch") == 16);
  CHECK(config.integer("workers") == 0);
  CHECK(config.text("imgsz") == "64");  // as everybody else writes it, args.yaml of the run included
  config.set("batch", "-1.0", "test");
  CHECK(config.integer("batch") == -1);
  for (const char* wrong : {"64.5", "6.4e-1", "1e400", "1e16", "nan", "inf", "64.0x", "0.0"}) {
    CAPTURE(wrong);
    const YamlFile other(fmt::format("epochs: 3\nimgsz: {}\n", wrong));
    const Error e = error_of([&] { Config(kTrain).read_file(other.path); });
    CHECK(e.code() == ErrorCode::kUsage);
    CHECK(e.where().line == 2);
    CHECK(e.message().starts_with(fmt::format("imgsz={}: expected a whole number from", wrong)));
  }
}

TEST_CASE("config: the environment is read for the arguments of the verb; unknown names and bad values name the variable") {
  {
    const Environment other("TESSERA_ARG_SOURCE", "x.jpg");  // of predict
    Config config(kTrain);
    CHECK_NOTHROW(config.read_environment());
  }
  {
    const Environment wrong("TESSERA_ARG_EPOCS", "3");
    const Error e = error_of([] { Config(kTrain).read_environment(); });
    CHECK(e.code() == ErrorCode::kUsage);
    CHECK(e.message() == "TESSERA_ARG_EPOCS: unknown argument 'epocs'");
    CHECK(e.hint() == "did you mean --epochs?");
  }
  const Environment bad("TESSERA_ARG_EPOCHS", "many");
  const Error e = error_of([] { Config(kTrain).read_environment(); });
  CHECK(e.code() == ErrorCode::kUsage);
  CHECK(e.message() == "TESSERA_ARG_EPOCHS: epochs=many: expected a whole number from 1 to 1000000");
}

TEST_CASE("config: --a b, --a=b, a=b, with dashes or underscores, upper or lower case") {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{{"--close-mosaic", "3"},
                                                                                         {"--close_mosaic", "3"},
                                                                                         {"--close-mosaic=3"},
                                                                                         {"--close_mosaic=3"},
                                                                                         {"close-mosaic=3"},
                                                                                         {"close_mosaic=3"},
                                                                                         {"-close_mosaic", "3"},
                                                                                         {"--Close-Mosaic", "3"}}) {
    CAPTURE(arguments[0]);
    CHECK(parsed(arguments).integer("close_mosaic") == 3);
  }
  CHECK(parsed({"--save-period", "-1"}).integer("save_period") == -1);           // a negative value is no argument
  CHECK(parsed({"--source", "a=b.jpg"}, kPredict).text("source") == "a=b.jpg");  // nor is a word with an equals sign after a name
  CHECK(parsed({"source=a=b.jpg"}, kPredict).text("source") == "a=b.jpg");
  CHECK(parsed({"--epochs", "3", "--epochs", "4"}).integer("epochs") == 4);  // the last one counts
  CHECK(parsed({"--lr0", "1e-3"}).number("lr0") == 1e-3);
  CHECK(parsed({"project="}).text("project") == "runs/segment");  // empty: the default
  CHECK(parsed({"--epochs", ""}).integer("epochs") == 100);
  CHECK(!parsed({"--lr0", ""}).is_explicit("lr0"));  // or --optimizer auto would keep it
  CHECK(!parsed({"--lr0", "0.1", "--lr0", ""}).is_explicit("lr0"));
  CHECK(!parsed({}).is_set("resume"));
  CHECK(parsed({"--resume"}).text("resume") == "auto");
  CHECK(parsed({"--resume", "--epochs", "3"}).text("resume") == "auto");
  CHECK(parsed({"--resume", "runs/segment/train"}).text("resume") == "runs/segment/train");
  // Booleans of the original's tutorials, where a path may stand.
  CHECK(parsed({"resume=True"}).text("resume") == "auto");
  CHECK(!parsed({"resume=False"}).is_set("resume"));
  CHECK(!parsed({"pretrained=True"}).is_set("pretrained"));
  CHECK(parsed({"pretrained=False"}).text("pretrained") == "false");
  CHECK(parsed({"model=True"}).text("model") == "True");  // nothing but a name elsewhere
}

TEST_CASE("config: classes as a list of numbers, with or without brackets") {
  for (const char* text : {"0,2,5", "0 2 5", "0, 2, 5", "[0,2,5]", "[0, 2, 5]"}) {
    CAPTURE(text);
    CHECK(classes_of(parsed({"--classes", text})) == std::vector<int32_t>{0, 2, 5});
  }
  CHECK(classes_of(parsed({})).empty());
  for (const char* text : {"a", "0,,1", ",", "0;1", "[0", "0.5"}) {
    CAPTURE(text);
    const Error e = error_of([&] { classes_of(parsed({"--classes", text})); });
    CHECK(e.code() == ErrorCode::kUsage);
  }
}

TEST_CASE("config: booleans alone, with a value, and in every spelling") {
  struct Row {
    std::vector<std::string> arguments;
    bool value;
  };
  for (const Row& row : std::vector<Row>{{{"--cos-lr"}, true},
                                         {{"--cos-lr", "false"}, false},
                                         {{"--cos-lr", "--epochs", "3"}, true},
                                         {{"--cos-lr=True"}, true},
                                         {{"cos_lr=1"}, true},
                                         {{"cos_lr=YES"}, true},
                                         {{"cos_lr=on"}, true},
                                         {{"cos_lr=0"}, false},
                                         {{"cos_lr=No"}, false},
                                         {{"--cos-lr", "off"}, false}}) {
    CAPTURE(row.arguments[0]);
    CHECK(parsed(row.arguments).flag("cos_lr") == row.value);
  }
  CHECK(refused({"--cos-lr=maybe"}).message() == "cos_lr=maybe: expected true or false");
  for (const char* denied : {"--no-overlap-mask", "--no_overlap_mask", "--No-Overlap_Mask"}) {
    CHECK(!parsed({denied}).flag("overlap_mask"));
  }
}

TEST_CASE("config: numbers and choices out of range say what is allowed") {
  struct Row {
    const char *argument, *message;
  };
  for (const Row& row :
       {Row{"epochs=0", "epochs=0: expected a whole number from 1 to 1000000"},
        Row{"epochs=2.5", "epochs=2.5: expected a whole number from 1 to 1000000"},
        Row{"epochs=3x", "epochs=3x: expected a whole number from 1 to 1000000"},
        Row{"epochs=99999999999999999999", "epochs=99999999999999999999: expected a whole number from 1 to 1000000"},
        Row{"imgsz=16", "imgsz=16: expected a whole number from 32 to 8192"},
        Row{"lr0=-0.1", "lr0=-0.1: expected a number from 0 to 1"}, Row{"lr0=nan", "lr0=nan: expected a number from 0 to 1"},
        Row{"perspective=0.01", "perspective=0.01: expected a number from 0 to 0.001"},
        Row{"box=inf", "box=inf: expected a number of at least 0"}, Row{"box=1e999", "box=1e999: expected a number of at least 0"},
        Row{"optimizer=Lion", "optimizer=Lion: expected one of: auto SGD Adam AdamW"},
        Row{"precision=int8", "precision=int8: expected one of: fp32 bf16 fp16"}}) {
    CAPTURE(row.argument);
    const Error e = refused({row.argument});
    CHECK(e.code() == ErrorCode::kUsage);
    CHECK(e.message() == row.message);
  }
  CHECK(parsed({"optimizer=sgd"}).text("optimizer") == "SGD");  // choices come back as they are written in the table
  CHECK(parsed({"cache=None"}).text("cache") == "false");
  CHECK(parsed({"lr0=0"}).number("lr0") == 0);  // both ends belong to the range
  CHECK(parsed({"lr0=1"}).number("lr0") == 1);
  CHECK(refused({"--epochs"}).what() == std::string("--epochs needs a value (a whole number from 1 to 1000000)"));
  CHECK(refused({"--epochs", "--batch", "3"}).code() == ErrorCode::kUsage);
  CHECK(refused({"coco128-seg.yaml"}).message() == "'coco128-seg.yaml' is not an argument");
}

TEST_CASE("config: an unknown name suggests the nearest of the verb, or the list") {
  struct Row {
    const char *given, *hint;
  };
  for (const Row& row : {Row{"--epohcs", "did you mean --epochs?"}, Row{"--img-size", "did you mean --imgsz?"},
                         Row{"--batchsize", "did you mean --batch?"}, Row{"--lr", "did you mean --lr0?"},
                         Row{"--close-mosiac", "did you mean --close-mosaic?"}, Row{"--zzzzzzzzzz", "--help lists them all"}}) {
    CAPTURE(row.given);
    const Error e = refused({row.given, "3"});
    CHECK(e.code() == ErrorCode::kUsage);
    CHECK(e.message() == fmt::format("unknown argument '{}'", std::string(row.given).substr(2)));
    CHECK(e.hint() == row.hint);
  }
  CHECK(refused({"--epochs", "3"}, kPredict).message() == "this verb takes no argument 'epochs'");
  const std::string_view verbs[] = {"train", "val"};
  CHECK(nearest_name("trian", verbs) == "train");
  CHECK(nearest_name("download", verbs) == std::nullopt);
}

TEST_CASE("config: what is wrong in a file is named with line and column") {
  struct Row {
    const char* text;
    ErrorCode code;
    int64_t line, column;
    const char* message;
  };
  for (const Row& row :
       {Row{"epochs: 3\nepocs: 4\n", ErrorCode::kUsage, 2, 1, "unknown argument 'epocs'"},
        Row{"# run\n\n  epochs: none\n", ErrorCode::kUsage, 3, 3, "epochs=none: expected a whole number from 1 to 1000000"},
        Row{"epocs:\n", ErrorCode::kUsage, 1, 1, "unknown argument 'epocs'"},
        Row{"classes: {0: 2}\n", ErrorCode::kData, 1, 10, "'classes' must be a single value or a list"},
        Row{"epochs: 3\n\tbatch: 4\n", ErrorCode::kData, 2, 1, nullptr}, Row{"epochs: [3\n", ErrorCode::kData, 2, 1, nullptr},
        Row{"{a: b}: 3\n", ErrorCode::kData, 1, 1, "a name must be plain text"},
        Row{"- epochs\n", ErrorCode::kData, 0, 0, "this is not a file of arguments"},
        Row{"epochs\n", ErrorCode::kData, 0, 0, "this is not a file of arguments"}}) {
    CAPTURE(row.text);
    const YamlFile file(row.text);
    const Error e = error_of([&] { Config(kTrain).read_file(file.path); });
    CHECK(e.code() == row.code);
    CHECK(e.where().file == file.path.string());
    CHECK(e.where().line == row.line);
    CHECK(e.where().column == row.column);
    if (row.message != nullptr) CHECK(e.message() == row.message);
    CHECK(std::string(e.what()).find('\n') == std::string::npos);
  }
  const YamlFile deep(std::string(100000, '['));
  CHECK(error_of([&] { Config(kTrain).read_file(deep.path); }).code() == ErrorCode::kData);
  CHECK(error_of([] { Config(kTrain).read_file("/nowhere/args.yaml"); }).code() == ErrorCode::kData);
  CHECK(error_of([] { Config(kTrain).read_file(fs::temp_directory_path()); }).code() == ErrorCode::kData);  // a folder
}

TEST_CASE("config: args.yaml re-runs the run") {
  const Config config =
      parsed({"--data", "my data.yaml", "--name", "null", "--classes", "0,2", "--lr0=0.005", "--optimizer", "adamw", "--plots=off",
              "--project", "run: 'a' # \"b\"", "--device", "0", "--epochs", "7", "--resume", "x"});
  const YamlFile file(config.to_yaml());
  Config back(kTrain);
  back.read_file(file.path);
  for (const std::string& name : config.names()) {
    if (name == "resume" || name == "cfg" || name == "print_config") continue;
    CAPTURE(name);
    CHECK(back.text(name) == config.text(name));
  }
  CHECK(!back.is_set("resume"));
  // What was a default stays one: the automatic choice of lr0, say, depends on it.
  CHECK(!back.is_explicit("momentum"));
  CHECK(back.is_explicit("lr0"));
  const YamlFile nothing(parsed({}).to_yaml());
  CHECK_NOTHROW(back.read_file(nothing.path));
}

namespace {

// As a run of the original writes its args.yaml: every argument, with these values in place of its defaults.
std::string original_file(const std::map<std::string, std::string>& values) {
  std::string text;
  for (const OriginalArgument& a : original_arguments()) {
    if (a.name == "label_smoothing") break;  // the rest is of other versions
    const auto given = values.find(std::string(a.name));
    std::string value = given != values.end() ? given->second : std::string(a.fallback.substr(0, a.fallback.find('|')));
    if (value == "true") value = "True";
    if (value == "*") value = "runs/segment/train";
    text += fmt::format("{}: {}\n", a.name, value.empty() ? "null" : value);
  }
  return text;
}

}  // namespace

TEST_CASE("config: a file of the original is read; its defaults count as not given") {
  const YamlFile file(original_file({{"model", "yolov8s-seg.pt"},
                                     {"task", "segment"},
                                     {"data", "my.yaml"},
                                     {"epochs", "50"},
                                     {"momentum", "0.9"},
                                     {"classes", "[0, 2]"},
                                     {"freeze", "\n- 9"},
                                     {"device", "[0, 1]"},
                                     {"save_dir", "runs/segment/train2"},
                                     {"erasing", "0.2"},
                                     {"tracker", "bytetrack.yaml"},
                                     {"time", "~"},
                                     {"cache", "disk"},
                                     {"show", "true"}}));
  Config c(kTrain);
  c.read_file(file.path);
  CHECK(c.text("model") == "yolov8s-seg.pt");
  CHECK(c.integer("epochs") == 50);
  CHECK(classes_of(c) == std::vector<int32_t>{0, 2});
  CHECK(frozen_layers_of(c) == std::vector<int32_t>{9});
  CHECK(c.text("cache") == "disk");
  CHECK(device_of(c, 1, 2) == Device::cuda(1));
  // Automatic choices stay: 0.01 is only its default, 0.9 is not.
  CHECK(!c.is_explicit("lr0"));
  CHECK(c.is_explicit("momentum"));
  CHECK(c.integer("workers") == 2);
  CHECK(c.text("precision") == "fp32");
  const std::vector<std::string> notes = c.notes();
  REQUIRE(notes.size() == 2);
  CHECK(notes[0] == fmt::format("note: left out of {}, without meaning here: show: True, erasing: 0.2, tracker: bytetrack.yaml",
                                file.path.string()));
  CHECK(notes[1].find("amp: true") != std::string::npos);
  c.set("device", "cpu", "test");
  CHECK(c.notes().size() == 1);  // there the original trains in fp32 too

  // Its default.yaml, whose task is another and which names no model; every verb takes it.
  const YamlFile defaults(original_file({}));
  for (const Verb verb : {kTrain, kVal, kPredict, kExport, kBench}) {
    Config d(verb);
    CHECK_NOTHROW(d.read_file(defaults.path));
    for (const std::string& name : d.names()) {
      CAPTURE(name);
      CHECK(!d.is_explicit(name));
    }
    CHECK(d.notes().empty());
  }
  // Ours gives what it gives.
  const YamlFile own("lr0: 0.01\n");
  Config mine(kTrain);
  mine.read_file(own.path);
  CHECK(mine.is_explicit("lr0"));
}

TEST_CASE("config: what a file of the original asks for and is not there is an error with a remedy") {
  struct Row {
    Verb verb;
    std::map<std::string, std::string> values;
    const char *message, *hint;
  };
  for (const Row& row :
       {Row{kTrain,
            {{"model", "yolov8n.pt"}},
            "task=detect: an argument of the original that is not taken here",
            "this program is for segmentation"},
        Row{kTrain, {{"task", "pose"}}, "task: pose asks for something that is not there", "this program is for segmentation"},
        Row{kTrain, {{"augment", "true"}}, "augment=True: expected one of: cpu cuda", "test-time augmentation"},
        Row{kVal, {{"augment", "true"}}, "augment: True asks for something that is not there", "test-time augmentation"},
        Row{kVal, {{"half", "true"}}, "half: True asks for something that is not there", "--precision"},
        Row{kExport, {{"int8", "true"}}, "int8: True asks for something that is not there", "8 bits"},
        Row{kPredict, {{"embed", "[9]"}}, "embed: [9] asks for something that is not there", "embeddings"}}) {
    CAPTURE(row.message);
    const YamlFile file(original_file(row.values));
    const Error e = error_of([&] { Config(row.verb).read_file(file.path); });
    CHECK(e.code() == ErrorCode::kUsage);
    CHECK(e.message() == row.message);
    CHECK(e.hint().find(row.hint) != std::string::npos);
    CHECK(e.where().line > 0);
  }
}

TEST_CASE("config: arguments that only the original has, on the command line") {
  CHECK_NOTHROW(parsed({"task=segment", "--deterministic", "verbose=True", "--pretrained", "True", "dnn=False"}));
  CHECK(parsed({"--deterministic", "epochs=7"}).integer("epochs") == 7);
  CHECK(parsed({"--verbose", "true", "--epochs", "7"}).integer("epochs") == 7);
  for (const char* amp : {"amp=true", "amp=False", "--amp"}) {
    CAPTURE(amp);
    const Error e = refused({amp});
    CHECK(e.code() == ErrorCode::kUsage);
    CHECK(e.message().find("an argument of the original that is not taken here") != std::string::npos);
    CHECK(e.hint().find("--precision bf16 or fp16") != std::string::npos);
  }
  CHECK(refused({"deterministic=False"}).hint().find("runs repeat their bits") != std::string::npos);
  CHECK(refused({"label_smoothing=0.1"}).hint().find("without effect") != std::string::npos);
  CHECK(refused({"determinstic=True"}).message() == "unknown argument 'determinstic'");
  // Another verb's: said as before.
  CHECK(refused({"epochs=3"}, kVal).message() == "this verb takes no argument 'epochs'");
}

TEST_CASE("config: arguments of the original that no verb takes say what to do instead") {
  for (const OriginalArgument& a : original_arguments()) {
    CAPTURE(a.name);
    CHECK((find_option(a.name) != nullptr || !a.instead.empty()));
    CHECK(find_original(a.name) == &a);  // named once
    if (!a.now.empty()) CHECK(find_original(a.now) != nullptr);
  }
  CHECK(renamed(*find_original("hide_labels"), "True").value == "false");
  CHECK(renamed(*find_original("line_thickness"), "2").value == "2");
  CHECK(is_one_of_values("0.0", "0"));
  CHECK(is_one_of_values("False", "no"));
  CHECK(!is_one_of_values("0.1", "0"));
  CHECK(is_one_of_values("4", "|4"));
}

TEST_CASE("config: every option has a help line of its verb, a legal default and a name in one spelling") {
  for (const OptionSpec& o : option_specs()) {
    CAPTURE(o.name);
    CHECK(normalize_option_name(o.name) == o.name);
    CHECK(find_option(o.name, o.verbs) == &o);  // no name stands twice for a verb
    CHECK(!o.help.empty());
    for (const Verb verb : {kTrain, kVal, kPredict, kExport, kInspect, kBench, kSelftest, kInfo}) {
      if (!(o.verbs & verb)) continue;
      Config config(verb);
      if (!o.fallback.empty()) CHECK_NOTHROW(config.set(o.name, o.fallback, "test"));
      std::string shown = "--" + std::string(o.name);
      std::replace(shown.begin(), shown.end(), '_', '-');
      CHECK(verb_help(verb, "x", "", "").find(shown) != std::string::npos);
    }
  }
}
