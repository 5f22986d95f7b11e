#!/usr/bin/env bash
# Whole trainings, as a user starts them, by Tessera and by the original in turns: loader, steps, a validation after each epoch, checkpoints,
# plots, final validation. Medians over the rounds.
#   bench/train.sh PEER_DIR DATA_DIR [EPOCHS [IMGSZ [ROUNDS]]]      e.g. bench/train.sh peers coco128-seg 3 640 1
# PEER_DIR: see compare.sh. DATA_DIR: images/ and labels/ of COCO's 80 classes in YOLO's form; it trains and validates on them. n from
# scratch, batch 16, two threads, all else at the defaults of both. Run on an idle machine.
set -euo pipefail
peers=$(realpath -m "${1:?folder for the peers (bench/peers/setup.sh installs them there)}")
data=$(realpath "${2:?folder with images/ and labels/}")
epochs=${3:-3} imgsz=${4:-640} rounds=${5:-1} batch=16
[ "$epochs" -ge 2 ] || { echo "train: EPOCHS is $epochs, expected 2 or more: the time of an epoch is taken without the first" >&2; exit 2; }
cd "$(dirname "$0")/.."
program=${TESSERA_PROGRAM:-build/release/bin/tessera}
[ -x "$program" ] || { echo "train: build first (cmake --preset release && cmake --build --preset release)" >&2; exit 1; }
bench/peers/setup.sh "$peers" >&2
export YOLO_CONFIG_DIR="$peers/config" YOLO_OFFLINE=true OMP_NUM_THREADS=2
tcmalloc=$(ldconfig -p | awk '/libtcmalloc_minimal.so.4/ && !n++ {print $NF}')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$data" "$work/set"  # the original writes caches beside the labels
{
  printf 'path: %s\ntrain: images\nval: images\nnames:\n' "$work/set"
  for ((c = 0; c < 80; ++c)); do printf '  %d: class%d\n' "$c" "$c"; done
} >"$work/data.yaml"

# measure NAME RUN_FOLDER COMMAND...: a JSON line of the run, with the seconds of each epoch by its results.csv.
measure() {
  local name=$1 run=$2
  shift 2
  rm -rf "$run"
  echo "train: $name" >&2
  if ! "$peers/bin/python" bench/peers/watch.py "$@" >"$work/line" 2>"$work/errors"; then
    echo "train: failed: $*" >&2
    tail -n 3 "$work/errors" >&2
    return
  fi
  printf '%s|%s|%s\n' "$name" "$(cat "$work/line")" "$(cut -d, -f2 "$run/results.csv" | tail -n +2 | tr -d ' ' | paste -sd' ')" >>"$work/lines"
}
for ((i = 0; i < rounds; ++i)); do
  measure "Tessera" "$work/ours" "$program" train --model yolov8n-seg --data "$work/data.yaml" --epochs "$epochs" --imgsz "$imgsz" --batch "$batch" \
    --project "$work" --name ours
  measure "the original" "$work/peer" "$peers/bin/python" bench/peers/train_run.py "$work/data.yaml" "$work/peer" "$epochs" "$imgsz" "$batch"
  measure "the original, two threads, channels last, tcmalloc" "$work/peer" env LD_PRELOAD="$tcmalloc" \
    "$peers/bin/python" bench/peers/train_run.py "$work/data.yaml" "$work/peer" "$epochs" "$imgsz" "$batch" --set-up 2
done
python3 - "$work/lines" "$epochs" <<'PYTHON'
import collections, json, statistics, sys
runs = collections.OrderedDict()
for line in open(sys.argv[1]):
    name, text, times = line.rstrip("\n").split("|")
    ends = [float(t) for t in times.split()]
    runs.setdefault(name, []).append({**json.loads(text), "epoch": (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else ends[0]})
middle = lambda v, key: statistics.median(r[key] for r in v)
ours = runs.get("Tessera")
print(f"| {sys.argv[2]} epochs with their validations | seconds, all in all (rounds) | of an epoch after the first | CPU seconds | peak MiB | Tessera is |")
print("|---|---|---|---|---|---|")
for name, v in runs.items():
    ratio = f"{middle(v, 'seconds') / middle(ours, 'seconds'):.2f} x, an epoch {middle(v, 'epoch') / middle(ours, 'epoch'):.2f} x" if ours and v is not ours else ""
    each = ", ".join(f"{r['seconds']:.1f}" for r in v)
    print(f"| {name} | {middle(v, 'seconds'):.1f} ({each}) | {middle(v, 'epoch'):.1f} | {middle(v, 'cpu_seconds'):.1f} | {middle(v, 'peak_mib'):.0f} | {ratio} |")
PYTHON
