#include "data/download/curl_api.h"

#include "tensor/base/check.h"
#include "tensor/base/shared_library.h"

namespace tessera {

namespace {

struct Opened {
  SharedLibrary library{"libcurl.so.4", "libcurl-gnutls.so.4"};
  CurlApi api{};
  bool ready = false;
  Opened() {
    const auto find = [&]<class F>(F& function, const char* name) { function = library.function<F>(name); };
    find(api.easy_init, "curl_easy_init");
    find(api.easy_setopt, "curl_easy_setopt");
    find(api.easy_perform, "curl_easy_perform");
    find(api.easy_getinfo, "curl_easy_getinfo");
    find(api.easy_cleanup, "curl_easy_cleanup");
    find(api.easy_strerror, "curl_easy_strerror");
    find(api.slist_append, "curl_slist_append");
    find(api.slist_free_all, "curl_slist_free_all");
    find(api.url, "curl_url");
    find(api.url_set, "curl_url_set");
    find(api.url_get, "curl_url_get");
    find(api.url_cleanup, "curl_url_cleanup");
    find(api.free, "curl_free");
    find(api.getdate, "curl_getdate");
    find(api.version, "curl_version");
    const auto global_init = library.function<decltype(&::curl_global_init)>("curl_global_init");
    ready = library.complete() && global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  }
};

const Opened& opened() {
  static const Opened o;
  return o;
}

std::string trouble() {
  return "libcurl cannot be loaded: " + (opened().library.complete() ? "it does not start" : opened().library.trouble());
}

}  // namespace

const CurlApi& curl_api() {
  if (!opened().ready) throw Error(ErrorCode::kUsage, trouble(), {}, "install libcurl4");
  return opened().api;
}

std::string describe_curl_api() { return opened().ready ? opened().api.version() : trouble(); }

}  // namespace tessera
