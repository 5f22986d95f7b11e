#include "tools/verbs/sources.h"

#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <iterator>
#include <set>
#include <span>
#include <string_view>

#include "tensor/base/check.h"
#include "tensor/base/csv_field.h"
#include "tensor/base/file.h"
#include "tensor/base/shell_word.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

constexpr size_t kMaxListBytes = size_t(1) << 28;

// Kinds that cannot be decoded are listed too: they are reported by name instead of silently left out.
constexpr std::string_view kImageSuffixes[] = {"bmp", "gif", "hdr", "jpeg", "jpg",  "png",  "pgm", "pnm",
                                               "ppm", "psd", "tif", "tiff", "webp", "heic", "avif"};
constexpr std::string_view kVideoSuffixes[] = {"asf", "avi", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ts", "webm", "wmv"};

bool has_suffix(const fs::path& path, std::span<const std::string_view> suffixes) {
  std::string suffix = path.extension().string();
  if (suffix.empty()) return false;
  std::transform(suffix.begin(), suffix.end(), suffix.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  return std::find(suffixes.begin(), suffixes.end(), std::string_view(suffix).substr(1)) != suffixes.end();
}

bool is_image(const fs::path& path) { return has_suffix(path, kImageSuffixes); }
bool is_list(const fs::path& path) { return path.extension() == ".txt"; }

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

bool is_pattern(std::string_view text) { return text.find_first_of("*?[") != std::string_view::npos; }

std::vector<fs::path> matches_of(const std::string& pattern) {
  std::vector<fs::path> found;
  glob_t matches{};
  if (::glob(pattern.c_str(), 0, nullptr, &matches) == 0) found.assign(matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
  globfree(&matches);
  return found;
}

std::string literal_pattern(const std::string& name) {
  std::string pattern;
  for (const char c : name) {
    if (std::string_view("*?[\\").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

// With ** as a name of its own: any folders, none included. Hidden folders are passed over and links are not followed.
std::vector<fs::path> deep_matches_of(const std::string& pattern) {
  const fs::path path(pattern);
  const auto stars = std::find(path.begin(), path.end(), "**");
  if (stars == path.end()) return matches_of(pattern);
  fs::path before, after;
  for (auto part = path.begin(); part != stars; ++part) before /= *part;
  for (auto part = std::next(stars); part != path.end(); ++part) after /= *part;
  if (after.empty()) after = "*";
  std::vector<fs::path> folders = before.empty() ? std::vector<fs::path>{"."} : matches_of(before.string()), found;
  for (size_t i = 0; i < folders.size(); ++i) {
    std::error_code failed;
    for (fs::directory_iterator entry(folders[i], failed), end; !failed && entry != end; entry.increment(failed)) {
      std::error_code ignored;
      const fs::path name = entry->path().filename();
      if (entry->is_directory(ignored) && !entry->is_symlink(ignored) && !name.string().starts_with('.')) {
        folders.push_back(before.empty() && folders[i] == "." ? name : entry->path());
      }
    }
  }
  for (const fs::path& folder : folders) {
    const fs::path here = before.empty() && folder == "." ? fs::path() : fs::path(literal_pattern(folder.string()));
    const std::vector<fs::path> inside = deep_matches_of((here / after).string());
    found.insert(found.end(), inside.begin(), inside.end());
  }
  return found;
}

std::vector<fs::path> of_folder(const std::string& folder) {
  std::vector<fs::path> files, folders;
  std::error_code failed;
  for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end; entry.increment(failed)) {
    std::error_code ignored;
    if (entry->is_directory(ignored)) folders.push_back(entry->path());
    if ((is_image(entry->path()) || is_video(entry->path())) && entry->is_regular_file(ignored)) files.push_back(entry->path());
  }
  if (failed) throw_file_error("read the folder", folder, failed.value());
  if (files.empty()) {
    throw Error(ErrorCode::kData, "no image in this folder", {folder},
                folders.empty() ? "names end in jpg, jpeg, png or bmp"
                                : fmt::format("folders inside are not searched, but with --source {} they are",
                                              shell_word((fs::path(folder) / "**").string())));
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<fs::path> of_pattern(const std::string& pattern) {
  std::vector<fs::path> files = deep_matches_of(pattern);
  std::erase_if(files, is_folder);
  if (files.empty()) {
    throw Error(ErrorCode::kData, "no file matches", {pattern},
                "quote the pattern, so that the shell hands it on as it is; ** stands for any folders");
  }
  const size_t matches = files.size();
  std::erase_if(files, [](const fs::path& file) { return !is_image(file) && !is_video(file); });
  if (files.empty()) {
    throw Error(ErrorCode::kData, fmt::format("{} files match, and none is an image by its name", matches), {pattern},
                "names end in jpg, jpeg, png or bmp");
  }
  std::sort(files.begin(), files.end());
  return files;
}

// What the original takes, or others, and this program does not.
void refuse_kinds(const std::string& source) {
  const auto refuse = [&](const std::string& what, const std::string& remedy) {
    throw Error(ErrorCode::kUsage, fmt::format("{} is no source here: '{}'", what, source), {}, remedy);
  };
  const auto frames = [](const std::string& input) {
    return fmt::format("make images of it, then --source frames: mkdir frames && ffmpeg -i {} -frames:v 100 frames/%06d.jpg",
                       shell_word(input));
  };
  if (source == "-") refuse("standard input", "write the image into a file");
  if (source.starts_with("http://") || source.starts_with("https://"))
    refuse("an address", fmt::format("fetch it, then give the file: tessera download {}", shell_word(source)));
  if (source.find("://") != std::string::npos) refuse("a stream", frames(source));
  if (is_there(source)) return;
  if (!source.empty() && source.find_first_not_of("0123456789") == std::string::npos) {
    refuse("a camera", frames("/dev/video" + source));
  }
  if (source == "screen" || source.starts_with("screen ")) refuse("the screen", "save an image of it as a file");
}

std::vector<fs::path> of_source(const std::string& source);

std::vector<fs::path> of_list(const fs::path& list) {
  std::vector<fs::path> files;
  const std::string text = read_file(list, kMaxListBytes);
  int64_t number = 0;
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF", kBlank = " \t\r\f\v";
  for (size_t begin = text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1, ++number;
    line.erase(0, std::min(line.find_first_not_of(kBlank), line.size()));
    if (line.empty()) continue;
    line.resize(line.find_last_not_of(kBlank) + 1);
    const FileLocation place{list.string(), number};
    if (is_list(line)) throw Error(ErrorCode::kData, fmt::format("a list in a list: '{}'", line), place, "name its lines here");
    fs::path beside = list.parent_path() / line;
    if (is_pattern(line) && !is_there(beside)) beside = fs::path(literal_pattern(list.parent_path().string())) / line;
    const auto means_something = [](const std::string& source) {
      return is_there(source) || (is_pattern(source) && !deep_matches_of(source).empty());
    };
    try {
      const std::vector<fs::path> found =
          of_source(means_something(line) || !means_something(beside.string()) ? line : beside.string());
      files.insert(files.end(), found.begin(), found.end());
    } catch (const Error& e) {
      throw Error(e.code(), e.where().file.empty() ? e.message() : fmt::format("{}: {}", e.where().file, e.message()), place,
                  e.hint());
    }
  }
  if (files.empty()) throw Error(ErrorCode::kData, "no image in this list", {list.string()}, "write the path of one on each line");
  return files;
}

std::vector<fs::path> of_source(const std::string& source) {
  refuse_kinds(source);
  if (is_folder(source)) return of_folder(source);
  if (is_there(source)) return is_list(source) ? of_list(source) : std::vector<fs::path>{source};
  if (is_pattern(source)) return of_pattern(source);
  throw Error(ErrorCode::kData, "no such file or folder", {source},
              "--source takes an image, a folder of images, a pattern or a .txt list of them");
}

}  // namespace

bool is_video(const fs::path& file) { return has_suffix(file, kVideoSuffixes); }

void refuse_video(const fs::path& file) {
  throw Error(ErrorCode::kData, "this is a video, which is no source here", {file.string()},
              fmt::format("make images of it, then --source frames: mkdir frames && ffmpeg -i {} -qscale:v 2 {}",
                          shell_word(file.string()), shell_word("frames/" + file.stem().string() + "_%06d.jpg")));
}

std::vector<fs::path> source_images(const std::string& sources) {
  std::vector<std::string> each;
  const std::function<void(const std::string&)> add = [&](const std::string& words) {
    if (is_there(words)) return each.push_back(words);  // a name with a comma
    for (const CsvField& word : csv_fields(words)) {
      if (word.quoted) {
        add(word.text);
      } else if (!word.text.empty()) {
        each.push_back(word.text);
      }
    }
  };
  add(sources);
  if (each.empty()) throw Error(ErrorCode::kUsage, "--source is empty", {}, "give an image, a folder of images or a pattern");
  std::vector<fs::path> files;
  std::set<fs::path> known;
  for (const std::string& source : each) {
    for (fs::path& file : of_source(source)) {
      if (known.insert(file).second) files.push_back(std::move(file));
    }
  }
  if (std::all_of(files.begin(), files.end(), is_video)) refuse_video(files.front());
  return files;
}

}  // namespace tessera
