// An archive fetched and unpacked, with a note NAME.unpacked beside where it was, so that a second run knows that it is done.
#pragma once

#include "data/download/fetch.h"
#include "data/download/sources.h"
#include "data/download/unpack.h"

namespace tessera {

struct ArchiveResult {
  FetchResult fetched;
  UnpackReport unpacked;
  bool unpacked_before = false;  // nothing was done: what the note says is there
  bool archive_kept = false;
};

std::filesystem::path note_of(std::filesystem::path archive);  // NAME.unpacked

// `request.to` is the archive. Removed once it is unpacked, with its sum file, unless `keep` or it was there before. Without a
// known sum that of the note counts, if the archive was fetched and unpacked from the same address before.
ArchiveResult fetch_archive(FetchRequest request, const std::filesystem::path& folder, bool keep, const UnpackOptions& options);

// Where an archive of this data set belongs: the folder in it that holds what the splits name becomes the data set's; where none
// does, a part of a data set goes into its folder, or beside it when that is in the archive.
Placement place_of_data(const std::filesystem::path& unpacked, const DownloadPlace& place, const DatasetYaml& yaml);

}  // namespace tessera
