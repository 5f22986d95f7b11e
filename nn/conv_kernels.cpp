#include "nn/conv_kernels.h"

#include "nn/layer_names.h"
#include "tensor/base/check.h"
#include "tensor/conv_choice.h"

namespace tessera {

void choose_conv_kernels(Module& root) {
  const std::vector<ConvPattern>& patterns = conv_patterns();
  if (patterns.empty()) return;
  std::vector<bool> used(patterns.size(), false);
  for (const auto& [module, name] : layer_names(root)) {
    ConvChoice choice = ConvChoice::kAuto;
    for (size_t i = 0; i < patterns.size(); ++i) {
      if (!patterns[i].names(name)) continue;
      choice = patterns[i].choice;
      used[i] = true;
    }
    set_conv_choice_of(module, choice);  // also auto: an earlier model may have had a layer at this address
  }
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (used[i]) continue;
    throw Error(ErrorCode::kUsage, fmt::format("--conv: no layer is called '{}'", patterns[i].layer), {},
                "names are those of bench --profile, as model.2.m.0.cv1; model.2.* is all of model.2");
  }
}

}  // namespace tessera
