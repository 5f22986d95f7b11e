#!/usr/bin/env bash
# Every convolution of a scale, or of all five, beside PyTorch's on the CPU, which are oneDNN's: forward, by data, by weights, in turns.
#   bench/ops_peers.sh PEER_DIR [ROUNDS [OPTIONS OF bench op...]]      default: 3 and --model all --batch 4 --threads 2
# PEER_DIR: see compare.sh. Both take weights as they are stored and pack them in every call, as a training does. The ratio of a shape is
# the median over the rounds of each round's own ratio. Below the table: the shapes at which Tessera is slower.
set -euo pipefail
peers=$(realpath -m "${1:?folder for the peers (bench/peers/setup.sh installs them there)}")
rounds=${2:-3}
shift; shift || true
[ $# -gt 0 ] || set -- --model all --batch 4 --threads 2
cd "$(dirname "$0")/.."
program=${TESSERA_PROGRAM:-build/release/bin/tessera}
[ -x "$program" ] || { echo "ops_peers: build first (cmake --preset release && cmake --build --preset release)" >&2; exit 1; }
bench/peers/setup.sh "$peers" >&2
keep=${TESSERA_OPS_KEEP:-}  # as in ops.sh
out=${keep:-$(mktemp -d)}
mkdir -p "$out"
[ -n "$keep" ] || trap 'rm -rf "$out"' EXIT
for ((i = 0; i < rounds; ++i)); do
  echo "ops_peers: round $((i + 1)) of $rounds" >&2
  "$program" bench op --runs 3 "$@" --json 2>/dev/null >"$out/part.ours"
  "$peers/bin/python" bench/peers/torch_ops.py "$out/part.ours" >"$out/part.peer"
  stamp=$(date +%s%N)
  mv "$out/part.ours" "$out/$stamp.ours"
  mv "$out/part.peer" "$out/$stamp.peer"
done
python3 - "$out" <<'PY'
import collections, json, pathlib, statistics, sys
ratios, work = collections.OrderedDict(), {}
files = sorted(pathlib.Path(sys.argv[1]).glob("*.ours"))
for file in files:
    ours, peer = json.loads(file.read_text()), json.loads(file.with_suffix(".peer").read_text())
    theirs = {(o["op"], o["direction"], o["shape"]): o["ms"] for o in peer["ops"]}
    for o in ours["ops"]:
        key = (o["op"], o["direction"], o["shape"])
        if key in theirs:
            ratios.setdefault(key, []).append(theirs[key] / o["ms"])
            work[key] = (work.get(key, (0, 0))[0] + o["ms"], work.get(key, (0, 0))[1] + theirs[key])
median = {k: statistics.median(v) for k, v in ratios.items()}
print(f'{ours["precision"]}, {ours["backend"]}, batch {ours["batch"]}, {ours["threads"]} threads, {len(files)} round(s); PyTorch {peer["version"]}, channels last\n')
print("| times as fast as PyTorch | shapes | median | of all time together | least | slower than PyTorch |")
print("|---|---|---|---|---|---|")

def line(name, keys):
    total = sum(work[k][1] for k in keys) / sum(work[k][0] for k in keys)
    print(f"| {name} | {len(keys)} | {statistics.median(median[k] for k in keys):.2f} | {total:.2f} | {min(median[k] for k in keys):.2f} | {sum(median[k] < 1 for k in keys)} |")

for direction in ("forward", "backward_data", "backward_weight"):
    keys = [k for k in median if k[1] == direction]
    if not keys:
        continue
    line(direction, keys)
    kinds = collections.defaultdict(list)
    for k in keys:
        kinds[k[2].split()[1]].append(k)
    for kind, some in sorted(kinds.items()):
        line(f"... {kind}", some)
slower = sorted((k for k in median if median[k] < 1), key=median.get)
print("\nSlower than PyTorch: " + ("none" if not slower else ""))
for k in slower:
    print(f"  {k[2]:28} {k[1]:16} {median[k]:.2f}  ({', '.join(f'{r:.2f}' for r in ratios[k])})")
PY
