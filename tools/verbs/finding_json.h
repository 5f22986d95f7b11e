// Findings about a user's data as lines for people and editors, and as JSON.
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/finding.h"
#include "tensor/base/one_line.h"

namespace tessera {

// "file:line:column: warning: what (remedy) [code]"
inline std::string line_of(const Finding& f) {
  std::string place = f.where.file;
  if (f.where.line > 0) place += fmt::format(":{}", f.where.line);
  if (f.where.line > 0 && f.where.column > 0) place += fmt::format(":{}", f.where.column);
  return one_line(fmt::format("{}: {}: {}{} [{}]", place, f.severity == Severity::kWarning ? "warning" : "note", f.message,
                              f.hint.empty() ? "" : " (" + f.hint + ")", f.code));
}

inline nlohmann::ordered_json findings_json(const std::vector<Finding>& findings) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Finding& f : findings) {
    nlohmann::ordered_json j = {
        {"code", f.code}, {"severity", f.severity == Severity::kWarning ? "warning" : "note"}, {"message", f.message}};
    if (!f.where.file.empty()) j["file"] = f.where.file;
    if (f.where.line > 0) j["line"] = f.where.line;
    if (f.where.column > 0) j["column"] = f.where.column;
    if (!f.hint.empty()) j["hint"] = f.hint;
    list.push_back(std::move(j));
  }
  return list;
}

}  // namespace tessera
