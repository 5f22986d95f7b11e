#!/usr/bin/env bash
# How far Tessera's own step keeps up where it is hard: two threads beside one, AVX2 alone, small images. In turns, medians over the rounds.
#   bench/scaling.sh [ROUNDS]
# "Of the bound" counts operations over the multiply-add peak of the same threads and instructions, measured beside each run. Run on an
# idle machine.
set -euo pipefail
rounds=${1:-3}
cd "$(dirname "$0")/.."
program=${TESSERA_PROGRAM:-build/release/bin/tessera}
[ -x "$program" ] || { echo "scaling: build first (cmake --preset release && cmake --build --preset release)" >&2; exit 1; }
out=$(mktemp)
trap 'rm -f "$out"' EXIT
# measure NAME BACKEND ARGUMENTS...     an empty BACKEND: the best of this CPU
measure() {
  local name=$1 backend=$2
  shift 2
  echo "$name|$(env ${backend:+TESSERA_CPU_BACKEND=$backend} "$program" bench "$@" --json 2>/dev/null)" >>"$out"
}
for ((i = 0; i < rounds; ++i)); do
  echo "scaling: round $((i + 1)) of $rounds" >&2
  for precision in fp32 bf16; do
    measure "training step, 640 px, batch 8, $precision, 1 thread" "" step --batch 8 --runs 2 --threads 1 --precision "$precision"
    measure "training step, 640 px, batch 8, $precision, 2 threads" "" step --batch 8 --runs 2 --threads 2 --precision "$precision"
  done
  measure "inference, 640 px, batch 1, fp32, 1 thread" "" infer --batch 1 --runs 10 --threads 1
  measure "inference, 640 px, batch 1, fp32, 2 threads" "" infer --batch 1 --runs 10 --threads 2
  measure "training step, 640 px, batch 8, fp32, 2 threads, AVX2" avx2 step --batch 8 --runs 2 --threads 2
  measure "inference, 640 px, batch 1, fp32, 2 threads, AVX2" avx2 infer --batch 1 --runs 10 --threads 2
  measure "training step, 160 px, batch 16, fp32, 2 threads" "" step --imgsz 160 --batch 16 --runs 10 --threads 2
  measure "training step, 64 px, batch 16, fp32, 2 threads" "" step --imgsz 64 --batch 16 --runs 20 --threads 2
done
python3 - "$out" <<'PY'
import collections, json, statistics, sys
rows = collections.OrderedDict()
for line in open(sys.argv[1]):
    name, text = line.split("|", 1)
    rows.setdefault(name, []).append(json.loads(text))
print("| n | images/s, median (rounds) | of the bound | of one thread |")
print("|---|---|---|---|")
rate = {k: statistics.median(r["images_per_s"] for r in v) for k, v in rows.items()}
for name, v in rows.items():
    each = ", ".join(f"{r['images_per_s']:.2f}" for r in v)
    single = name.replace("2 threads", "1 thread")
    ratio = f"{rate[name] / rate[single]:.2f} x" if single != name and single in rate else ""
    print(f"| {name} | {rate[name]:.2f} ({each}) | {100 * statistics.median(r['of_bound'] for r in v):.0f} % | {ratio} |")
PY
