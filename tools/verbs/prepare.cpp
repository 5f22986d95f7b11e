#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "cuda/install.h"
#include "tensor/base/check.h"
#include "tensor/base/env.h"
#include "tensor/base/interrupt.h"
#include "tensor/base/parallel.h"
#include "tensor/conv_choice.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/verbs.h"
#include "yolo/config_values.h"

namespace tessera {

namespace {
void refuse_absent_cudnn(Device device) {
  if (!conv_chosen_anywhere(ConvChoice::kCudnn)) return;
  if (!has_cudnn()) {
    throw Error(ErrorCode::kUsage, "--conv cudnn: " + describe_cudnn(), {},
                "use --conv own, or build where CUDA and cuDNN 9.8 or newer are (cmake -DTESSERA_CUDNN=ON says what is missing)");
  }
  if (device == Device::cpu())
    throw Error(ErrorCode::kUsage, "--conv cudnn is for a CUDA device", {}, "use --conv own or --device cuda");
}

// Never falls back to the CPU silently.
void use_device(const Config& config, const Communicator& ranks) {
  const Device device = device_of(config, ranks.local_rank(), ranks.local_size());
  refuse_absent_cudnn(device);
  if (device == Device::cpu()) return;
  try {
    install_cuda_backend(device.index);
  } catch (const Error& e) {
    throw Error(ErrorCode::kUsage, fmt::format("device '{}' is not there: {}", config.text("device"), e.message()), {},
                "use --device cpu; tessera info says what there is");
  }
}

// Ranks that may run on the same cores divide them; where the launcher has bound each to its own there is nothing to divide.
void divide_cores(Communicator& ranks) {
  struct Cores {
    char host[256];
    cpu_set_t set;
  } mine{};
  gethostname(mine.host, sizeof mine.host - 1);
  sched_getaffinity(0, sizeof mine.set, &mine.set);
  int sharers = 0;
  for (const Cores& c : ranks.all_gather(mine, "the cores of the ranks")) {
    sharers += std::strcmp(c.host, mine.host) == 0 && CPU_EQUAL(&c.set, &mine.set) ? 1 : 0;
  }
  if (sharers > 1) set_compute_threads(std::max(1, compute_threads() / sharers));
}
}  // namespace

LogStyle prepare(const Config& config, Communicator& ranks) {
  const auto has = [&](const char* name) { return (find_option(name)->verbs & config.verb()) != 0; };
  if (has("threads") && config.is_set("threads")) {
    set_compute_threads(int(config.integer("threads")));
  } else if (!ranks.alone() && !env("TESSERA_THREADS")) {
    divide_cores(ranks);
  }
  if (has("device")) {
    use_device(config, ranks);
  } else if (has("conv")) {
    refuse_absent_cudnn(Device::cpu());
  }
  if (has("imgsz") && config.integer("imgsz") % 32 != 0) {
    throw Error(ErrorCode::kUsage, fmt::format("imgsz={} is not a multiple of 32", config.integer("imgsz")), {},
                fmt::format("the next one is {}", (config.integer("imgsz") + 31) / 32 * 32));
  }
  // What has nothing to save simply ends, with the object that --json promises.
  const std::string_view farewell = config.flag("json") && ranks.leader() ? kInterruptedJson : "";
  const bool scores_files = config.verb() == kVal && config.is_set("gt");
  if (config.verb() & (kTrain | kVal | kPredict | kDownload) && !scores_files) {
    install_interrupt_handlers(farewell);
  } else if (config.flag("json")) {
    end_at_interrupt(farewell);
  }
  const LogStyle log = log_style(config.flag("quiet"), config.text("log") == "json");
  for (const std::string& note : config.notes()) log_line(ranks.leader() ? log : LogStyle::kQuiet, note);
  return log;
}

}  // namespace tessera
