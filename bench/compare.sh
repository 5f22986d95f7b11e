#!/usr/bin/env bash
# Times Tessera and its peers in turns on this machine and prints one table with ratios.
#   bench/compare.sh PEER_DIR [ROUNDS]
# PEER_DIR holds (or gets, about 6 GB) a Python environment with the pinned peers. Medians over the rounds; run on an idle machine.
set -euo pipefail
peers=$(realpath -m "${1:?folder for the peers (bench/peers/setup.sh installs them there)}")
rounds=${2:-3}
cd "$(dirname "$0")/.."
program=build/release/bin/tessera
[ -x "$program" ] || { echo "compare: build first (cmake --preset release && cmake --build --preset release)" >&2; exit 1; }
bench/peers/setup.sh "$peers" >&2
export YOLO_CONFIG_DIR="$peers/config" YOLO_OFFLINE=true OMP_NUM_THREADS=2
models="$peers/models640"
[ -f "$models/yolov8n-seg.onnx" ] || "$peers/bin/python" bench/peers/export_onnx.py n "$models" 640 1 >&2
tcmalloc=$(ldconfig -p | awk '/libtcmalloc_minimal.so.4/ {print $NF; exit}')
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for ((i = 0; i < rounds; ++i)); do
  "$program" bench step --imgsz 640 --batch 16 --runs 3 --threads 2 --json 2>/dev/null >>"$out"
  LD_PRELOAD=$tcmalloc "$peers/bin/python" bench/peers/torch_step.py n 16 --steps 3 2>/dev/null | grep '^{' >>"$out"
  "$program" bench infer --imgsz 640 --batch 1 --runs 20 --threads 2 --json 2>/dev/null >>"$out"
  "$peers/bin/python" bench/peers/onnx_infer.py onnxruntime "$models/yolov8n-seg.onnx" 20 2>/dev/null | grep '^{' >>"$out"
  "$peers/bin/python" bench/peers/onnx_infer.py openvino-f32 "$models/yolov8n-seg.onnx" 20 2>/dev/null | grep '^{' >>"$out"
done
python3 bench/compare_table.py "$out"
