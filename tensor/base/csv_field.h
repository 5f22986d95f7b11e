// Text between commas that may hold commas itself, as RFC 4180 quotes it: "one, two.png",three.png.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera {

std::string csv_quoted(std::string_view text);
std::string csv_field(std::string_view text);  // in quotes where it must be

struct CsvField {
  std::string text;
  bool quoted = false;
};
// The fields of a line. Quotes inside of a field that does not begin with one are text.
std::vector<CsvField> csv_fields(std::string_view line);

}  // namespace tessera
