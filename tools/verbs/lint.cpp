#include "data/lint.h"

#include <cstdio>

#include "tensor/base/standard_streams.h"
#include "tools/verbs/finding_json.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/split_progress.h"
#include "tools/verbs/verbs.h"

namespace tessera {

namespace {

// In the form that editors and CI services take apart: file:line:column: warning: what (remedy) [code].
void print(const std::vector<Finding>& findings) {
  for (const Finding& f : findings) fmt::print("{}\n", line_of(f));
}

nlohmann::ordered_json summary_json(const LintSplit& s) {
  return {{"split", s.name},
          {"images", s.scan.images.size()},
          {"background", s.scan.missing + s.scan.empty},
          {"objects", s.scan.objects},
          {"left_out", s.scan.left_out},
          {"dropped_rows", s.scan.dropped_rows},
          {"orphan_labels", s.scan.orphan_labels},
          {"fixed", s.fixed},
          {"findings", findings_json(s.scan.findings)}};
}

}  // namespace

int run_lint(const Config& config) {
  const LogStyle log = prepare(config);
  if (!config.is_set("data")) {
    throw Error(ErrorCode::kUsage, "--data is missing", {}, "give a data yaml: --data my-set/data.yaml");
  }
  if (config.text("data") == "shapes") {
    throw Error(ErrorCode::kUsage, "the embedded set 'shapes' has no files to check", {},
                "give a data yaml: --data my-set/data.yaml");
  }
  const std::string split = config.is_explicit("split") ? config.text("split") : "";
  SplitProgress progress(log);
  const LintReport report =
      lint_dataset(config.text("data"), split, config.flag("fix"), config.text("data_root"),
                   [&](const std::string& what, int64_t done, int64_t total) { progress.update(what, done, total); });
  const int64_t warnings = report.warnings();
  const int code = warnings > 0 ? int(ErrorCode::kData) : 0;
  if (config.flag("json")) {
    nlohmann::ordered_json j = {
        {"command", "lint"}, {"data", config.text("data")}, {"warnings", warnings}, {"findings", findings_json(report.findings)}};
    j["splits"] = nlohmann::ordered_json::array();
    for (const LintSplit& s : report.splits) j["splits"].push_back(summary_json(s));
    j["classes"] = nlohmann::ordered_json::array();
    for (size_t i = 0; i < report.names.size(); ++i)
      j["classes"].push_back({{"name", report.names[i]}, {"objects", report.objects_of_class[i]}});
    print_json(j);
    return code;
  }
  print(report.findings);
  for (const LintSplit& s : report.splits) print(s.scan.findings);
  for (const LintSplit& s : report.splits) {
    fmt::print("{}: {}\n", s.name, summary(s.scan));
    if (!s.fixed.empty())
      fmt::print("{}: {} label files rewritten; the former ones are beside them as *.txt.orig\n", s.name, s.fixed.size());
  }
  fmt::print("{}\n", warnings == 0 ? "nothing to correct"
                                   : fmt::format("{} warnings; --fix rewrites label files without bad rows", warnings));
  return code;
}

}  // namespace tessera
