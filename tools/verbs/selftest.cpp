#include <cstdio>

#include "tensor/base/check.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/verbs.h"
#include "yolo/train/self_test.h"

namespace tessera {

int run_selftest(const Config& config) {
  prepare(config);
  const std::vector<SelfTestCheck> checks = run_self_test(uint64_t(config.integer("seed")));
  bool ok = true;
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const SelfTestCheck& c : checks) {
    ok = ok && c.ok;
    list.push_back({{"name", c.name}, {"ok", c.ok}, {"detail", c.detail}});
    if (!config.flag("json")) fmt::print("{}  {}{}\n", c.ok ? "ok    " : "FAILED", c.name, c.detail.empty() ? "" : ": " + c.detail);
  }
  if (config.flag("json")) print_json({{"command", "selftest"}, {"ok", ok}, {"checks", list}});
  return ok ? 0 : int(ErrorCode::kBug);
}

}  // namespace tessera
