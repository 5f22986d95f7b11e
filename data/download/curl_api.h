// libcurl, opened when a download begins: no other verb loads anything that could reach a network (docs/adr/0013-download.md).
#pragma once

// The table is called through pointers, so the header's checks of arguments do not apply; options that newer versions call
// deprecated are those that every version knows.
#define CURL_DISABLE_TYPECHECK
#define CURL_DISABLE_DEPRECATION
#include <curl/curl.h>

#include <string>

namespace tessera {

struct CurlApi {
  decltype(&::curl_easy_init) easy_init;
  decltype(&::curl_easy_setopt) easy_setopt;
  decltype(&::curl_easy_perform) easy_perform;
  decltype(&::curl_easy_getinfo) easy_getinfo;
  decltype(&::curl_easy_cleanup) easy_cleanup;
  decltype(&::curl_easy_strerror) easy_strerror;
  decltype(&::curl_slist_append) slist_append;
  decltype(&::curl_slist_free_all) slist_free_all;
  decltype(&::curl_url) url;
  decltype(&::curl_url_set) url_set;
  decltype(&::curl_url_get) url_get;
  decltype(&::curl_url_cleanup) url_cleanup;
  decltype(&::curl_free) free;
  decltype(&::curl_getdate) getdate;
  decltype(&::curl_version) version;
};

const CurlApi& curl_api();        // Error(kUsage) where the library is not there
std::string describe_curl_api();  // its version, or why it is not there

}  // namespace tessera
