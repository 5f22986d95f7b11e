#include "tools/verbs/error_report.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "tensor/base/standard_streams.h"

namespace tessera {

int report_error(const Error& e, bool json) {
  const int code = int(e.code());
  if (json) {
    nlohmann::json error = {{"code", code}, {"message", e.message()}};
    if (!e.where().file.empty()) error["file"] = e.where().file;
    if (e.where().line > 0) error["line"] = e.where().line;
    if (e.where().column > 0) error["column"] = e.where().column;
    if (!e.hint().empty()) error["hint"] = e.hint();
    fmt::print("{}\n", nlohmann::json{{"error", error}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  print_stderr("error: {}\n", e.what());
  if (e.code() == ErrorCode::kBug) {
    print_stderr("This is a bug in Tessera. Please report the line above, the command and the output of 'tessera info'.\n");
  }
  return code;
}

}  // namespace tessera
