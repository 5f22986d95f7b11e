#include "data/coco_records.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "tensor/base/file.h"

namespace tessera::coco {

namespace {

using Json = nlohmann::json;

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// Follows quotes and brackets only.
class Scanner {
 public:
  explicit Scanner(const JsonText& file) : file_(file), text_(file.text()) {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
  }

  size_t at() const { return at_; }

  char peek() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  void expect(char c, const char* what) {
    if (peek() != c) unexpected(what);
    ++at_;
  }

  // After a value: true to go on behind a comma, false when `close` ends the list.
  bool next(char close) {
    const char c = peek();
    if (c != ',' && c != close) unexpected(close == ']' ? "',' or ']'" : "',' or '}'");
    ++at_;
    return c == ',';
  }

  std::string_view string() {
    const size_t begin = at_ + 1;
    expect('"', "a quoted key");
    skip_string();
    return text_.substr(begin, at_ - 1 - begin);
  }

  Extent value() {
    const char first = peek();
    Extent extent{at_, at_};
    if (first == '{' || first == '[') {
      int64_t depth = 0;
      do {
        if (at_ == text_.size())
          file_.fail(extent.begin, "this value is not closed before the end of the file", "the file is cut off");
        switch (text_[at_++]) {
          case '"': skip_string(); break;
          case '{':
          case '[': ++depth; break;
          case '}':
          case ']': --depth; break;
          default: break;
        }
      } while (depth > 0);
    } else if (first == '"') {
      ++at_;
      skip_string();
    } else {
      while (at_ < text_.size() && !is_space(text_[at_]) && text_[at_] != ',' && text_[at_] != ']' && text_[at_] != '}') ++at_;
      if (at_ == extent.begin) unexpected("a value");
    }
    extent.end = at_;
    return extent;
  }

  void end() {
    if (peek() != '\0' || at_ < text_.size()) unexpected("the end of the file");
  }

 private:
  void skip_string() {  // at_ stands behind the opening quote
    const size_t begin = at_;
    for (;;) {
      const void* quote = std::memchr(text_.data() + at_, '"', text_.size() - at_);
      if (!quote)
        file_.fail(begin - 1, "this text is not closed before the end of the file", "the file is cut off or a quote is missing");
      const size_t found = size_t(static_cast<const char*>(quote) - text_.data());
      size_t slashes = 0;
      while (found - slashes > begin && text_[found - 1 - slashes] == '\\') ++slashes;
      at_ = found + 1;
      if (slashes % 2 == 0) return;
    }
  }

  [[noreturn]] void unexpected(const char* what) {
    if (at_ >= text_.size())
      file_.fail(text_.size(), fmt::format("expected {}, found the end of the file", what), "the file is cut off");
    file_.fail(at_, fmt::format("expected {}, found '{}'", what, text_[at_]), "the file is not well-formed JSON here");
  }

  const JsonText& file_;
  std::string_view text_;
  size_t at_ = 0;
};

std::vector<Extent> scan_values(Scanner& scan, const char* what) {
  scan.expect('[', what);
  std::vector<Extent> values;
  if (scan.peek() == ']') {
    scan.next(']');
    return values;
  }
  do {
    values.push_back(scan.value());
  } while (scan.next(']'));
  return values;
}

// "[json.exception.parse_error.101] parse error at line 1, column 12: syntax error while ..." -> the part that says something.
std::string plain_message(const char* what) {
  const std::string_view text = what;
  const size_t column = text.find("column ");
  const size_t colon = column == text.npos ? text.npos : text.find(": ", column);
  return "malformed JSON: " + std::string(colon == text.npos ? text : text.substr(colon + 2));
}

// Depth 1 is inside the record, 2 inside one of its arrays or its segmentation object, 3 inside a polygon, a size or counts.
class RecordHandler final : public Json::json_sax_t {
 public:
  explicit RecordHandler(Record& record) : r_(record) {}

  std::string problem;        // set when a callback refuses to go on
  size_t problem_offset = 0;  // 1-based, within the record; 0 = unknown

  bool null() override {
    return scalar([&] { return true; });
  }
  bool boolean(bool v) override {
    return scalar([&] {
      if (key_ == Key::kCrowd)
        r_.crowd = v;
      else if (key_ != Key::kOther)
        return mistyped("true or false");
      return true;
    });
  }
  bool number_integer(Json::number_integer_t v) override { return number(double(v), v, true); }
  bool number_unsigned(Json::number_unsigned_t v) override { return number(double(v), int64_t(v), v <= uint64_t(INT64_MAX)); }
  bool number_float(Json::number_float_t v, const Json::string_t&) override {
    const bool whole = std::abs(v) < 9e15 && v == std::floor(v);
    return number(v, whole ? int64_t(v) : 0, whole);
  }
  bool string(Json::string_t& v) override {
    if (depth_ == 2 && key_ == Key::kSegmentation && sub_ == Sub::kCounts) {
      r_.segmentation = Segmentation::kString;
      r_.text.swap(v);
      return true;
    }
    return scalar([&] {
      switch (key_) {
        case Key::kFileName: r_.file_name = v, r_.has |= Record::kFileName; return true;
        case Key::kName: r_.name = v, r_.has |= Record::kName; return true;
        case Key::kImageId: r_.image_stem = v, r_.has |= Record::kImageId; return true;
        case Key::kOther: return true;
        default: return mistyped("text");
      }
    });
  }
  bool binary(Json::binary_t&) override { return true; }

  bool start_object(std::size_t) override {
    if (depth_ == 1 && key_ != Key::kOther && key_ != Key::kSegmentation) return mistyped("an object");
    if (depth_ >= 2 && key_ == Key::kSegmentation) return mistyped("an object inside a list");
    if (depth_ == 1 && key_ == Key::kSegmentation) r_.segmentation = Segmentation::kCounts;
    ++depth_;
    return true;
  }
  bool end_object() override { return --depth_, true; }

  bool start_array(std::size_t) override {
    ++depth_;
    if (depth_ == 1) return problem = "expected an object {...}, found a list", false;
    if (depth_ == 2 && key_ == Key::kBox)
      r_.has |= Record::kBox, r_.box.clear();
    else if (depth_ == 2 && key_ == Key::kSegmentation)
      r_.segmentation = Segmentation::kPolygons, sub_ = Sub::kRings;
    else if (depth_ == 2 && key_ != Key::kOther)
      return mistyped("a list");
    else if (depth_ > 3 && key_ == Key::kSegmentation)
      return mistyped("a list inside a list of numbers");
    else if (depth_ == 3 && key_ == Key::kBox)
      return mistyped("a list inside a list of numbers");
    return true;
  }
  bool end_array() override {
    if (depth_ == 3 && key_ == Key::kSegmentation && sub_ == Sub::kRings) r_.ring_end.push_back(r_.coordinates.size());
    return --depth_, true;
  }

  bool key(Json::string_t& name) override {
    if (depth_ == 1) {
      key_ = find_key(name);
      sub_ = Sub::kOther;
    } else if (depth_ == 2 && key_ == Key::kSegmentation) {
      sub_ = name == "size" ? Sub::kSize : name == "counts" ? Sub::kCounts : Sub::kOther;
    }
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const Json::exception& e) override {
    problem = plain_message(e.what());
    problem_offset = position;
    return false;
  }

 private:
  enum class Key {
    kOther,
    kId,
    kImageId,
    kCategoryId,
    kHeight,
    kWidth,
    kScore,
    kCrowd,
    kArea,
    kBox,
    kFileName,
    kName,
    kSegmentation
  };
  enum class Sub { kOther, kSize, kCounts, kRings };

  static Key find_key(const std::string& name) {
    static constexpr std::pair<std::string_view, Key> kKeys[] = {{"image_id", Key::kImageId},
                                                                 {"category_id", Key::kCategoryId},
                                                                 {"bbox", Key::kBox},
                                                                 {"score", Key::kScore},
                                                                 {"segmentation", Key::kSegmentation},
                                                                 {"id", Key::kId},
                                                                 {"area", Key::kArea},
                                                                 {"iscrowd", Key::kCrowd},
                                                                 {"height", Key::kHeight},
                                                                 {"width", Key::kWidth},
                                                                 {"file_name", Key::kFileName},
                                                                 {"name", Key::kName}};
    for (const auto& [text, key] : kKeys) {
      if (name == text) return key;
    }
    return Key::kOther;
  }

  const char* key_name() const {
    static constexpr const char* kNames[] = {"",        "id",   "image_id", "category_id", "height", "width",       "score",
                                             "iscrowd", "area", "bbox",     "file_name",   "name",   "segmentation"};
    return kNames[static_cast<int>(key_)];
  }

  bool mistyped(const char* found) {
    problem = fmt::format("'{}' holds {}", key_name(), found);
    return false;
  }

  template <class Set>
  bool scalar(Set set) {
    if (depth_ == 0) return problem = "expected an object {...}, found a single value", false;
    if (depth_ == 1) return set();
    if (key_ == Key::kBox || (key_ == Key::kSegmentation && sub_ != Sub::kOther)) return mistyped("something that is not a number");
    return true;
  }

  bool number(double v, int64_t whole, bool is_whole) {
    const auto integer = [&](int64_t& field, Record::Field bit) {
      if (!is_whole) return mistyped("a number that is not whole");
      field = whole, r_.has |= bit;
      return true;
    };
    if (depth_ >= 2) {
      if (key_ == Key::kBox && depth_ == 2) r_.box.push_back(v);
      if (key_ != Key::kSegmentation) return true;
      if (sub_ == Sub::kRings) {
        if (depth_ != 3) return mistyped("a flat list of numbers: expected a list of polygons [[x, y, ...], ...]");
        r_.coordinates.push_back(v);
      } else if (sub_ != Sub::kOther) {
        if (!is_whole || depth_ != 3)
          return mistyped(sub_ == Sub::kSize ? "a 'size' that is not two whole numbers" : "'counts' that are not whole numbers");
        (sub_ == Sub::kSize ? r_.size : r_.counts).push_back(whole);
      }
      return true;
    }
    switch (key_) {
      case Key::kId: return integer(r_.id, Record::kId);
      case Key::kImageId: return integer(r_.image_id, Record::kImageId);
      case Key::kCategoryId: return integer(r_.category_id, Record::kCategoryId);
      case Key::kHeight: return integer(r_.height, Record::kHeight);
      case Key::kWidth: return integer(r_.width, Record::kWidth);
      case Key::kScore: r_.score = v, r_.has |= Record::kScore; return true;
      case Key::kArea: r_.area = v, r_.has |= Record::kArea; return true;
      case Key::kCrowd: r_.crowd = v != 0; return true;
      case Key::kOther: return true;
      default: return mistyped("a number");
    }
  }

  Record& r_;
  int depth_ = 0;
  Key key_ = Key::kOther;
  Sub sub_ = Sub::kOther;
};

}  // namespace

JsonText::JsonText(const std::filesystem::path& file) : name_(file.string()) {
  size_t size = 0;
  const int in = open_regular_file(file, size);
  void* bytes = size > 0 ? ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, in, 0) : nullptr;
  const int failed = bytes == MAP_FAILED ? errno : 0;
  ::close(in);
  if (failed != 0) throw_file_error("read", file, failed);
  if (size == 0) return;
  size_ = size;
  bytes_ = static_cast<const char*>(bytes);
  ::madvise(bytes, size_, MADV_WILLNEED);
}

JsonText::~JsonText() {
  if (bytes_) ::munmap(const_cast<char*>(bytes_), size_);
}

FileLocation JsonText::locate(size_t byte) const {
  byte = std::min(byte, size_);
  const std::string_view before = text().substr(0, byte);
  const size_t line_begin = before.rfind('\n') == before.npos ? 0 : before.rfind('\n') + 1;
  return {name_, 1 + std::count(before.begin(), before.end(), '\n'), 1 + static_cast<int64_t>(byte - line_begin)};
}

void JsonText::fail(size_t byte, std::string message, std::string hint) const {
  if (hint.empty()) hint = "correct it there, or write the file again";
  throw Error(ErrorCode::kData, std::move(message), locate(byte), std::move(hint));
}

std::vector<Extent> scan_array(const JsonText& file, std::string_view what) {
  Scanner scan(file);
  if (scan.peek() == '{') {
    file.fail(scan.at(), fmt::format("expected a list [...] of {}, found an object", what),
              "a results file is a list of detections, not an instances file");
  }
  auto values = scan_values(scan, "a list [...]");
  scan.end();
  return values;
}

std::vector<Section> scan_object(const JsonText& file, const std::vector<std::string_view>& wanted, std::string_view what) {
  Scanner scan(file);
  if (scan.peek() == '[') {
    file.fail(scan.at(), fmt::format("expected an object with {}, found a list", what),
              "this looks like a results file; give it as predictions");
  }
  scan.expect('{', "an object {...}");
  std::vector<Section> sections;
  if (scan.peek() == '}') {
    scan.next('}');
  } else {
    do {
      scan.peek();
      const std::string key(scan.string());
      scan.expect(':', "':' after a key");
      if (std::find(wanted.begin(), wanted.end(), key) != wanted.end()) {
        sections.push_back({key, scan_values(scan, "a list [...]")});
      } else {
        const Extent skipped = scan.value();
        const auto text = file.text().substr(skipped.begin, skipped.end - skipped.begin);
        if (!Json::accept(text.begin(), text.end()))
          file.fail(skipped.begin, fmt::format("the value of '{}' is malformed JSON", key));
      }
    } while (scan.next('}'));
  }
  scan.end();
  return sections;
}

void Record::clear() {
  has = 0;
  id = image_id = category_id = height = width = 0;
  score = area = 0;
  crowd = false;
  segmentation = Segmentation::kNone;
  image_stem.clear(), file_name.clear(), name.clear(), text.clear();
  box.clear(), coordinates.clear(), ring_end.clear(), size.clear(), counts.clear();
}

namespace {

// Most bytes of a results file are compressed masks. Their text needs no parser: find_counts returns the extent between the quotes
// of a "counts" value when it holds no escapes but double backslashes; an empty extent sends it through the parser.
Extent find_counts(std::string_view record) {
  static constexpr std::string_view kKey = "\"counts\"";
  size_t at = record.find(kKey);
  if (at == record.npos) return {};
  at += kKey.size();
  const auto skip = [&](char c) {
    while (at < record.size() && is_space(record[at])) ++at;
    return at < record.size() && record[at++] == c;
  };
  if (!skip(':') || !skip('"')) return {};
  const size_t begin = at;
  for (;;) {
    at = record.find('"', at);
    if (at == record.npos) return {};
    size_t slashes = 0;
    while (record[at - 1 - slashes] == '\\') ++slashes;
    if (slashes % 2 == 0) break;
    ++at;
  }
  const std::string_view text = record.substr(begin, at - begin);
  for (size_t slash = 0; (slash = text.find('\\', slash)) != text.npos; slash += 2) {
    if (text[slash + 1] != '\\') return {};
  }
  return {begin, at};
}

void append_unescaped(std::string_view text, std::string& out) {
  for (size_t slash; (slash = text.find('\\')) != text.npos; text.remove_prefix(slash + 2)) out.append(text.substr(0, slash + 1));
  out.append(text);
}

}  // namespace

void parse_record(const JsonText& file, Extent where, Record& record) {
  record.clear();
  RecordHandler handler(record);
  const std::string_view text = file.text().substr(where.begin, where.end - where.begin);
  const Extent cut = find_counts(text);
  thread_local std::string rest;
  rest.assign(text.substr(0, cut.begin)).append(text.substr(cut.end));
  if (Json::sax_parse(rest.data(), rest.data() + rest.size(), &handler)) {
    if (cut.end > cut.begin && record.segmentation == Segmentation::kString) {
      append_unescaped(text.substr(cut.begin, cut.end - cut.begin), record.text);
    }
    return;
  }
  size_t within = handler.problem_offset > 0 ? handler.problem_offset - 1 : 0;
  if (within >= cut.begin) within += cut.end - cut.begin;
  file.fail(where.begin + within, handler.problem);
}

}  // namespace tessera::coco
