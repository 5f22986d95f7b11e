#!/usr/bin/env bash
# Every convolution of a scale, or of all five, beside PyTorch's on the CPU, which are oneDNN's: forward, by data, by weights.
#   bench/ops_peers.sh PEER_DIR [ROUNDS [OPTIONS OF bench op...]]      default: 3 and --model yolov8n-seg --batch 4 --threads 2
# PEER_DIR: see compare.sh. The two take turns shape by shape, since a machine that others share changes its speed by the minute. Both
# take weights as they are stored and pack them in every call, as a training does. The ratio of a shape is the median of its rounds;
# below the table stand the shapes at which Tessera is slower. TESSERA_OPS_AGAIN=N: those get N rounds more (a single round says little
# where neighbours take a third of a core). TESSERA_OPS_KEEP: a folder that keeps the rounds, those of earlier calls count as well.
set -euo pipefail
peers=$(realpath -m "${1:?folder for the peers (bench/peers/setup.sh installs them there)}")
rounds=${2:-3}
shift; shift || true
[ $# -gt 0 ] || set -- --model yolov8n-seg --batch 4 --threads 2
cd "$(dirname "$0")/.."
program=${TESSERA_PROGRAM:-build/release/bin/tessera}
[ -x "$program" ] || { echo "ops_peers: build first (cmake --preset release && cmake --build --preset release)" >&2; exit 1; }
bench/peers/setup.sh "$peers" >&2
keep=${TESSERA_OPS_KEEP:-}
out=${keep:-$(mktemp -d)}
mkdir -p "$out"
[ -n "$keep" ] || trap 'rm -rf "$out"' EXIT
python3 bench/ops_peers.py "$program" "$peers/bin/python" "$out" "$rounds" "${TESSERA_OPS_AGAIN:-0}" "$@"
