#!/bin/sh
# Builds the fuzz targets of tests/fuzz with clang and runs each for SECONDS, one after the other: tools/fuzz.sh SECONDS [TARGET ...]
# What they found before is kept in build/fuzz/corpus and is where the next run begins. An input that a reader neither takes nor refuses
# is left in build/fuzz/findings; build/fuzz/bin/fuzz_TARGET FILE shows it again. Exit code 1: there is one.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:?usage: tools/fuzz.sh SECONDS [TARGET ...]}
shift
clang=$(command -v clang++ || command -v clang++-19 || command -v clang++-16 || command -v clang++-14 || true)
if [ -z "$clang" ]; then
  echo "tools/fuzz.sh: no clang++; install the package 'clang'" >&2
  exit 2
fi
cmake --preset fuzz -DCMAKE_CXX_COMPILER="$clang" -DCMAKE_C_COMPILER="$(echo "$clang" | sed 's/clang++/clang/')" > /dev/null
cmake --build --preset fuzz --target fuzz
if [ $# -eq 0 ]; then
  set -- pickle torch_pt onnx onnx_nodes image coco_json rle data_yaml args_yaml model_yaml labels checkpoint resume unpack \
    cache_entry disk_cache convert lint weights
  if [ -e build/fuzz/bin/fuzz_url ]; then set -- "$@" url; fi  # of builds with libcurl
fi

python3 tests/fuzz/seeds.py build/fuzz/seeds
mkdir -p build/fuzz/findings
if [ -d /dev/shm ]; then TMPDIR=${TMPDIR:-/dev/shm} && export TMPDIR; fi
failed=0
for target in "$@"; do
  corpus=build/fuzz/corpus/$target
  mkdir -p "$corpus" "build/fuzz/seeds/$target"
  case $target in convert) dictionary=tests/fuzz/coco_json.dict ;; *) dictionary=tests/fuzz/$target.dict ;; esac
  [ -f "$dictionary" ] && dictionary="-dict=$dictionary" || dictionary=
  echo "== $target"
  nice build/fuzz/bin/fuzz_"$target" "$corpus" "build/fuzz/seeds/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1024 \
    -max_len=65536 -print_final_stats=1 -artifact_prefix=build/fuzz/findings/"$target"- $dictionary > build/fuzz/findings/"$target".log 2>&1 || failed=1
  grep -E "^stat::number_of_executed_units|^SUMMARY|^fuzz: |^==.*ERROR|Test unit written" build/fuzz/findings/"$target".log || true
done
exit $failed
