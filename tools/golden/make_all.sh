#!/usr/bin/env bash
# make_all.sh DIR [COCO_TINY]: sets up the pinned peers in DIR (a virtual environment, made when missing) and writes tests/golden again.
# COCO_TINY (the folder with annotations/instances_*2017.json) also renews coco_tiny.json and sums in coco_labels.json. Building and testing need none of this.
set -euo pipefail
dir=${1:?folder for the environment}
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -x "$dir/bin/python" ]; then
  python3 -m venv "$dir"
  "$dir/bin/pip" install -q -r "$here/requirements.txt"
fi
export YOLO_CONFIG_DIR="$dir/config" YOLO_OFFLINE=true OMP_NUM_THREADS=1
mkdir -p "$YOLO_CONFIG_DIR"
for script in ops loss assigner model train_step grad_scaler image_order rect_batches engine augment postprocess coco_eval curves checkpoint coco_labels; do
  echo "== $script"
  nice "$dir/bin/python" "$here/$script.py"
done
if [ $# -gt 1 ]; then
  nice "$dir/bin/python" "$here/coco_tiny.py" "$2"
  nice "$dir/bin/python" "$here/coco_labels.py" "$2"
fi
