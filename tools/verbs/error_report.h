// One sentence about a failure on stderr, or the error object of docs/cli.md on stdout under --json.
#pragma once

#include "tensor/base/check.h"

namespace tessera {

int report_error(const Error& error, bool json);  // returns the exit code

}  // namespace tessera
