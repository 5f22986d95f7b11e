// Fetches one file by http, https or file URL: into NAME.part, resumed from there, its SHA-256 compared, then given its name. The
// only code of the program that uses the network; without libcurl no_download.cpp stands in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace tessera {

bool has_download();
std::string describe_download();  // for `tessera info`: the libraries, or why not

struct Url {
  std::string text;       // as it is asked for
  std::string shown;      // the same with a password masked
  std::string scheme;     // http, https or file
  std::string path;       // decoded
  std::string file_name;  // last part of the path, decoded; empty: there is none that a file could have
};

// Error(kUsage) for everything that is no http, https or file URL.
Url parse_url(const std::string& text);

// 64 hexadecimal digits; `normalized` in lower case.
bool is_sha256(std::string_view text);
std::string normalized_sha256(std::string text);

struct FetchRequest {
  std::string url;
  std::filesystem::path to;  // the file; its folder is made
  std::string sha256;        // what it must have; empty: what NAME.sha256 beside it says, if that is there
  std::string sha256_from;   // who says so, for messages: "--sha256"
  std::string again;         // command line that goes on, for messages
  double timeout_s = 30;     // to connect, and without a byte
  int retries = 5;           // after a cut that brought nothing; one that brought a MiB does not count
  double first_wait_s = 1;   // before the first retry; twice as long before each further one, at most a minute
  std::function<void(int64_t done, int64_t total, int64_t resumed)> progress;  // bytes; total -1: unknown
  std::function<void(const std::string&)> log;
};

struct FetchResult {
  std::string url;  // without a password
  std::filesystem::path path;
  int64_t bytes = 0;
  std::string sha256;
  bool verified = false;       // compared with an expected sum
  std::string sha256_from;     // which one; empty: none was known
  bool already_there = false;  // nothing was fetched
  int64_t resumed_from = 0;    // bytes that were there before
  double seconds = 0;
};

// A file that is there already is never replaced: with the expected sum, or without one to expect, it is taken as it is; else
// Error(kData) with both sums. So is a new file of another sum, which stays under the name NAME.part. Where no sum was known the
// file's own is written to NAME.sha256 (as sha256sum does), so that a later download is compared.
// Error(kIo) for what server, network and disk refuse; Error(kInterrupted) after a signal. What came stays in NAME.part.
FetchResult fetch(const FetchRequest& request);

std::filesystem::path sum_file_of(std::filesystem::path file);  // NAME.sha256

}  // namespace tessera
