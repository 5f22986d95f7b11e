#include "tensor/base/check.h"

#include <utility>

#include "tensor/base/one_line.h"

namespace tessera {

namespace {
std::string describe(const std::string& message, const FileLocation& where, const std::string& hint) {
  std::string text;
  if (!where.file.empty()) {
    text += where.file;
    if (where.line > 0) text += fmt::format(":{}", where.line);
    if (where.line > 0 && where.column > 0) text += fmt::format(":{}", where.column);
    text += ": ";
  }
  text += message;
  if (!hint.empty()) text += fmt::format(" ({})", hint);
  return one_line(std::move(text));
}
}  // namespace

Error::Error(ErrorCode code, std::string message, FileLocation where, std::string hint)
    : std::runtime_error(describe(message, where, hint)),
      code_(code),
      message_(std::move(message)),
      where_(std::move(where)),
      hint_(std::move(hint)) {}

namespace detail {
void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  throw Error(ErrorCode::kBug, fmt::format("{} [{} failed at {}:{}]", message, condition, file, line));
}
}  // namespace detail

}  // namespace tessera
