#!/usr/bin/env bash
# Every convolution and every pass of batch norm of the five scales beside its bound, in rounds, summed up.
#   bench/ops.sh [ROUNDS [OPTIONS OF bench op...]]      default: 3 and --batch 4 --threads 2
# Each round is one `bench op --model all`. Where other guests share the machine's cores and caches, kernels run at two thirds of
# their speed for minutes while a loop of bare multiply-adds keeps its own; so the table has both the median of the rounds of each shape
# and the best. Rows of one table: all shapes; then by filter and stride; the ones that are furthest from the bar at the end.
# TESSERA_OPS_KEEP: a folder that keeps each round's JSON, and whose rounds of earlier calls count as well.
set -euo pipefail
rounds=${1:-3}
shift || true
[ $# -gt 0 ] || set -- --batch 4 --threads 2
cd "$(dirname "$0")/.."
program=${TESSERA_PROGRAM:-build/release/bin/tessera}
[ -x "$program" ] || { echo "ops: build first (cmake --preset release && cmake --build --preset release)" >&2; exit 1; }
keep=${TESSERA_OPS_KEEP:-}
out=${keep:-$(mktemp -d)}
mkdir -p "$out"
[ -n "$keep" ] || trap 'rm -rf "$out"' EXIT
for ((i = 0; i < rounds; ++i)); do
  echo "ops: round $((i + 1)) of $rounds" >&2
  "$program" bench op --model all --runs 3 "$@" --json 2>/dev/null >"$out/part"
  mv "$out/part" "$out/round$(date +%s%N).json"
done
python3 - "$out"/round*.json <<'PY'
import collections, json, statistics, sys
files = [json.load(open(f)) for f in sys.argv[1:]]
rows = collections.OrderedDict()
for f in files:
    for o in f["ops"]:
        rows.setdefault((o["op"], o["direction"], o["shape"]), []).append(o)
first = files[0]
print(f'{first["precision"]}, {first["backend"]}, batch {first["batch"]}, {first["threads"]} threads, {len(files)} round{"s" * (len(files) > 1)}; largest error of a sample '
      f'{max(o.get("max_error", 0) for v in rows.values() for o in v):.1e}\n')

class Row:
    def __init__(self, key, rounds):
        self.op, self.direction, self.shape = key
        self.part = "of_peak" if "of_peak" in rounds[0] else "of_bound"
        self.median = statistics.median(o[self.part] for o in rounds)
        self.best = max(o[self.part] for o in rounds)
        self.work = rounds[0]["bound_ms"] if self.part == "of_bound" else rounds[0]["gflops"] * rounds[0]["ms"]
        self.bar = 0.8 if self.part == "of_bound" or self.direction == "backward_weight" else 0.9
        self.first_layer = self.op == "conv2d" and self.shape.startswith("3>")

    def kind(self):
        return self.shape.split()[1] if self.op == "conv2d" else ""

table = [Row(k, v) for k, v in rows.items()]
print("| of the peak of multiply-adds (norms: of the copy bandwidth) | shapes | median: rounds' median / best | weighted: median / best | at the bar: median / best |")
print("|---|---|---|---|---|")

def line(name, members):
    members = [m for m in members if not m.first_layer]
    def weighted(value):
        return sum(m.work for m in members) / sum(m.work / value(m) for m in members)
    pair = lambda f: f"{f(lambda m: m.median)} / {f(lambda m: m.best)}"
    percent = lambda f: lambda value: f"{100 * f(value):.0f}"
    print(f"| {name} | {len(members)} | {pair(percent(lambda v: statistics.median(map(v, members))))} % | {pair(percent(weighted))} % | "
          f"{pair(lambda v: sum(v(m) >= m.bar for m in members))} of {100 * members[0].bar:.0f} % |")

groups = collections.OrderedDict()
for m in table:
    groups.setdefault((m.op, m.direction), []).append(m)
for (op, direction), members in groups.items():
    line(f"{op}, {direction}", members)
    kinds = collections.OrderedDict()
    for m in members:
        kinds.setdefault(m.kind(), []).append(m)
    if len(kinds) > 1:
        for kind, some in sorted(kinds.items()):
            if any(not m.first_layer for m in some):
                line(f"... {kind}", some)
print("\nFurthest below the bar in their best round, first layers left out:\n")
print("| | of peak |\n|---|---|")
for m in sorted((m for m in table if not m.first_layer), key=lambda m: m.best / m.bar)[:12]:
    print(f"| {m.op} {m.shape} {m.direction} | {100 * m.best:.0f} % |")
PY
