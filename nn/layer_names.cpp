#include "nn/layer_names.h"

#include "nn/layers/conv_bn_act.h"

namespace tessera {

std::vector<std::pair<const void*, std::string>> layer_names(Module& root) {
  std::vector<std::pair<const void*, std::string>> names;
  std::string block;
  root.for_each_module([&](const std::string& name, Module& m) {
    const bool inside = !block.empty() && name.starts_with(block + ".");
    if (dynamic_cast<ConvBnAct*>(&m)) block = name;
    names.emplace_back(&m, inside ? block : name);
  });
  return names;
}

}  // namespace tessera
