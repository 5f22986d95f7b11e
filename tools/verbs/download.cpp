#include <algorithm>
#include <array>
#include <optional>

#include "data/download/archive.h"
#include "tensor/base/check.h"
#include "tensor/base/shell_word.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/verbs.h"
#include "yolo/io/weights.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

// Where the original publishes its weights.
constexpr std::string_view kWeights = "https://github.com/ultralytics/assets/releases/download/v8.3.0/";
constexpr std::string_view kWeightsNotice =
    "weights of Ultralytics, published under AGPL-3.0 (or a licence bought from them), which may reach what is trained from them; "
    "not part of this program";
constexpr std::array<std::string_view, 3> kNames = {"data", "url", "model"};

// The command again, as it would be typed.
std::string command_line(const Config& config) {
  std::string out = "tessera download";
  for (const std::string& name : config.names()) {
    if (!config.is_explicit(name) || name == "cfg") continue;
    std::string shown = name;
    std::replace(shown.begin(), shown.end(), '_', '-');
    if (find_option(name, kDownload)->type == OptionType::kBool) {
      out += fmt::format(" --{}{}", config.flag(name) ? "" : "no-", shown);
    } else {
      out += fmt::format(" --{} {}", shown, shell_word(name == "url" ? parse_url(config.text(name)).shown : config.text(name)));
    }
  }
  return out;
}

// Bytes of one file on stderr: what comes, then how far it is unpacked.
class Meter {
 public:
  Meter(LogStyle style, std::string name) : style_(style), name_(std::move(name)) {}

  void fetched(int64_t done, int64_t total, int64_t resumed) { draw("", done, total, resumed); }
  void unpacked(int64_t done, int64_t total) { draw("unpacking ", done, total, 0); }
  void finish() {
    if (bar_) bar_->finish("");
    bar_.reset();
  }

 private:
  void draw(std::string_view what, int64_t done, int64_t total, int64_t first) {
    if (!bar_ || what != what_ || total != total_ || first != first_) {
      finish();
      bar_.emplace(style_, total, ProgressUnit::kBytes, done);  // speed from here on
      what_ = what, total_ = total, first_ = first;
    }
    bar_->update(done, what_ + name_);
  }

  LogStyle style_;
  std::string name_, what_;
  int64_t total_ = 0, first_ = 0;
  std::optional<Progress> bar_;
};

nlohmann::ordered_json file_json(const FetchResult& r) {
  nlohmann::ordered_json j = {
      {"url", r.url}, {"path", r.path.string()}, {"bytes", r.bytes}, {"sha256", r.sha256}, {"verified", r.verified}};
  if (r.verified) j["sha256_from"] = r.sha256_from;
  j["already_there"] = r.already_there;
  j["resumed_from"] = r.resumed_from;
  j["seconds"] = r.seconds;
  return j;
}

nlohmann::ordered_json archive_json(const ArchiveResult& r) {
  nlohmann::ordered_json j = file_json(r.fetched);
  j["unpacked"] = {{"folder", r.unpacked.folder.string()},
                   {"files", r.unpacked.files},
                   {"bytes", r.unpacked.bytes},
                   {"already_there", r.unpacked.already_there}};
  j["archive_kept"] = r.archive_kept;
  return j;
}

void print_file(const FetchResult& r, const fs::path& sum_file) {
  std::string how = fmt::format("{} in {}", format_bytes(double(r.bytes)), format_duration(r.seconds));
  if (r.resumed_from > 0) how += fmt::format(", the first {} were there", format_bytes(double(r.resumed_from)));
  if (r.already_there) how = "is there already, nothing was fetched";
  fmt::print("{}: {}\n  SHA-256 {}\n", r.path.string(), how, r.sha256);
  if (r.verified) {
    fmt::print("  verified: as {} says\n", r.sha256_from);
  } else if (sum_file.empty()) {
    fmt::print("  not verified: no sum was given to compare with\n");
  } else {
    fmt::print("  not verified: no sum was given to compare with; kept in {} for a later download\n", sum_file.string());
  }
}

void print_archive(const ArchiveResult& r) {
  if (r.unpacked_before) {
    return fmt::print("{}: was fetched and unpacked before (remove {} to have it done anew)\n", r.fetched.url,
                      note_of(r.fetched.path).string());
  }
  print_file(r.fetched, r.archive_kept && !r.fetched.already_there ? sum_file_of(r.fetched.path) : note_of(r.fetched.path));
  const std::string equal = r.unpacked.already_there > 0 ? fmt::format(", {} of them were there", r.unpacked.already_there) : "";
  fmt::print("  unpacked: {} files, {}{}, into {}\n", r.unpacked.files, format_bytes(double(r.unpacked.bytes)), equal,
             r.unpacked.folder.string());
}

class Download {
 public:
  explicit Download(const Config& config) : config_(config), log_(prepare(config)), json_(config.flag("json")) {}

  int run() {
    std::vector<std::string> given;
    for (const std::string_view name : kNames) {
      if (config_.is_set(name)) given.emplace_back(name);
    }
    if (given.size() != 1) {
      throw Error(
          ErrorCode::kUsage,
          given.empty() ? "what is to be fetched?" : "one thing at a time: --" + fmt::format("{}", fmt::join(given, " and --")), {},
          "--data coco128-seg.yaml, --model yolov8n-seg.pt or --url https://...");
    }
    if (config_.is_set("sha256") && !is_sha256(config_.text("sha256"))) {
      throw Error(ErrorCode::kUsage, fmt::format("sha256={}: expected 64 hexadecimal digits", config_.text("sha256")), {},
                  "sha256sum FILE prints them");
    }
    return given[0] == "data" ? data() : given[0] == "model" ? model() : url(config_.text("url"), {});
  }

 private:
  FetchRequest request(const std::string& address, const fs::path& to, Meter& meter) const {
    FetchRequest r;
    r.url = address;
    r.to = to;
    r.sha256 = config_.text("sha256");
    r.sha256_from = "--sha256";
    r.again = command_line(config_);
    r.timeout_s = config_.number("timeout");
    r.retries = int(config_.integer("retries"));
    r.progress = [&meter](int64_t done, int64_t total, int64_t resumed) { meter.fetched(done, total, resumed); };
    r.log = [this, &meter](const std::string& text) {
      meter.finish();
      log_line(log_, text);
    };
    return r;
  }

  static std::string name_of(const Url& address) {
    if (address.file_name.empty()) {
      throw Error(ErrorCode::kUsage, "this address ends without the name of a file", {address.shown}, "name it: --to FILE");
    }
    return address.file_name;
  }

  int url(const std::string& text, std::string_view notice) {
    const Url address = parse_url(text);
    const std::string& to = config_.text("to");
    const bool unpacks = config_.flag("unpack");
    std::error_code ignored;
    const bool folder = unpacks || to.empty() || to.ends_with('/') || fs::is_directory(to, ignored);
    const fs::path file = folder ? fs::path(to) / name_of(address) : fs::path(to);
    if (!notice.empty()) log_line(log_, fmt::format("{}: {}", file.filename().string(), notice));
    Meter meter(log_, file.filename().string());
    nlohmann::ordered_json j = {{"command", "download"}};
    if (unpacks) {
      const ArchiveResult result = fetch_archive(
          request(text, file, meter), to.empty() ? "." : to, config_.flag("keep"), options(meter, [&](const fs::path& all) {
            // Loose files would be strewn over the current folder.
            const auto entries = std::distance(fs::directory_iterator(all), fs::directory_iterator());
            const bool loose = to.empty() && (entries > 1 || !fs::directory_iterator(all)->is_directory());
            return Placement{all, to.empty() ? (loose ? fs::path(archive_stem(file)) : fs::path(".")) : fs::path(to)};
          }));
      meter.finish();
      j.update(archive_json(result));
      if (!json_) print_archive(result);
    } else {
      const FetchResult result = fetch(request(text, file, meter));
      meter.finish();
      j.update(file_json(result));
      if (!json_) {
        print_file(result, result.already_there ? fs::path() : sum_file_of(file));
        if (is_archive_name(file)) fmt::print("  an archive: the same command with --unpack unpacks it\n");
      }
    }
    if (!notice.empty()) {
      j["licence"] = "AGPL-3.0";
      next(j, fmt::format("train_seg --model {} --data coco128-seg.yaml", shell_word(file.string())));
    }
    if (json_) print_json(j);
    return 0;
  }

  static UnpackOptions options(Meter& meter, std::function<Placement(const fs::path&)> place) {
    return {std::move(place), [&meter](int64_t done, int64_t total) { meter.unpacked(done, total); }};
  }

  int model() {
    std::string name = config_.text("model");
    if (!name.ends_with(".pt")) name += ".pt";
    if (!is_original_weights(name)) {
      throw Error(ErrorCode::kUsage, fmt::format("there are no weights '{}' of the original", config_.text("model")), {},
                  "yolov8n-seg.pt, yolov8s-seg.pt, yolov8m-seg.pt, yolov8l-seg.pt, yolov8x-seg.pt; other files by --url");
    }
    if (config_.flag("unpack")) throw Error(ErrorCode::kUsage, "--unpack: a file of weights is read as it is", {}, "leave it out");
    return url(std::string(kWeights) + name, kWeightsNotice);
  }

  int data() {
    const std::string& name = config_.text("data");
    const fs::path root = config_.text("data_root");
    if (name == "shapes")
      throw Error(ErrorCode::kUsage, "the embedded set 'shapes' is made by the program itself", {}, "train_seg --data shapes");
    if (name.find("://") != std::string::npos) {
      throw Error(ErrorCode::kUsage, "--data takes a data yaml, not an address", {},
                  fmt::format("tessera download --url {} --unpack", shell_word(name)));
    }
    for (const char* other : {"to", "sha256"}) {
      if (config_.is_set(other)) {
        throw Error(ErrorCode::kUsage, fmt::format("--{} does not go with --data", other), {},
                    std::string_view(other) == "to" ? "--data-root FOLDER says where the data go"
                                                    : "the data yaml may give it: sha256: beside download:");
      }
    }
    const DatasetText text = read_dataset_text(name, root);
    FoundData found = find_data(name, root);
    nlohmann::ordered_json j = {{"command", "download"},
                                {"data", name},
                                {"already_there", found.complete()},
                                {"archives", nlohmann::ordered_json::array()}};
    if (found.complete()) {
      if (!json_) fmt::print("{}: the data are there already, nothing was fetched\n", name);
    } else {
      const std::vector<std::string> notes = fetch_all(name, text, root, j);
      found = find_data(name, root);
      if (!found.complete()) {
        throw Error(
            ErrorCode::kData, fmt::format("everything was fetched and unpacked, but {}", found.trouble), {text.source},
            "'path:', 'train:' and 'val:' must name what the archives hold; tessera lint tells more" +
                (notes.empty() ? ""
                               : fmt::format("; where files were removed since: rm {}, then start again", fmt::join(notes, " "))));
      }
    }
    j["root"] = found.root;
    for (const FoundSplit& s : found.splits) {
      j["splits"].push_back({{"split", s.name}, {"images", s.images}, {"labels", s.labels}});
      if (!json_) fmt::print("  {}: {} images, {} with a label file\n", s.name, s.images, s.labels);
    }
    if (!json_) fmt::print("  in {}\n", found.root);
    next(j, fmt::format("train_seg --data {}{} --epochs 100 --imgsz 640", shell_word(name),
                        root.empty() ? "" : " --data-root " + shell_word(root.string())));
    if (json_) print_json(j);
    return 0;
  }

  // The notes, as words for a shell, of archives that had been unpacked before.
  std::vector<std::string> fetch_all(const std::string& name, const DatasetText& text, const fs::path& root,
                                     nlohmann::ordered_json& j) {
    const std::vector<DownloadSource> sources = download_sources(text);
    if (sources.empty()) {
      throw Error(ErrorCode::kData, "the data are not there, and the data yaml does not say where to get them", {text.source},
                  "add a line 'download: https://.../set.zip', or correct 'path:' where the data are there");
    }
    const DatasetYaml yaml = load_dataset_yaml(name, root);
    const DownloadPlace place = download_place(text, root);
    std::vector<std::string> notes;
    for (const DownloadSource& source : sources) {
      const fs::path file = place.folder / name_of(parse_url(source.url));
      Meter meter(log_, file.filename().string());
      FetchRequest r = request(source.url, file, meter);
      r.sha256 = source.sha256;
      r.sha256_from = text.source;
      const auto where = [&](const fs::path& all) {
        return source.to.empty() ? place_of_data(all, place, yaml) : Placement{all, (place.folder / source.to).lexically_normal()};
      };
      const ArchiveResult result = fetch_archive(r, place.folder, config_.flag("keep"), options(meter, where));
      meter.finish();
      j["archives"].push_back(archive_json(result));
      if (!json_) print_archive(result);
      if (result.unpacked_before) notes.push_back(shell_word(note_of(file).string()));
    }
    return notes;
  }

  void next(nlohmann::ordered_json& j, const std::string& command) const {
    j["next"] = command;
    if (!json_) fmt::print("next: {}\n", command);
  }

  const Config& config_;
  const LogStyle log_;
  const bool json_;
};

}  // namespace

int run_download(const Config& config) { return Download(config).run(); }

}  // namespace tessera
