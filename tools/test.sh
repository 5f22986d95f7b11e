#!/usr/bin/env bash
# Installs what is missing, builds, runs every test.
#   tools/test.sh            the release build
#   tools/test.sh asan|tsan  under the address+undefined or the thread sanitizer
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:-release}
tools/install_deps.sh
cmake --preset "$preset" -DTESSERA_TESTS=ON >/dev/null  # the quick start leaves it off
cmake --build --preset "$preset"
ctest --preset "$preset" -j "$(nproc)"  # most tests have one thread
