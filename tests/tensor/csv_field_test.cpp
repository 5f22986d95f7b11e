#include "tensor/base/csv_field.h"

#include <doctest/doctest.h>
#include <fmt/ranges.h>

#include <string>
#include <vector>

using namespace tessera;

TEST_CASE("fields of a csv line: quoted where they must be, and read as they were written") {
  CHECK(csv_field("a b.jpg") == "a b.jpg");
  CHECK(csv_field("a,b.jpg") == "\"a,b.jpg\"");
  CHECK(csv_field("6\" pipe") == "\"6\"\" pipe\"");
  const std::vector<std::string> texts = {"", "plain", "a,b", "\"", "\"quoted\"", "x\"y", ",", "two\nlines"};
  std::vector<std::string> fields, quoted;
  for (const std::string& text : texts) fields.push_back(csv_field(text)), quoted.push_back(csv_quoted(text));
  for (const bool all : {false, true}) {
    const std::vector<CsvField> read = csv_fields(fmt::format("{}", fmt::join(all ? quoted : fields, ",")));
    REQUIRE(read.size() == texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      CHECK(read[i].text == texts[i]);
      CHECK(read[i].quoted == (all || fields[i] != texts[i]));
    }
  }
  CHECK(csv_fields("").size() == 1);
  CHECK(csv_fields("a,").size() == 2);
  CHECK(csv_fields("x\"y,z")[0].text == "x\"y");
  CHECK(csv_fields("\"open, to the end")[0].text == "open, to the end");
}
