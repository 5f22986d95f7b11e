#include "data/download/archive.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tensor/base/file.h"

namespace tessera {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr size_t kMaxNoteBytes = size_t(1) << 30;  // it names all files of a flat archive

struct Note {
  std::string url, sha256;
  int64_t bytes = 0;
  UnpackReport unpacked;
};

std::optional<Note> read_note(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  const Json j = Json::parse(read_file(file, kMaxNoteBytes), nullptr, false);
  const auto whole = [&](const char* key) { return j.at(key).get_ref<const Json::number_integer_t&>(); };  // no fraction
  try {
    Note note{j.at("url"), j.at("sha256"), whole("bytes"), {}};
    note.unpacked.folder = (file.parent_path() / j.at("folder").get<std::string>()).lexically_normal();  // all of it may have moved
    note.unpacked.names = j.at("names").get<std::vector<std::string>>();
    note.unpacked.files = whole("files");
    note.unpacked.bytes = whole("unpacked_bytes");
    return note;
  } catch (const Json::exception&) {
    return std::nullopt;  // not ours
  }
}

void write_note(const fs::path& file, const Note& note) {
  const Json j = {{"url", note.url},
                  {"sha256", note.sha256},
                  {"bytes", note.bytes},
                  {"folder", fs::absolute(note.unpacked.folder)
                                 .lexically_normal()
                                 .lexically_relative(fs::absolute(file).lexically_normal().parent_path())
                                 .string()},
                  {"names", note.unpacked.names},
                  {"files", note.unpacked.files},
                  {"unpacked_bytes", note.unpacked.bytes}};
  write_file_atomic(file, j.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

bool is_there(const UnpackReport& unpacked) {
  std::error_code ignored;
  return !unpacked.names.empty() && std::all_of(unpacked.names.begin(), unpacked.names.end(), [&](const std::string& name) {
    return fs::exists(fs::symlink_status(unpacked.folder / name, ignored));
  });
}

}  // namespace

fs::path note_of(fs::path archive) { return archive += ".unpacked"; }

ArchiveResult fetch_archive(FetchRequest request, const fs::path& folder, bool keep, const UnpackOptions& options) {
  const fs::path note_file = note_of(request.to);
  const std::string shown = parse_url(request.url).shown;
  ArchiveResult out;
  if (const auto note = read_note(note_file); note && note->url == shown) {
    const bool same = request.sha256.empty() || normalized_sha256(request.sha256) == note->sha256;
    if (same && is_there(note->unpacked)) {
      out.fetched = {.url = shown,
                     .path = request.to,
                     .bytes = note->bytes,
                     .sha256 = note->sha256,
                     .verified = !request.sha256.empty(),
                     .sha256_from = request.sha256_from,
                     .already_there = true};
      out.unpacked = note->unpacked;
      out.unpacked.already_there = note->unpacked.files;
      out.unpacked_before = true;
      out.archive_kept = fs::exists(request.to);
      return out;
    }
    if (request.sha256.empty()) {
      request.sha256 = note->sha256;
      request.sha256_from = note_file.string();
    }
  }
  out.fetched = fetch(request);
  out.unpacked = unpack(request.to, folder, options);
  write_note(note_file, {out.fetched.url, out.fetched.sha256, out.fetched.bytes, out.unpacked});
  out.archive_kept = keep || out.fetched.already_there;
  if (!out.archive_kept) {
    std::error_code ignored;
    fs::remove(request.to, ignored);
    fs::remove(sum_file_of(request.to), ignored);
  }
  return out;
}

Placement place_of_data(const fs::path& unpacked, const DownloadPlace& place, const DatasetYaml& yaml) {
  std::vector<fs::path> wanted;  // below the root
  for (const char* split : {"train", "val"}) {
    for (const fs::path& path : yaml.splits.at(split)) wanted.push_back(path.lexically_relative(yaml.root));
  }
  std::error_code ignored;
  const auto is_root = [&](const fs::path& folder) {
    return std::all_of(wanted.begin(), wanted.end(), [&](const fs::path& path) {
      // As the loader: "../" is dropped when only that exists.
      const std::string text = path.string();
      return is_inside(text) ? fs::exists(folder / path, ignored)
                             : text.starts_with("../") && is_inside(text.substr(3)) && fs::exists(folder / text.substr(3), ignored);
    });
  };
  std::vector<fs::path> candidates = {unpacked};
  constexpr size_t kLevels = 3;
  for (size_t level = 0, next = 0; level < kLevels; ++level) {
    for (const size_t end = candidates.size(); next < end; ++next) {
      if (is_root(candidates[next])) {
        const fs::path root = candidates[next];
        const bool as_named = !place.set.empty() && root == unpacked / place.set;
        return as_named ? Placement{unpacked, place.folder} : Placement{root, place.folder / place.set};
      }
      if (level + 1 == kLevels) continue;
      const fs::path folder = candidates[next];
      for (const auto& entry : fs::directory_iterator(folder)) {
        if (entry.is_directory(ignored) && !entry.is_symlink(ignored)) candidates.push_back(entry.path());
      }
    }
  }
  const bool beside = place.set.empty() || fs::exists(unpacked / place.set, ignored);
  return {unpacked, beside ? place.folder : place.folder / place.set};
}

}  // namespace tessera
