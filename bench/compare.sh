#!/usr/bin/env bash
# Times Tessera and its peers in turns on this machine, prints one table with ratios and draws it (bars of each, and the bound).
#   bench/compare.sh PEER_DIR [ROUNDS [SCALES [PRECISIONS [CHART]]]]     e.g. bench/compare.sh peers 3 n,s fp32,bf16 compare.svg
# PEER_DIR holds (or gets, about 6 GB) a Python environment with the pinned peers. Medians over the rounds; run on an idle machine.
# Defaults: 3 rounds, n, fp32,bf16, no chart. Batch 16 in training (PyTorch wants 5 GiB for n, 13 for m; BATCH=4 for l and x), 1 in inference.
set -euo pipefail
peers=$(realpath -m "${1:?folder for the peers (bench/peers/setup.sh installs them there)}")
rounds=${2:-3}
batch=${BATCH:-16}
scales=${3:-n}
precisions=${4:-fp32,bf16}
chart=${5:+$(realpath -m "$5")}
cd "$(dirname "$0")/.."
program=${TESSERA_PROGRAM:-build/release/bin/tessera}
[ -x "$program" ] || { echo "compare: build first (cmake --preset release && cmake --build --preset release)" >&2; exit 1; }
bench/peers/setup.sh "$peers" >&2
export YOLO_CONFIG_DIR="$peers/config" YOLO_OFFLINE=true OMP_NUM_THREADS=2
models="$peers/models640"
tcmalloc=$(ldconfig -p | awk '/libtcmalloc_minimal.so.4/ && !n++ {print $NF}')
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# measure SCALE PRECISION COMMAND...: keeps the JSON line of a program, or says that it failed and goes on.
measure() {
  local scale=$1 precision=$2
  shift 2
  if "$@" 2>"$out/errors" | grep '^{' | sed "s/^/$scale $precision /" >>"$out/lines"; then return; fi
  echo "compare: failed: $*" >&2
  tail -n 3 "$out/errors" >&2
}

for ((i = 0; i < rounds; ++i)); do
  for scale in ${scales//,/ }; do
    model="$models/yolov8$scale-seg.onnx"
    [ -f "$model" ] || "$peers/bin/python" bench/peers/export_onnx.py "$scale" "$models" 640 1 >&2
    for precision in ${precisions//,/ }; do
      echo "compare: round $((i + 1)) of $rounds, $scale, $precision" >&2
      ours=("$program" bench --model "yolov8$scale-seg" --imgsz 640 --threads 2 --precision "$precision" --json)
      measure "$scale" "$precision" "${ours[@]}" --what step --batch "$batch" --runs 3
      measure "$scale" "$precision" env LD_PRELOAD="$tcmalloc" "$peers/bin/python" bench/peers/torch_step.py "$scale" "$batch" --steps 3 --dtype "$precision"
      measure "$scale" "$precision" "${ours[@]}" --what infer --batch 1 --runs 20
      [ "$precision" != fp32 ] || measure "$scale" "$precision" "$peers/bin/python" bench/peers/onnx_infer.py onnxruntime "$model" 20
      measure "$scale" "$precision" "$peers/bin/python" bench/peers/onnx_infer.py "openvino-${precision/fp32/f32}" "$model" 20
    done
  done
done
python3 bench/compare_table.py "$out/lines" "$batch" $chart
