#!/usr/bin/env bash
# setup.sh DIR: a virtual environment with the pinned peers (about two minutes). Does nothing when DIR already has them.
# Afterwards run the scripts with YOLO_CONFIG_DIR=<writable folder> YOLO_OFFLINE=true DIR/bin/python; torch_step.py wants
# LD_PRELOAD=libtcmalloc_minimal.so.4 on the CPU (1.2 to 1.7 times faster: fresh pages cost it more than arithmetic).
set -euo pipefail
dir=${1:?folder for the environment}
here=$(cd "$(dirname "$0")" && pwd)
if ! cmp -s "$here/requirements.txt" "$dir/installed.txt"; then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get install -y -qq libgl1 libglib2.0-0 libtcmalloc-minimal4 >/dev/null || echo "install libgl1, libglib2.0-0 and libtcmalloc-minimal4 by hand" >&2
  fi
  python3 -m venv "$dir"
  "$dir/bin/pip" install -q -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$dir/installed.txt"
fi
mkdir -p "$dir/config"
YOLO_CONFIG_DIR="$dir/config" YOLO_OFFLINE=true "$dir/bin/python" -c '
import onnxruntime, openvino, torch, ultralytics
print("torch", torch.__version__, "ultralytics", ultralytics.__version__, "onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)'
