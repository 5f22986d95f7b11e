// Shell completion and the manual: they hold every verb and every argument that --help shows, and real shells complete with them.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <regex>
#include <set>

#include "tests/cli/program.h"

using namespace tessera::test;

namespace {

using Words = std::vector<std::string>;

Words lines_of(const std::string& text) {
  Words lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

Words matches(const std::string& text, const char* pattern) {
  const std::regex form(pattern);
  Words found;
  for (const std::string& line : lines_of(text)) {
    std::smatch m;
    if (std::regex_search(line, m, form)) found.push_back(m[1]);
  }
  return found;
}

bool holds(const Words& words, const std::string& word) { return std::find(words.begin(), words.end(), word) != words.end(); }

// The program's own tables, as its help shows them: what each verb takes.
const std::map<std::string, Words>& arguments_of_verbs() {
  static const std::map<std::string, Words> all = [] {
    std::map<std::string, Words> by_verb;
    for (const std::string& verb : matches(run({"--help"}).out, "^  ([a-z]+) +[A-Z]")) {
      by_verb[verb] = matches(run({verb, "--help"}).out, "^  --([a-z0-9-]+) ");
    }
    return by_verb;
  }();
  return all;
}

std::string script_of(const char* shell) {
  const Outcome outcome = run({"completion", shell});
  CHECK(outcome.code == 0);
  CHECK(outcome.err.empty());
  return outcome.out;
}

const Words kNames = {"tessera", "train_seg", "val_seg", "predict_seg", "export_seg"};

}  // namespace

TEST_CASE("cli: completion of every shell and the manual hold every verb and every argument of it") {
  const std::string bash = script_of("bash"), zsh = script_of("zsh"), fish = script_of("fish"), man = run({"man"}).out;
  REQUIRE(arguments_of_verbs().size() == 13);
  std::string unhyphenated = man;
  for (size_t at = 0; (at = unhyphenated.find("\\-", at)) != std::string::npos;) unhyphenated.erase(at, 1);
  const auto some_line = [](const std::string& text, const std::regex& form) {
    const Words lines = lines_of(text);
    return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) { return std::regex_search(line, form); });
  };
  size_t arguments = 0;
  for (const auto& [verb, names] : arguments_of_verbs()) {
    CAPTURE(verb);
    CHECK(some_line(bash, std::regex("^_tessera_verbs='.*\\b" + verb + "\\b")));
    CHECK(some_line(zsh, std::regex("^ +'" + verb + ":")));
    CHECK(some_line(fish, std::regex("-a " + verb + " -d ")));
    CHECK(says(man, "\n\\fB" + verb + "\\fR\n"));
    for (const std::string& name : names) {
      CAPTURE(name);
      ++arguments;
      CHECK(some_line(bash, std::regex("[ |]" + verb + ":" + name + "[|)]")));
      CHECK(some_line(zsh, std::regex("\\((.*\\|)?" + verb + "(\\|.*)?\\) .*'--" + name + "=")));
      CHECK(some_line(fish, std::regex("'__tessera_verb (.* )?" + verb + "( .*)?' -l " + name + " ")));
      const std::regex entry("\\.TP\n\\\\fB--" + name + "\\\\fR .*\n.*\\((.*, )?(" + verb + "|every verb)(, .*)?\\)\n");
      CHECK(std::regex_search(unhyphenated, entry));
    }
  }
  CHECK(arguments > 250);
  for (const std::string& name : kNames) {
    CHECK(some_line(bash, std::regex("^complete -F _tessera .*\\b" + name + "\\b")));
    CHECK(some_line(zsh, std::regex("^#compdef .*\\b" + name + "\\b")));
    CHECK(some_line(fish, std::regex("^for program in .*\\b" + name + "\\b")));
    CHECK(fs::exists(fs::path(TESSERA_PROGRAM).parent_path() / name));
  }
  CHECK(run({"completion", "--json", "zsh"}).code == 2);  // the shell comes first, or by its name
  CHECK(run({"completion", "zsh", "--json"}).json()["script"] == zsh);
  CHECK(run({"completion", "--shell", "fish"}).out == fish);
  CHECK(run({"man", "--json"}).json()["page"] == man);
  refused({"completion"}, 2, {"for which shell?", "tessera completion bash"});
  const Outcome other = run({"completion", "csh"});
  CHECK(other.code == 2);
  CHECK(says(other.err, "shell=csh: expected one of: bash zsh fish"));
}

TEST_CASE("cli: bash completes verbs, arguments and values, for each name of the program") {
  if (!there_is("bash")) {
    MESSAGE("skipped: no bash");
    return;
  }
  const Folder f;
  f.write("script", script_of("bash"));
  f.write("with blank.json", ""), f.write("w.json", ""), f.write("folder/x", "");
  f.write("driver",
          "source ./script\n"
          "COMP_WORDS=(\"$@\") COMP_CWORD=$(( $# - 1 ))\n"
          "$(complete -p \"${1##*/}\" | sed 's/.* -F \\([^ ]*\\) .*/\\1/')\n"
          "printf '%s\\n' \"${COMPREPLY[@]}\"\n");
  const auto completed = [&](const Words& words) {
    std::string command = "bash ./driver";
    for (const std::string& w : words) command += " '" + w + "'";
    Words replies = lines_of(shell(f, command).out);
    if (replies == Words{""}) replies.clear();
    std::sort(replies.begin(), replies.end());
    return replies;
  };
  for (const auto& [verb, names] : arguments_of_verbs()) {
    CAPTURE(verb);
    CHECK(holds(completed({"tessera", ""}), verb));
    const Words offered = completed({"tessera", verb, "--"});
    for (const std::string& name : names) CHECK_MESSAGE(holds(offered, "--" + name), name);
    const std::string further = verb + "_seg";
    if (holds(kNames, further)) CHECK(completed({"bin/" + further, "--"}) == offered);
  }
  struct Row {
    Words words, replies;
  };
  for (const Row& row : std::vector<Row>{
           {{"tessera", "tr"}, {"train"}},
           {{"/usr/bin/tessera", "train", "--optimizer", ""}, {"Adam", "AdamW", "SGD", "auto"}},
           {{"tessera", "train", "--optimizer", "=", "A"}, {"Adam", "AdamW"}},
           {{"tessera", "train", "--optimizer", "="}, {"Adam", "AdamW", "SGD", "auto"}},
           {{"train_seg", "--optimizer=S"}, {"--optimizer=SGD"}},  // where '=' parts no words
           {{"train_seg", "precision", "=", "b"}, {"bf16"}},
           {{"train_seg", "--copy_paste_mode", "f"}, {"flip"}},
           {{"train_seg", "--close_mo"}, {"--close-mosaic"}},
           {{"train_seg", "--no-pl"}, {"--no-plots"}},
           {{"train_seg", "ep"}, {"epochs="}},
           {{"train_seg", "--epochs", ""}, {}},
           {{"train_seg", "--plots", "f"}, {"false", "flipud=", "fliplr=", "fraction=", "freeze="}},
           {{"tessera", "bench", "st"}, {"step"}},
           {{"tessera", "completion", ""}, {"bash", "fish", "zsh"}},
           {{"tessera", "val", "--gt", "w"}, {"w.json", "with blank.json"}},
           {{"val_seg", "--data-root", ""}, {"folder"}},
           {{"val_seg", "--model", "y"}, {"yolov8l-seg", "yolov8m-seg", "yolov8n-seg", "yolov8s-seg", "yolov8x-seg"}},
           {{"val_seg", "--model", "w.j"}, {"w.json"}},
           {{"tessera", "download", "--model", "yolov8x"}, {"yolov8x-seg.pt"}},
           {{"tessera", "info", "--epo"}, {}},
           {{"tessera", "no_such_verb", "x"}, {}},
       }) {
    CAPTURE(fmt::format("{}", row.words.back()));
    Words expected = row.replies, offered = completed(row.words);
    std::sort(expected.begin(), expected.end());
    // A first word may be a name too, and so may a word after a boolean.
    if (row.words[1] == "bench" || row.words[1] == "completion")
      std::erase_if(offered, [](const std::string& w) { return w.starts_with("--"); });
    CHECK(offered == expected);
  }
}

TEST_CASE("cli: zsh, fish and groff read what is written for them") {
  const Folder f;
  f.write("_tessera", script_of("zsh")), f.write("tessera.fish", script_of("fish")), f.write("tessera.1", run({"man"}).out);
  const auto fine = [&](const std::string& program, const std::string& command) {
    if (!there_is(program)) {
      MESSAGE("skipped: no " << program);
      return;
    }
    const Shell result = shell(f, command);
    INFO(result.out);
    CHECK(result.code == 0);
    CHECK(result.out.empty());
  };
  fine("zsh", "zsh -f -n _tessera");
  fine("fish", "fish -N -n tessera.fish");
  fine("groff", "groff -man -ww -z -Tutf8 tessera.1");
  if (there_is("fish")) {
    const auto completed = [&](const std::string& line) {
      return shell(f, "fish -N -c 'source tessera.fish; complete -C \"" + line + "\"'").out;
    };
    CHECK(says(completed("tessera "), "train\t"));
    CHECK(says(completed("tessera train --optimizer "), "AdamW"));
    CHECK(says(completed("train_seg --close"), "--close-mosaic"));
    CHECK_FALSE(says(completed("val_seg --close"), "--close-mosaic"));
    CHECK(says(completed("tessera bench "), "loader"));
  }
}

TEST_CASE("cli: what is installed runs from its place, with completion and manual where they are looked for") {
  const Folder f;
  const Shell result =
      shell(f, fmt::format("'{}' --install '{}' --prefix '{}' --component program", TESSERA_CMAKE, TESSERA_BINARY_DIR, f / "usr"));
  INFO(result.out);
  REQUIRE(result.code == 0);
  for (const std::string& name : kNames) {
    CAPTURE(name);
    CHECK(says(shell(f, "usr/bin/" + name + " --help").out, "Example"));
    CHECK(content(f / ("usr/share/bash-completion/completions/" + name)) == script_of("bash"));
    CHECK(content(f / ("usr/share/fish/vendor_completions.d/" + name + ".fish")) == script_of("fish"));
    CHECK(content(f / ("usr/share/man/man1/" + name + ".1")) == run({"man"}).out);
  }
  CHECK(content(f / "usr/share/zsh/site-functions/_tessera") == script_of("zsh"));
}
