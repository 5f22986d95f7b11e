#include "tools/verbs/error_report.h"

#include <cstdio>

#include "tensor/base/standard_streams.h"
#include "tools/verbs/json_text.h"

namespace tessera {

int report_error(const Error& e, bool json) {
  const int code = int(e.code());
  if (json) {
    nlohmann::ordered_json error = {{"code", code}, {"message", e.message()}};
    if (!e.where().file.empty()) error["file"] = e.where().file;
    if (e.where().line > 0) error["line"] = e.where().line;
    if (e.where().column > 0) error["column"] = e.where().column;
    if (!e.hint().empty()) error["hint"] = e.hint();
    print_json({{"error", error}});
  }
  print_stderr("error: {}\n", e.what());
  if (e.code() == ErrorCode::kBug) {
    print_stderr("This is a bug in Tessera. Please report the line above, the command and the output of 'tessera info'.\n");
  }
  return code;
}

}  // namespace tessera
