#include <cstdio>
#include <nlohmann/json.hpp>

#include "tensor/base/check.h"
#include "tools/verbs/verbs.h"
#include "tools/verbs/benchmarks.h"

namespace tessera {

int run_bench(const Config& config) {
  const LogStyle log = prepare(config);
  const nlohmann::ordered_json result = run_benchmark(config, log);
  if (config.flag("json")) {
    fmt::print("{}\n", result.dump());
  } else {
    fmt::print("{}", format_benchmark(result));
  }
  return 0;
}

}  // namespace tessera
