// Stands in for fetch.cpp where libcurl or nettle was not found.
#include "data/download/fetch.h"
#include "tensor/base/check.h"

namespace tessera {

namespace {

constexpr const char* kRemedy =
    "install libcurl4-openssl-dev and nettle-dev (tools/install_deps.sh does) and build anew; cmake says 'download: headers of "
    "libcurl' then; "
    "or fetch the file by other means";

[[noreturn]] void refuse(const std::string& url) { throw Error(ErrorCode::kUsage, "this build cannot download", {url}, kRemedy); }

}  // namespace

bool has_download() { return false; }
std::string describe_download() { return std::string("not in this build: ") + kRemedy; }

Url parse_url(const std::string& text) { refuse(text); }
FetchResult fetch(const FetchRequest& request) { refuse(request.url); }

}  // namespace tessera
