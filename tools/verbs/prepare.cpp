#include "cuda/install.h"
#include "tensor/base/check.h"
#include "tensor/base/interrupt.h"
#include "tensor/base/parallel.h"
#include "tools/verbs/verbs.h"

namespace tessera {

namespace {
// Never falls back to the CPU silently.
void use_cuda(const Config& config) {
  auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kUsage, fmt::format("device '{}' {}", config.text("device"), why), {},
                "use --device cpu; tessera info says what there is");
  };
  const Device device = device_of(config);
  if (device == Device::cpu()) return;
  try {
    install_cuda_backend(device.index);
  } catch (const Error& e) {
    refuse("is not there: " + e.message());
  }
  refuse("is there, but the program runs on the CPU only so far");
}
}  // namespace

LogStyle prepare(const Config& config) {
  const auto has = [&](const char* name) { return (find_option(name)->verbs & config.verb()) != 0; };
  if (has("threads") && config.is_set("threads")) set_compute_threads(int(config.integer("threads")));
  if (has("device")) use_cuda(config);
  if (has("imgsz") && config.integer("imgsz") % 32 != 0) {
    throw Error(ErrorCode::kUsage, fmt::format("imgsz={} is not a multiple of 32", config.integer("imgsz")), {},
                fmt::format("the next one is {}", (config.integer("imgsz") + 31) / 32 * 32));
  }
  // The other verbs have nothing to save and simply end.
  if (config.verb() & (kTrain | kVal | kPredict)) install_interrupt_handlers();
  return log_style(config.flag("quiet"), config.text("log") == "json");
}

}  // namespace tessera
