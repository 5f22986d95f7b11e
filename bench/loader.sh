#!/usr/bin/env bash
# Times training samples of Tessera's loader and of the original's data set class in turns, on one core, and prints the ratio.
#   bench/loader.sh PEER_DIR COCO_DIR [ROUNDS]
# PEER_DIR: see compare.sh. COCO_DIR: images/*/*.jpg and annotations/instances_*.json of original quality; 160 images are enough, they are
# linked under ten names each so that they do not fit into the cache of images: every sample decodes one. Milliseconds of CPU time.
set -euo pipefail
peers=$(realpath -m "${1:?folder for the peers (bench/peers/setup.sh installs them there)}")
coco=$(realpath "${2:?folder with images/ and annotations/ of COCO}")
rounds=${3:-3}
cd "$(dirname "$0")/.."
program=${TESSERA_PROGRAM:-build/release/bin/tessera}
[ -x "$program" ] || { echo "loader: build first (cmake --preset release && cmake --build --preset release)" >&2; exit 1; }
bench/peers/setup.sh "$peers" >&2
export YOLO_CONFIG_DIR="$peers/config" YOLO_OFFLINE=true OMP_NUM_THREADS=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$peers/bin/python" bench/peers/coco_to_yolo.py "$coco" "$work/set" 10 >&2
for ((i = 0; i < rounds; ++i)); do
  "$program" bench loader --data "$work/set/data.yaml" --imgsz 640 --workers 1 --json 2>/dev/null >>"$work/lines"
  "$peers/bin/python" bench/peers/loader.py "$work/set/data.yaml" 640 2>/dev/null | grep '"mosaic": true' >>"$work/lines"
done
python3 - "$work/lines" <<'PYTHON'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
ours = [r["core_ms"] for r in rows if r["what"] == "loader"]
peer = [1e3 / r["images_per_s"] for r in rows if r["what"] == "sample"]
parts = {k: statistics.median(r["split_ms"][k] for r in rows if r["what"] == "loader") for k in rows[0]["split_ms"]}
show = lambda v: f"{statistics.median(v):.2f} ({', '.join(f'{x:.2f}' for x in v)})"
print("mosaic sample at 640, decode included: ms of one core, median (rounds)")
print("Tessera    ", show(ours), " ".join(f"{k} {v:.2f}" for k, v in parts.items()))
print("ultralytics", show(peer))
print(f"ratio       {statistics.median(peer) / statistics.median(ours):.2f} x")
PYTHON
