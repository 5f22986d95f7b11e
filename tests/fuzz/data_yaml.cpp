// A data yaml: its splits and classes, the key download, and the yaml as a list of images.
#include "data/dataset_yaml.h"
#include "data/download/sources.h"
#include "tests/fuzz/fuzz.h"

using namespace tessera;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string file = fuzz::file_with("data.yaml", data, size);
  fuzz::takes_or_refuses(file, [&] {
    const DatasetYaml yaml = load_dataset_yaml(file);
    fuzz::require(!yaml.names.empty(), "a data set has classes");
  });
  fuzz::takes_or_refuses(file, [&] { download_sources(read_dataset_text(file)); });
  const std::string list = fuzz::file_with("train.txt", data, size);
  fuzz::takes_or_refuses(list, [&] {
    DatasetYaml yaml;
    yaml.source = list;
    yaml.splits["train"] = {list};
    for (const std::string& image : list_images(yaml, "train")) label_path(image);
  });
  return 0;
}
