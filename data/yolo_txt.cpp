#include "data/yolo_txt.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <set>
#include <tuple>

namespace tessera {

namespace {

constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v'; }

// from_chars with the leading '+' that it refuses.
template <class T>
std::errc parse_number(std::string_view text, T& value, const char*& stop) {
  if (text.starts_with('+') && text.size() > 1 && text[1] != '-') text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  stop = end;
  return error;
}

// Of a number that from_chars finds out of range, which says not on which side: by the place of its first digit other than 0.
bool is_below_one(std::string_view number) {
  const size_t e = std::min(number.find_first_of("eE"), number.size());
  const std::string_view digits = number.substr(0, e);
  const auto point = int64_t(std::min(digits.find('.'), digits.size())), first = int64_t(digits.find_first_of("123456789"));
  const int64_t place = first < point ? point - first - 1 : point - first;  // of 10
  int64_t exponent = 0;
  const char* stop = nullptr;
  if (e < number.size() && parse_number(number.substr(e + 1), exponent, stop) != std::errc()) return number[e + 1] == '-';
  constexpr int64_t kFar = int64_t{1} << 40;  // more than a file has digits
  return place + std::clamp(exponent, -kFar, kFar) < 0;
}

bool valid_utf8(std::string_view s) {
  for (size_t i = 0; i < s.size();) {
    const auto c = static_cast<unsigned char>(s[i]);
    const size_t follow = c < 0x80 ? 0 : (c >> 5) == 6 ? 1 : (c >> 4) == 14 ? 2 : (c >> 3) == 30 ? 3 : 9;
    if (follow == 9 || i + follow >= s.size() + (follow == 0 ? 1 : 0)) return false;
    for (size_t k = 1; k <= follow; ++k)
      if ((static_cast<unsigned char>(s[i + k]) >> 6) != 2) return false;
    i += follow + 1;
  }
  return true;
}

// Centre x, centre y, width, height of the vertices.
std::array<float, 4> box_of(const Polygon& polygon) {
  const BoxXyxy b = bounding_box(polygon);
  return {(b.x1 + b.x2) / 2, (b.y1 + b.y2) / 2, b.x2 - b.x1, b.y2 - b.y1};
}

// Of a whole file. Member by member: gcc 12 takes a Finding in braces for uninitialised.
void add_finding(LabelFile& to, Severity severity, const char* code, const std::string& file, std::string message,
                 std::string hint = {}) {
  Finding& f = to.findings.emplace_back();
  f.severity = severity, f.code = code, f.where.file = file;
  f.message = std::move(message), f.hint = std::move(hint);
}

class Parser {
 public:
  Parser(std::string_view text, const std::string& file, int64_t classes, LabelPolicy policy, bool single_cls)
      : text_(text), file_(file), classes_(classes), strict_(policy == LabelPolicy::kStrict), single_cls_(single_cls) {}

  LabelFile run() {
    if (text_.starts_with(kUtf8Mark)) {
      report(Severity::kNote, "file-bom", 1, 1, "the file starts with a byte-order mark, which is skipped", "save as plain UTF-8");
      text_.remove_prefix(kUtf8Mark.size());
    }
    const bool utf16 = text_.starts_with("\xFF\xFE") || text_.starts_with("\xFE\xFF");
    if (utf16 || text_.find('\0') != std::string_view::npos || !valid_utf8(text_)) {
      report(Severity::kWarning, "file-text", 0, 0, utf16 ? "the label file is UTF-16 text" : "the label file is not text",
             utf16 ? "save it as UTF-8" : "write one object a row: class x1 y1 x2 y2 ...");
      out_.unusable = true;
      return std::move(out_);
    }
    int64_t line = 0;
    for (size_t at = 0; at < text_.size();) {
      size_t end = text_.find('\n', at);
      if (end == std::string_view::npos) end = text_.size();
      parse_row(text_.substr(at, end - at), ++line);
      at = end + 1;
    }
    if (out_.objects.empty() && out_.rows > 0) {
      out_.unusable = true;
      if (out_.box_rows < out_.rows)
        report(Severity::kWarning, "file-unusable", 0, 0, "no row of this file can be used; its image is left out",
               "correct the rows, or empty the file to make it a background image");
    }
    if (suppressed_ > 0)
      add_finding(out_, Severity::kNote, "more", file_, fmt::format("{} further findings in this file", suppressed_));
    return std::move(out_);
  }

 private:
  void report(Severity severity, const char* code, int64_t line, int64_t column, std::string message, std::string hint) {
    Finding f{severity, code, {file_, line, column}, std::move(message), std::move(hint)};
    if (strict_ && severity == Severity::kWarning) throw Error(ErrorCode::kData, f.message, f.where, f.hint);
    if (int64_t(out_.findings.size()) < kMaxFindings)
      out_.findings.push_back(std::move(f));
    else
      ++suppressed_;
  }

  void drop(const char* code, int64_t line, int64_t column, std::string message, std::string hint) {
    ++out_.dropped;
    report(Severity::kWarning, code, line, column, std::move(message), std::move(hint));
  }

  // A field that is not a plain number: says what it is instead.
  void drop_number(std::string_view field, int64_t line, int64_t column) {
    std::string shown(field.substr(0, 24));
    if (field.find(',') != std::string_view::npos)
      return drop("row-number", line, column, fmt::format("'{}' is not a number: it holds a comma", shown),
                  "write 0.5, not 0,5, and blanks between numbers");
    drop("row-number", line, column, fmt::format("'{}' is not a number", shown), "a row is: class x1 y1 x2 y2 ...");
  }

  void parse_row(std::string_view row, int64_t line) {
    const char* const begin = row.data();
    const char* p = begin;
    const char* const end = begin + row.size();
    const auto next_field = [&]() -> std::string_view {
      while (p < end && is_blank(*p)) ++p;
      const char* first = p;
      while (p < end && !is_blank(*p)) ++p;
      return {first, size_t(p - first)};
    };
    const auto column = [&](std::string_view field) { return int64_t(field.data() - begin) + 1; };

    const std::string_view first = next_field();
    if (first.empty()) return;
    ++out_.rows;
    LabelObject object;
    const char* stop = nullptr;
    double id = 0;
    if (parse_number(first, id, stop) != std::errc() || stop != first.data() + first.size())
      return drop_number(first, line, column(first));
    if (!std::isfinite(id) || id != std::floor(id))
      return drop("row-class", line, column(first), fmt::format("the class '{}' is not a whole number", first),
                  fmt::format("class ids run from 0 to {}", classes_ - 1));
    if (id < 0 || (id >= double(classes_) && !single_cls_))
      return drop("row-class", line, column(first), fmt::format("class {} is not in this data set", first),
                  fmt::format("class ids run from 0 to {}; add the class to 'names', or correct the row", classes_ - 1));
    object.class_id = single_cls_ ? 0 : int32_t(id);

    scratch_.clear();
    bool clipped = false;
    int64_t clipped_column = 0;
    for (std::string_view field = next_field(); !field.empty(); field = next_field()) {
      float v = 0;
      const std::errc error = parse_number(field, v, stop);
      if (stop != field.data() + field.size() || (error != std::errc() && error != std::errc::result_out_of_range))
        return drop_number(field, line, column(field));
      if (error == std::errc::result_out_of_range) v = is_below_one(field) ? 0.0f : HUGE_VALF;
      if (std::isnan(v)) return drop("row-nan", line, column(field), "a coordinate is NaN", "correct or remove the row");
      if (std::isinf(v)) return drop("row-inf", line, column(field), "a coordinate is infinite", "correct or remove the row");
      if (v < -kLabelTolerance || v > 1 + kLabelTolerance)
        return drop(
            "row-range", line, column(field), fmt::format("the coordinate {} lies outside 0..1", field),
            v > 2 ? "coordinates are fractions: divide x by the image width and y by its height" : "clip the polygon to the image");
      if (v < 0 || v > 1) {
        if (!clipped) clipped_column = column(field);
        clipped = true;
        v = v < 0 ? 0.0f : 1.0f;
      }
      scratch_.push_back(v);
    }
    const int64_t count = int64_t(scratch_.size());
    if (count == 4) {
      ++out_.box_rows;
      return drop("row-box", line, 1, "this row is a box (class and 4 numbers), not a polygon",
                  "a segmentation row holds at least three points: class x1 y1 x2 y2 x3 y3");
    }
    if (count % 2 != 0)
      return drop("row-odd", line, 1, fmt::format("{} coordinates: one is missing", count), "coordinates come in pairs x y");
    if (count < 6)
      return drop("row-short", line, 1, fmt::format("{} coordinates are fewer than three points", count),
                  "a polygon needs at least three points");
    object.polygon.resize(scratch_.size() / 2);
    for (size_t i = 0; i < object.polygon.size(); ++i) object.polygon[i] = {scratch_[2 * i], scratch_[2 * i + 1]};
    object.box = box_of(object.polygon);
    if (!(object.box[2] > 0 && object.box[3] > 0)) return drop("row-flat", line, 1, "the polygon has no area", "remove the row");
    const bool seen = std::any_of(out_.objects.begin(), out_.objects.end(), [&](const LabelObject& o) {
      return o.class_id == object.class_id && o.box == object.box && o.polygon == object.polygon;
    });
    if (seen) {
      ++out_.duplicates;
      return drop("row-twice", line, 1, "the same row stands above", "remove one of them");
    }
    if (clipped)
      report(Severity::kNote, "row-clipped", line, clipped_column,
             fmt::format("coordinates up to {} outside 0..1 are clipped", kLabelTolerance), "");
    out_.objects.push_back(std::move(object));
  }

  std::string_view text_;
  const std::string& file_;
  int64_t classes_;
  bool strict_, single_cls_;
  LabelFile out_;
  std::vector<float> scratch_;
  int64_t suppressed_ = 0;
};

// ---- the original's rules, spec 5.3 ------------------------------------------------------------------------------------

// The numbers of each row that is not empty. Returns what is no number; empty: all are.
std::string_view read_rows(std::string_view text, std::vector<std::vector<float>>& rows) {
  static constexpr std::string_view kLineEnds = "\n\r\v\f\x1C\x1D\x1E";  // all that Python's splitlines takes for one
  static constexpr std::string_view kStripped = " \t\n\r\v\f\x1C\x1D\x1E";
  const size_t first = text.find_first_not_of(kStripped);
  text = first == std::string_view::npos ? std::string_view() : text.substr(first, text.find_last_not_of(kStripped) - first + 1);
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find_first_of(kLineEnds, at);
    if (end == std::string_view::npos) end = text.size();
    const std::string_view row = text.substr(at, end - at);
    at = end + 1;
    if (row.empty()) continue;
    std::vector<float> values;
    for (size_t i = 0; i < row.size();) {
      while (i < row.size() && is_blank(row[i])) ++i;
      size_t j = i;
      while (j < row.size() && !is_blank(row[j])) ++j;
      if (j == i) break;
      const std::string_view field = row.substr(i, j - i);
      double v = 0;
      const char* stop = nullptr;
      if (parse_number(field, v, stop) != std::errc() || stop != field.data() + field.size()) return field;
      values.push_back(float(v));
      i = j;
    }
    rows.push_back(std::move(values));
  }
  return {};
}

// By (class, box): the first of each stays, in lexicographic order; without duplicates the order stays (5.3, 6).
void drop_duplicates(LabelFile& out, const std::string& file) {
  std::vector<size_t> order(out.objects.size());
  std::iota(order.begin(), order.end(), size_t(0));
  const auto key = [&](size_t i) { return std::tuple(out.objects[i].class_id, out.objects[i].box); };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
  order.erase(std::unique(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) == key(b); }), order.end());
  if (order.size() == out.objects.size()) return;
  out.duplicates = int64_t(out.objects.size() - order.size());
  std::vector<LabelObject> unique;
  for (const size_t i : order) unique.push_back(std::move(out.objects[i]));
  out.objects = std::move(unique);
  add_finding(out, Severity::kNote, "row-twice", file, fmt::format("{} duplicate rows removed", out.duplicates));
}

LabelFile parse_as_original(std::string_view text, const std::string& file, int64_t classes, bool single_cls) {
  LabelFile out;
  const auto corrupt = [&](std::string message) {
    out.objects.clear();
    out.findings.clear();
    add_finding(out, Severity::kWarning, "file-corrupt", file, std::move(message), "the original leaves the image out");
    out.unusable = true;
    return out;
  };
  if (!valid_utf8(text)) return corrupt("not UTF-8 text");
  std::vector<std::vector<float>> rows;
  if (const std::string_view field = read_rows(text, rows); !field.empty())
    return corrupt(fmt::format("'{}' is not a number", field.substr(0, 24)));
  out.rows = int64_t(rows.size());
  const bool polygons = std::any_of(rows.begin(), rows.end(), [](const auto& row) { return row.size() > 6; });
  for (const std::vector<float>& row : rows) {
    LabelObject object;
    if (polygons) {
      if (row.size() < 3 || row.size() % 2 == 0) return corrupt(fmt::format("a polygon row has {} fields", row.size()));
      for (size_t i = 1; i + 1 < row.size(); i += 2) object.polygon.push_back({row[i], row[i + 1]});
      object.box = box_of(object.polygon);
    } else {
      if (row.size() != 5) return corrupt(fmt::format("a row has {} fields, expected 5", row.size()));
      object.box = {row[1], row[2], row[3], row[4]};
    }
    const float id = row[0];
    if (!std::isfinite(id)) return corrupt("a class is not finite");
    for (const float v : object.box)
      if (!(v <= 1)) return corrupt("coordinates above 1 or not finite");
    for (const float v : object.box)
      if (!(v >= 0)) return corrupt("negative coordinates");
    if (id < 0) return corrupt("negative class");
    if (id >= float(classes) && !single_cls) return corrupt(fmt::format("class {} of {}", id, classes));
    object.class_id = single_cls ? 0 : int32_t(id);
    out.objects.push_back(std::move(object));
  }
  if (!polygons) out.box_rows = int64_t(rows.size());
  drop_duplicates(out, file);
  return out;
}

}  // namespace

LabelFile parse_labels(std::string_view text, const std::string& file, int64_t classes, LabelPolicy policy, bool single_cls) {
  if (policy == LabelPolicy::kOriginal) return parse_as_original(text, file, classes, single_cls);
  return Parser(text, file, classes, policy, single_cls).run();
}

}  // namespace tessera
