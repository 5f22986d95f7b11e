// The description of a network.
#include "yolo/model_yaml.h"

#include "tests/fuzz/fuzz.h"

using namespace tessera;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(fuzz::text_of(data, size));
  for (const int64_t nc : {int64_t(0), int64_t(80)}) {
    fuzz::takes_or_refuses("net.yaml",
                           [&] {
                             const ModelSpec spec = parse_model_text(text, "net.yaml", "n", nc);
                             fuzz::require(!spec.layers.empty() && spec.layers.back().module == "Segment",
                                           "the last layer is the head");
                           },
                           {ErrorCode::kData, ErrorCode::kUsage});  // of a scale that is not there
  }
  return 0;
}
