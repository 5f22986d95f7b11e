// The page of a run: all in it, nothing from elsewhere, and text that is no markup.
#include "yolo/report/html_report.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tensor/base/file.h"
#include "tests/support/temp_folder.h"

using namespace tessera;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

Json metrics() {
  const Json set = {{"map", 0.25}, {"map50", 0.5}, {"maps", nullptr}, {"precision", 0.75}};
  return {{"command", "train"},
          {"model", "n"},
          {"data", "<b>&.yaml"},
          {"images", 4},
          {"box", set},
          {"mask", set},
          {"classes", {{{"name", "<script>alert(1)</script>"}, {"images", 3}, {"instances", 5}, {"box", set}, {"mask", set}}}},
          {"epoch", 7},
          {"speed_ms", {{"load", 1.5}}}};
}

// How often `what` stands in `text`.
int count(const std::string& text, const std::string& what) {
  int n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("report.html holds the figures, plots and settings of its folder, and refers to nothing else") {
  const testing::TempFolder folder;
  folder.write("results.png", std::string("\x89PNG\0\xff", 6));
  folder.write("worst_images.png", "abcd");
  folder.write("val_batch0_pred.png", "abcde");
  folder.write("images.csv", "image,objects\n\"a, <i>.png\",3\nb\xff.png,2\n\"c\n\"\"d.png\",4\n");
  folder.write("args.yaml", "epochs: 3 # <none>\n");
  write_html_report(folder.path(), metrics(), "tessera & friends");
  const std::string page = read_file(folder / "report.html", 1 << 20);

  for (const char* text :
       {"<title>train: n on &lt;b&gt;&amp;.yaml</title>", "tessera &amp; friends",
        "<td>mask</td><td>0.2500</td><td>0.5000</td><td>–</td>", "<th>mAP50-95 small</th>", "&lt;script&gt;alert(1)&lt;/script&gt;",
        "--part:25.0%", "--part:75.0%\">0.7500</td><td>–</td>", "<td>a, &lt;i&gt;.png</td><td>3</td>", "<td>b\xEF\xBF\xBD.png</td>",
        "<tr><td>c\n&quot;d.png</td><td>4</td></tr>", "epochs: 3 # &lt;none&gt;", "<td>epoch</td><td>7</td>",
        "ms an image: load</td><td>1.5",
        // RFC 4648 with none, two and one '='
        "src=\"data:image/png;base64,iVBORwD/\"", "base64,YWJjZA==\"", "base64,YWJjZGU=\""}) {
    CAPTURE(text);
    CHECK(page.find(text) != std::string::npos);
  }
  CHECK(count(page, "src=") == 3);
  CHECK(count(page, "src=\"data:") == 3);
  for (const char* text : {"<script", "href", "http", "url(", "Confusion", "Training data"}) {
    CAPTURE(text);
    CHECK(page.find(text) == std::string::npos);
  }
  for (const char* tag : {"table", "tr", "td", "th", "figure", "div", "h2", "details", "pre"}) {
    CAPTURE(tag);
    const int opened = count(page, std::string("<") + tag + ">") + count(page, std::string("<") + tag + " ");
    CHECK(opened > 0);
    CHECK(opened == count(page, std::string("</") + tag + ">"));
  }
}

TEST_CASE("report.html of a folder without plots, and of a run that measured nothing") {
  const testing::TempFolder folder;
  write_html_report(folder.path(), {{"command", "train"}, {"model", "n"}, {"data", "d"}, {"epoch", 1}}, "");
  const std::string page = read_file(folder / "report.html", 1 << 20);
  CHECK(page.find("<img") == std::string::npos);
  CHECK(page.find("Figures") == std::string::npos);
  CHECK(page.find("<td>epoch</td><td>1</td>") != std::string::npos);
  CHECK(page.ends_with("</body></html>\n"));
}
