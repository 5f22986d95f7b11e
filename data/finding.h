// One observation about a user's data: what, where, what to do. The label scan and the linter speak in these.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/base/check.h"

namespace tessera {

enum class Severity {
  kNote,     // nothing is lost
  kWarning,  // a row or an image is left out; an error under the strict policy
};

struct Finding {
  Severity severity = Severity::kWarning;
  std::string code;  // short and stable, e.g. "row-nan"; listed in data/yolo_txt.h
  FileLocation where;
  std::string message;
  std::string hint;
};

// "file:line:column: message (hint) [code]"
inline std::string to_string(const Finding& f) {
  return std::string(Error(ErrorCode::kData, f.message, f.where, f.hint).what()) + " [" + f.code + "]";
}

}  // namespace tessera
