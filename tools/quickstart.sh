#!/usr/bin/env bash
# Installs what is missing, builds, trains YOLOv8n-seg on the embedded data set and prints box and mask mAP.
# Arguments are handed to the training: tools/quickstart.sh --seed 1
set -euo pipefail
cd "$(dirname "$0")/.."

tools/install_deps.sh
cmake --preset release -DTESSERA_TESTS=OFF >/dev/null
cmake --build --preset release
echo "the program: build/release/bin/train_seg, beside it val_seg, predict_seg, tessera" >&2
build/release/bin/train_seg --data shapes --cfg docs/quickstart.yaml "$@"
