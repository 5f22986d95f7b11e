#include "yolo/report/html_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "tensor/base/csv_field.h"
#include "tensor/base/file.h"

namespace tessera {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr size_t kMostBytes = size_t(64) << 20;  // of a file that is taken in
constexpr size_t kShownRows = 25;

constexpr std::string_view kStyle = R"(
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin:2rem 0 .6rem;border-bottom:1px solid #8886}
.by{color:#888;margin-top:0}.wide{overflow-x:auto}
table{border-collapse:collapse}th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #8884;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
td.bar{min-width:7rem;background:linear-gradient(#4a90d966,#4a90d966) no-repeat left/var(--part) 100%}
figure{margin:1rem 0}img{max-width:100%;height:auto;background:#fff}figcaption{color:#888}pre{overflow-x:auto}
)";

struct Plot {
  const char *file, *caption;
};
struct Chapter {
  const char* title;
  std::vector<Plot> plots;
  const char* table = nullptr;  // a .csv file, whose first rows follow them
};
const std::vector<Chapter>& chapters() {
  static const std::vector<Chapter> all = {
      {"Course of the training", {{"results.png", "losses, metrics and rates over the epochs"}}},
      {"Images that fail", {{"worst_images.png", "the worst: labels, and beside them the detections that count"}}, "images.csv"},
      {"Masks", {{"MaskPR_curve.png", "precision over recall"}, {"MaskF1_curve.png", "F1 over confidence"}}},
      {"Boxes", {{"BoxPR_curve.png", "precision over recall"}, {"BoxF1_curve.png", "F1 over confidence"}}},
      {"Confusion", {{"confusion_matrix_normalized.png", "by boxes; columns: what is there, rows: what was found"}}},
      {"Validation", {{"val_batch0_labels.png", "labels"}, {"val_batch0_pred.png", "predictions"}}},
      {"Training data",
       {{"labels.png", "objects of each class, their places and sizes"}, {"train_batch0.png", "a batch as trained"}}}};
  return all;
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t three = 0;
    for (size_t k = 0; k < 3; ++k) three = three << 8 | (i + k < bytes.size() ? uint8_t(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? kDigits[three >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

// Empty: there is none, or it is too large.
std::string content_of(const fs::path& file) {
  std::error_code failed;
  const auto size = fs::file_size(file, failed);
  return failed || size > kMostBytes ? "" : read_file(file, kMostBytes);
}

// Text with what HTML reads as markup spelled out; bytes that are no UTF-8 become U+FFFD.
std::string html_text(std::string_view text) {
  // Through JSON, which replaces what is no UTF-8.
  const std::string valid = Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
  std::string out;
  for (const char c : valid) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string number(const Json& value) {
  if (value.is_null()) return "–";
  if (value.is_number_float()) return fmt::format("{:.4g}", value.get<double>());
  return html_text(value.is_string() ? value.get<std::string>() : value.dump());
}

// A fraction with a bar behind it.
std::string share(const Json& value) {
  if (!value.is_number()) return "<td>–</td>";
  const double v = value.get<double>();
  return fmt::format(R"(<td class="bar" style="--part:{:.1f}%">{:.4f}</td>)", 100 * v, v);
}

std::string figures(const Json& metrics) {
  if (!metrics.contains("box") || !metrics.contains("mask")) return "";
  const auto heading = [](const std::string& key) {
    if (key == "map") return std::string("mAP50-95");
    if (key == "maps" || key == "mapm" || key == "mapl")
      return std::string("mAP50-95 ") + (key == "maps" ? "small" : key == "mapm" ? "medium" : "large");
    return key.starts_with("map") ? "mAP" + key.substr(3) : html_text(key);
  };
  std::string out = "<h2>Figures</h2><div class=\"wide\"><table><tr><th></th>";
  for (const auto& [key, value] : metrics["mask"].items()) out += fmt::format("<th>{}</th>", heading(key));
  for (const char* kind : {"mask", "box"}) {
    out += fmt::format("</tr>\n<tr><td>{}</td>", kind);
    for (const auto& [key, value] : metrics[kind].items())
      out += value.is_number() ? fmt::format("<td>{:.4f}</td>", value.get<double>()) : "<td>–</td>";
  }
  return out + "</tr></table></div>\n";
}

std::string classes(const Json& metrics) {
  if (!metrics.contains("classes") || metrics["classes"].empty()) return "";
  std::string out =
      "<h2>Classes</h2><div class=\"wide\"><table><tr><th>class</th><th>images</th><th>objects</th><th>mask mAP50-95</th>"
      "<th>mask mAP50</th><th>mask P</th><th>mask R</th><th>box mAP50-95</th><th>box mAP50</th><th>box P</th><th>box R</th></tr>\n";
  for (const Json& c : metrics["classes"]) {
    out += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td>", number(c["name"]), number(c["images"]), number(c["instances"]));
    for (const char* kind : {"mask", "box"}) {
      for (const char* key : {"map", "map50", "precision", "recall"}) out += share(c[kind].value(key, Json()));
    }
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

std::string facts(const Json& metrics) {
  std::string out = "<h2>The run</h2><table>\n";
  for (const auto& [key, value] : metrics.items()) {
    if (value.is_primitive() && key != "command")
      out += fmt::format("<tr><td>{}</td><td>{}</td></tr>\n", html_text(key), number(value));
  }
  if (metrics.contains("speed_ms")) {
    for (const auto& [key, value] : metrics["speed_ms"].items())
      out += fmt::format("<tr><td>ms an image: {}</td><td>{}</td></tr>\n", html_text(key), number(value));
  }
  return out + "</table>\n";
}

// Of a row of CSV, in which a quoted name of a file may hold lines of its own.
size_t row_end(std::string_view text, size_t begin) {
  bool quoted = false;
  size_t end = begin;
  for (; end < text.size() && (quoted || text[end] != '\n'); ++end) quoted ^= text[end] == '"';
  return end;
}

std::string first_rows(const fs::path& file) {
  const std::string text = content_of(file);
  if (text.empty()) return "";
  std::string out = "<div class=\"wide\"><table>\n";
  size_t row = 0;
  for (size_t begin = 0; begin < text.size() && row <= kShownRows; ++row) {
    const size_t end = row_end(text, begin);
    out += "<tr>";
    for (const CsvField& field : csv_fields(std::string_view(text).substr(begin, end - begin))) {
      const char* const tag = row == 0 ? "th" : "td";
      out += fmt::format("<{0}>{1}</{0}>", tag, html_text(field.text));
    }
    out += "</tr>\n";
    begin = end + 1;
  }
  return out + "</table></div>\n";
}

}  // namespace

void write_html_report(const fs::path& run_folder, const Json& metrics, const std::string& made_by) {
  const auto text = [&](const char* key) { return metrics.contains(key) ? number(metrics[key]) : std::string(); };
  const std::string title = fmt::format("{}: {} on {}", text("command"), text("model"), text("data"));
  write_file_atomic(run_folder / "report.html", [&](AtomicFile& out) {
    out.write(
        fmt::format("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                    "<meta name=\"viewport\" content=\"width=device-width\"><title>{0}</title><style>{1}</style></head>\n"
                    "<body><h1>{0}</h1><p class=\"by\">{2}</p>\n",
                    title, kStyle, html_text(made_by)));
    out.write(figures(metrics) + classes(metrics));
    for (const Chapter& chapter : chapters()) {
      std::string body;
      for (const Plot& p : chapter.plots) {
        const std::string png = content_of(run_folder / p.file);
        if (png.empty()) continue;
        body +=
            fmt::format("<figure><img alt=\"{0}\" src=\"data:image/png;base64,{1}\"><figcaption>{2} ({0})</figcaption></figure>\n",
                        p.file, base64(png), p.caption);
      }
      if (chapter.table != nullptr) body += first_rows(run_folder / chapter.table);
      if (!body.empty()) out.write(fmt::format("<h2>{}</h2>\n{}", chapter.title, body));
    }
    out.write(facts(metrics));
    if (const std::string arguments = content_of(run_folder / "args.yaml"); !arguments.empty())
      out.write(
          fmt::format("<h2>Arguments</h2><details><summary>args.yaml</summary><pre>{}</pre></details>\n", html_text(arguments)));
    out.write("</body></html>\n");
  });
}

}  // namespace tessera
