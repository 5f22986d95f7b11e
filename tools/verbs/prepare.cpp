#include "tensor/backend.h"
#include "tensor/base/interrupt.h"
#include "tensor/base/parallel.h"
#include "tools/verbs/verbs.h"

namespace tessera {

LogStyle prepare(const Config& config) {
  const auto has = [&](const char* name) { return (find_option(name)->verbs & config.verb()) != 0; };
  if (has("threads") && config.is_set("threads")) set_compute_threads(int(config.integer("threads")));
  if (has("device") && config.text("device") != "cpu") {
    std::string list;
    for (Backend* b : available_backends()) list += fmt::format("{}{}", list.empty() ? "" : ", ", b->name());
    throw Error(ErrorCode::kUsage, fmt::format("device '{}' is not there", config.text("device")), {},
                fmt::format("this build has the backends {}; use --device cpu", list));
  }
  if (has("imgsz") && config.integer("imgsz") % 32 != 0) {
    throw Error(ErrorCode::kUsage, fmt::format("imgsz={} is not a multiple of 32", config.integer("imgsz")), {},
                fmt::format("the next one is {}", (config.integer("imgsz") + 31) / 32 * 32));
  }
  // The other verbs have nothing to save and simply end.
  if (config.verb() & (kTrain | kVal | kPredict)) install_interrupt_handlers();
  return log_style(config.flag("quiet"), config.text("log") == "json");
}

}  // namespace tessera
