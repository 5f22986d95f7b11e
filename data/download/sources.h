// Where a data yaml says that its data are: the key `download:`. An http, https or file URL, several of them on lines of their own,
// or a list whose items are URLs or {url, to, sha256}. Single URLs may have a key `sha256:` beside `download:`. The original also
// takes shell and Python scripts there; those are refused, never run.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset_yaml.h"
#include "tensor/base/check.h"

namespace tessera {

struct DownloadSource {
  std::string url;
  std::string to;      // folder below that of the data sets; empty: as the archive's own folders say
  std::string sha256;  // empty: not known
  FileLocation where;
};

// Empty without the key. Error(kData) with line and column for scripts and for what is ill-formed.
std::vector<DownloadSource> download_sources(const DatasetText& yaml);

// The folder in which the data set of this yaml is to lie, and where its archives are unpacked: `data_root`, else TESSERA_DATA,
// else the folder of an absolute `path:`, the yaml's own without `path:`, and "datasets" in the current folder. `set`: what the
// data set is called there; empty where that folder is itself the root.
struct DownloadPlace {
  std::filesystem::path folder;
  std::filesystem::path set;
};
DownloadPlace download_place(const DatasetText& yaml, const std::filesystem::path& data_root);

// How many images of each split are there (train, val, and test when the yaml names it), how many have a label file, and how many
// are listed but missing.
struct FoundSplit {
  std::string name;
  int64_t images = 0, labels = 0, missing = 0;
};
struct FoundData {
  std::vector<FoundSplit> splits;
  std::string trouble;  // why it is not complete; empty: it is
  std::string root;
  bool complete() const { return trouble.empty(); }
};
FoundData find_data(const std::string& name_or_path, const std::filesystem::path& data_root);

}  // namespace tessera
