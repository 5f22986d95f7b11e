// Errors: one exception type that carries what a user needs (what, where, remedy) and the exit code of the program.
// TESSERA_CHECK states an expectation at an entry point; a failed one without a code is a bug report (exit code 1).
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace tessera {

// Values are the exit codes of the program (docs/cli.md).
enum class ErrorCode : int {
  kBug = 1,          // our mistake: please report
  kUsage = 2,        // unknown argument or value out of range
  kData = 3,         // a data or model file
  kMemory = 4,       // not enough memory, or the plan exceeds the budget
  kNonFinite = 5,    // training became NaN or infinite and could not go on
  kIo = 6,           // reading or writing failed
  kInterrupted = 7,  // stopped by a signal, state saved
};

// Place in a user's file. line and column count from 1; 0 means unknown.
struct FileLocation {
  std::string file;
  int64_t line = 0;
  int64_t column = 0;
};

class Error : public std::runtime_error {
 public:
  // what() reads "file:line:column: message (hint)"; parts that are absent are left out.
  Error(ErrorCode code, std::string message, FileLocation where = {}, std::string hint = {});

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }  // without place and hint
  const FileLocation& where() const { return where_; }
  const std::string& hint() const { return hint_; }

 private:
  ErrorCode code_;
  std::string message_;
  FileLocation where_;
  std::string hint_;
};

namespace detail {
[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& message);
}

}  // namespace tessera

// TESSERA_CHECK(cond, "conv2d: input has {} channels, filter expects {}", c, i);
#define TESSERA_CHECK(condition, ...)                                                                 \
  do {                                                                                                \
    if (!(condition)) [[unlikely]]                                                                    \
      ::tessera::detail::check_failed(#condition, __FILE__, __LINE__, ::fmt::format(__VA_ARGS__));    \
  } while (false)

#ifdef NDEBUG
#define TESSERA_DCHECK(condition, ...) \
  do {                                 \
  } while (false)
#else
#define TESSERA_DCHECK(...) TESSERA_CHECK(__VA_ARGS__)
#endif
