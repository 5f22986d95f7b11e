// An argument file, and the lists that some arguments hold.
#include "tests/fuzz/fuzz.h"
#include "yolo/config.h"
#include "yolo/config_values.h"

using namespace tessera;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string file = fuzz::file_with("args.yaml", data, size);
  for (const Verb verb : {kTrain, kPredict}) {
    Config config(verb);
    if (!fuzz::takes_or_refuses(file, [&] { config.read_file(file); }, {ErrorCode::kData, ErrorCode::kUsage})) continue;
    config.print(), config.to_yaml(), config.notes();
    for (const OptionSpec& o : option_specs()) {
      if (!(o.verbs & verb) || !config.is_set(o.name)) continue;
      if (o.type == OptionType::kBool) config.flag(o.name);
      if (o.type == OptionType::kInt) config.integer(o.name);
      if (o.type == OptionType::kFloat) config.number(o.name);
    }
    const auto usage = {ErrorCode::kUsage};
    fuzz::takes_or_refuses(
        "", [&] { device_of(config); }, usage);
    if (verb == kTrain)
      fuzz::takes_or_refuses(
          "", [&] { frozen_layers_of(config); }, usage);
    if (verb == kPredict)
      fuzz::takes_or_refuses(
          "", [&] { classes_of(config); }, usage);
  }
  return 0;
}
