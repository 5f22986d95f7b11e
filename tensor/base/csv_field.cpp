#include "tensor/base/csv_field.h"

#include <algorithm>

namespace tessera {

std::string csv_quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + '"';
}

std::string csv_field(std::string_view text) {
  return text.find_first_of(",\"\r\n") == std::string_view::npos ? std::string(text) : csv_quoted(text);
}

std::vector<CsvField> csv_fields(std::string_view line) {
  std::vector<CsvField> fields;
  for (size_t at = 0; at <= line.size();) {
    CsvField field;
    if (at < line.size() && line[at] == '"') {
      field.quoted = true;
      for (++at; at < line.size(); ++at) {
        if (line[at] == '"' && (++at == line.size() || line[at] != '"')) break;  // the end, unless doubled
        field.text += line[at];
      }
    }
    const size_t end = std::min(line.find(',', at), line.size());
    field.text += line.substr(at, end - at);
    fields.push_back(std::move(field));
    at = end + 1;
  }
  return fields;
}

}  // namespace tessera
