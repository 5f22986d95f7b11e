// Runs the real program as a user does: in a folder of its own, with stdout, stderr, exit code and a time limit.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/support/temp_folder.h"

namespace tessera::test {

namespace fs = std::filesystem;
using Json = nlohmann::json;

inline std::string content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// A temporary folder with names as strings, as a command line takes them.
class Folder {
 public:
  const fs::path& path() const { return folder_.path(); }
  std::string operator/(std::string_view name) const { return (folder_ / name).string(); }
  std::string write(std::string_view name, std::string_view text) const { return folder_.write(name, text).string(); }

 private:
  testing::TempFolder folder_;
};

struct Outcome {
  int code = -1;      // exit code; -1 when a signal ended the program
  int signal = 0;     // that ended it
  bool late = false;  // the time limit ended it
  std::string out, err;

  Json json() const { return Json::parse(out, nullptr, false); }  // of stdout
};

using Arguments = std::vector<std::string>;

constexpr const char* kClosed = "closed";

struct RunOptions {
  fs::path folder = "/";                 // where it runs
  std::vector<std::string> environment;  // NAME=value, above the test's own
  int64_t file_limit = -1;               // ulimit -f in bytes
  std::string out;                       // a file instead of captured stdout
  std::string err;                       // the same for stderr; kClosed: none at all
  double limit_s = 600;                  // generous: sanitizers and busy machines
  std::string name;                      // argv[0], the program's other names
};

// A started program. Destroying it kills it.
class Process {
 public:
  Process(const Arguments& arguments, const RunOptions& options = {}) : options_(options) {
    // Everything is made before the fork: after it only calls that are safe there.
    const fs::path program = TESSERA_PROGRAM;
    const std::string path = options.name.empty() ? program.string() : (program.parent_path() / options.name).string();
    std::vector<std::string> words = {path};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<std::string> settings = options.environment;
    for (char** e = environ; *e != nullptr; ++e) {
      // Settings of the machine must not reach the program under test.
      if (std::strncmp(*e, "TESSERA_ARG_", 12) != 0 && std::strncmp(*e, "TESSERA_DATA=", 13) != 0) settings.emplace_back(*e);
    }
    const auto pointers = [](std::vector<std::string>& v) {
      std::vector<char*> p;
      for (std::string& s : v) p.push_back(s.data());
      p.push_back(nullptr);
      return p;
    };
    std::vector<char*> argv = pointers(words), envp = pointers(settings);
    const std::string out = options.out.empty() ? captured_ / "out" : options.out,
                      err = options.err.empty() || options.err == kClosed ? captured_ / "err" : options.err;
    child_ = fork();
    if (child_ != 0) return;
    const int o = open(out.c_str(), O_WRONLY | O_CREAT, 0666), e = open(err.c_str(), O_WRONLY | O_CREAT, 0666);
    dup2(o, 1);
    dup2(e, 2);
    if (options.err == kClosed) close(2);
    if (options.file_limit >= 0) {
      const rlimit limit = {rlim_t(options.file_limit), rlim_t(options.file_limit)};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    if (o < 0 || e < 0 || chdir(options.folder.c_str()) != 0) _exit(127);
    execve(path.c_str(), argv.data(), envp.data());
    _exit(127);
  }
  ~Process() {
    if (!done_) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void send(int number) const { kill(child_, number); }
  pid_t id() const { return child_; }
  std::string out() const { return content(captured_ / "out"); }
  std::string err() const { return content(captured_ / "err"); }

  // Until `ready` holds; false when the program ended before, or the limit passed.
  bool wait_until(const std::function<bool()>& ready) {
    while (!ready()) {
      if (ended() || late()) return ready();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  Outcome finish() {
    Outcome result;
    while (!ended()) {
      if (late() && !result.late) {
        result.late = true;
        send(SIGKILL);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (WIFEXITED(status_)) result.code = WEXITSTATUS(status_);
    if (WIFSIGNALED(status_)) result.signal = WTERMSIG(status_);
    result.out = options_.out.empty() ? out() : std::string();
    result.err = err();
    // A finding of a sanitizer counts whatever the exit code, also after a kill.
    for (const char* finding : {"Sanitizer:", "runtime error:"}) {
      if (result.err.find(finding) != std::string::npos) FAIL_CHECK(result.err);
    }
    return result;
  }

 private:
  bool ended() {
    if (!done_) done_ = waitpid(child_, &status_, WNOHANG) == child_;
    return done_;
  }
  bool late() const { return std::chrono::steady_clock::now() > start_ + std::chrono::duration<double>(options_.limit_s); }

  RunOptions options_;
  Folder captured_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  pid_t child_ = -1;
  int status_ = 0;
  bool done_ = false;
};

// For the report of a failed check.
inline std::string described(const Arguments& arguments, const Outcome& outcome) {
  std::string text = "tessera";
  for (const std::string& a : arguments) text += " " + a;
  return text + "\n--- stdout\n" + outcome.out + "--- stderr\n" + outcome.err;
}

inline Outcome run(const Arguments& arguments, const RunOptions& options = {}) {
  Process process(arguments, options);
  Outcome outcome = process.finish();
  INFO(described(arguments, outcome));
  CHECK_FALSE(outcome.late);
  CHECK(outcome.signal == 0);
  return outcome;
}

inline bool there_is(const std::string& command) {
  return std::system(("command -v '" + command + "' >/dev/null 2>&1").c_str()) == 0;
}

struct Shell {
  int code;
  std::string out;
};

// What a command line prints, stderr included.
inline Shell shell(const Folder& folder, const std::string& command) {
  const std::string out = folder / ".out";
  const int status = std::system(fmt::format("cd '{}' && {{ {} ; }} >'{}' 2>&1", folder.path().string(), command, out).c_str());
  return {WEXITSTATUS(status), content(out)};
}

inline bool says(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

// The one line about a failure: "error: file:line:column: what (remedy)". Nothing else may follow it.
inline std::string error_line(const Outcome& outcome) {
  std::string text = outcome.err;
  if (text.ends_with('\n')) text.pop_back();
  const size_t at = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
  return text.substr(at);
}

// Runs and expects a failure that is told in one sentence: exit code, then parts of the line (file, place, remedy).
inline Outcome refused(const Arguments& arguments, int code, const std::vector<std::string>& parts,
                       const RunOptions& options = {}) {
  const Outcome outcome = run(arguments, options);
  INFO(described(arguments, outcome));
  CHECK(outcome.code == code);
  const std::string line = error_line(outcome);
  CHECK(line.starts_with("error: "));
  CHECK(line.ends_with(")"));  // the remedy
  for (const std::string& part : parts) {
    CAPTURE(part);
    CHECK(says(line, part));
  }
  return outcome;
}

}  // namespace tessera::test
