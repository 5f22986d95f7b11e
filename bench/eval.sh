#!/usr/bin/env bash
# Times the COCO evaluation of masks beside pycocotools and faster-coco-eval, from the same files, on 2 threads, and compares the figures.
#   bench/eval.sh PEER_DIR [IMAGES [ROUNDS]]
# PEER_DIR: see compare.sh. The set is made up from a seed: 5000 images, 37,000 objects, 100 detections an image (250 MB, removed afterwards).
# Seconds include reading the files; CPU seconds are shown beside them for machines that are not idle.
set -euo pipefail
peers=$(realpath -m "${1:?folder for the peers (bench/peers/setup.sh installs them there)}")
images=${2:-5000}
rounds=${3:-1}
cd "$(dirname "$0")/.."
program=${TESSERA_PROGRAM:-build/release/bin/tessera}
[ -x "$program" ] || { echo "eval: build first (cmake --preset release && cmake --build --preset release)" >&2; exit 1; }
bench/peers/setup.sh "$peers" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$peers/bin/python" bench/peers/coco_set.py "$work" "$images"
for ((i = 0; i < rounds; ++i)); do
  for peer in faster-coco-eval pycocotools; do
    "$peers/bin/python" bench/peers/coco_eval.py "$peer" "$work" >>"$work/lines"
  done
  python3 - "$program" "$work" >>"$work/lines" <<'PYTHON'
import json, resource, subprocess, sys, time
program, work = sys.argv[1:]
start = time.perf_counter()
run = subprocess.run([program, "val", "--gt", f"{work}/instances.json", "--predictions", f"{work}/results.json", "--threads", "2", "--json"],
                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
seconds = time.perf_counter() - start
use = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"peer": "Tessera", "seconds": seconds, "cpu_seconds": use.ru_utime + use.ru_stime, "result": json.loads(run.stdout)}))
PYTHON
done
python3 bench/eval_table.py "$work/lines"
