// An address, as users, data yamls and servers (by a redirect) write it.
#include <algorithm>

#include "data/download/fetch.h"
#include "tests/fuzz/fuzz.h"

using namespace tessera;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(fuzz::text_of(data, size));
  Url url;
  const auto usage = {ErrorCode::kUsage};
  if (!fuzz::takes_or_refuses(
          "", [&] { url = parse_url(text); }, usage))
    return 0;
  fuzz::require(url.scheme == "http" || url.scheme == "https" || url.scheme == "file", "nothing else is fetched");
  const auto control = [](char c) { return uint8_t(c) < 32 || c == 127; };
  fuzz::require(std::none_of(url.file_name.begin(), url.file_name.end(), control) && url.file_name.find('/') == std::string::npos &&
                    url.file_name != "." && url.file_name != "..",
                "the name is that of a file");
  fuzz::require(std::none_of(url.shown.begin(), url.shown.end(), control), "what is shown can be shown");
  fuzz::require(text.find('\0') == std::string::npos, "an address ends where its text ends");
  const Url again = parse_url(url.text), shown = parse_url(url.shown);
  fuzz::require(again.text == url.text && again.shown == url.shown && again.file_name == url.file_name && again.path == url.path,
                "an address that is written is read as the same");
  fuzz::require(shown.file_name == url.file_name && shown.scheme == url.scheme, "what is shown differs by the password alone");
  const size_t host = url.text.find("://") + 3;
  const std::string_view authority = std::string_view(url.text).substr(host, url.text.find_first_of("/?#", host) - host);
  const size_t at = authority.rfind('@'), colon = authority.find(':');
  if (at != authority.npos && colon < at && colon + 1 != at)
    fuzz::require(url.shown.substr(host).starts_with(fmt::format("{}:***@", authority.substr(0, colon))), "no password is shown");
  return 0;
}
