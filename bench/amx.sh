#!/usr/bin/env bash
# What the tiles of AMX give on this machine: first that their kernels are right, then each convolution and whole steps, beside the vectors.
#   bench/amx.sh [SCALES [BATCH]]      default: n,s,m and 4. Without AMX it says so and ends with 0.
# TESSERA_PROGRAMS: folder of tessera, test_ops, test_train (build/release/bin). bench/compare.sh is what sets the peers beside it. Run on an idle machine.
set -euo pipefail
scales=${1:-n,s,m}
batch=${2:-4}
cd "$(dirname "$0")/.."
programs=${TESSERA_PROGRAMS:-build/release/bin}
[ -x "$programs/tessera" ] || { echo "amx: build first (cmake --preset release && cmake --build --preset release)" >&2; exit 1; }
"$programs/tessera" info | grep -q amx_bf16 || { echo "skipped: no AMX"; exit 0; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

for suite in test_ops test_train; do
  [ -x "$programs/$suite" ] || { echo "amx: no $suite to check the kernels with" >&2; exit 1; }
done
"$programs/test_ops" | tail -n 3
TESSERA_CPU_BACKEND=amx "$programs/test_train" --test-case="*step*" | tail -n 3

# measure UNIT PRECISION WHAT SCALE ARGUMENTS...
measure() {
  local unit=$1 precision=$2 what=$3 scale=$4
  shift 4
  echo "amx: $scale, $what, $precision, $unit" >&2
  TESSERA_CPU_BACKEND=$unit "$programs/tessera" bench "$what" --model "yolov8$scale-seg" --threads 2 --precision "$precision" --json "$@" 2>/dev/null |
    sed "s/^/$unit $precision $what $scale /" >>"$out/lines"
}
for scale in ${scales//,/ }; do
  for unit in "amx bf16" "avx512 bf16" "avx512 fp32"; do
    read -r backend precision <<<"$unit"
    measure "$backend" "$precision" step "$scale" --batch "$batch" --runs 3
    measure "$backend" "$precision" infer "$scale" --batch 1 --runs 20
    measure "$backend" "$precision" op "$scale" --batch "$batch" --runs 5
  done
done
python3 - "$out/lines" <<'PY'
import collections, json, statistics, sys
runs = {}
for line in open(sys.argv[1]):
    unit, precision, what, scale, text = line.split(" ", 4)
    runs[scale, what, f"{precision} {unit}"] = json.loads(text)
units = list(dict.fromkeys(u for _, _, u in runs))
print("\n| 2 threads | " + " | ".join(f"{u}: images/s | of the bound" for u in units) + " |")
print("|---" * (1 + 2 * len(units)) + "|")
for scale, what in dict.fromkeys((s, w) for s, w, _ in runs if w != "op"):
    cells = [runs[scale, what, u] for u in units]
    print(f"| {scale}, {what} | " + " | ".join(f"{r['images_per_s']:.2f} | {100 * r['of_bound']:.0f} %" for r in cells) + " |")
for scale in dict.fromkeys(s for s, _, _ in runs):
    ops = collections.OrderedDict()
    for u in units:
        for o in runs[scale, "op", u]["ops"]:
            if "gflops" in o:
                ops.setdefault((o["shape"], o["direction"]), {})[u] = o
    print(f"\n| {scale} | " + " | ".join(f"{u}: GFLOP/s | of peak" for u in units) + " |")
    print("|---" * (1 + 2 * len(units)) + "|")
    for (shape, direction), by in ops.items():
        print(f"| {shape} {direction} | " + " | ".join(f"{by[u]['gflops']:.0f} | {100 * by[u]['of_peak']:.0f} %" for u in units) + " |")
PY
