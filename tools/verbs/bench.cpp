#include <fmt/format.h>

#include <cstdio>

#include "tools/verbs/benchmarks.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/verbs.h"

namespace tessera {

int run_bench(const Config& config) {
  const LogStyle log = prepare(config);
  nlohmann::ordered_json result = run_benchmark(config, log);
  if (config.flag("json")) {
    result.erase("profile_text");
    print_json(result);
  } else {
    fmt::print("{}", format_benchmark(result));
  }
  return 0;
}

}  // namespace tessera
