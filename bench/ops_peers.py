"""What bench/ops_peers.sh runs: PROGRAM PEER_PYTHON KEEP ROUNDS AGAIN [OPTIONS OF bench op...]"""

import collections
import json
import pathlib
import statistics
import subprocess
import sys

program, python, keep, rounds, again = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
options = sys.argv[6:]


def ours(*more):
    out = subprocess.run([program, "bench", "op", *options, "--runs", "9", *more, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    return json.loads(out)


def one_round(only=None):
    whole = ours("--runs", "1")  # the list of shapes, and both sides' settings
    settings = ["--runs", "9", "--dtype", whole["precision"], "--batch", str(whole["batch"]), "--threads", str(whole["threads"])]
    peer = subprocess.Popen([python, pathlib.Path(__file__).parent / "peers" / "torch_ops.py", *settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    peer.stdout.readline()  # ready
    rows, shapes = [], dict.fromkeys((o["op"], o["shape"]) for o in whole["ops"] if o["op"].startswith("conv"))
    shapes = [s for s in shapes if only is None or s in only]
    for i, (op, shape) in enumerate(shapes):
        print(f"\r{i + 1}/{len(shapes)} {op} {shape:24}", end="", file=sys.stderr, flush=True)
        mine = {o["direction"]: o["ms"] for o in ours("--shape", shape)["ops"] if (o["op"], o["shape"]) == (op, shape)}
        print(op, shape, file=peer.stdin, flush=True)
        theirs = json.loads(peer.stdout.readline())
        rows += [{"op": op, "shape": shape, "direction": d, "ours": mine[d], "peer": theirs[d]} for d in mine]
    peer.stdin.close()
    peer.wait()
    print(file=sys.stderr)
    return {**{k: whole[k] for k in ("precision", "backend", "batch", "threads", "model")}, "rows": rows}


def keep_round(only=None):
    (keep / f"round{len(list(keep.glob('round*')))}.json").write_text(json.dumps(one_round(only)))


def read_rounds():
    """The last round; of each (op, direction, shape): the times of ours and the peer's, round by round."""
    times = collections.OrderedDict()
    for file in sorted(keep.glob("round*.json")):
        result = json.loads(file.read_text())
        for o in result["rows"]:
            times.setdefault((o["op"], o["direction"], o["shape"]), []).append((o["ours"], o["peer"]))
    return result, times


def ratio(rounds_of_shape):
    return statistics.median(theirs / mine for mine, theirs in rounds_of_shape)


for _ in range(rounds):
    keep_round()
slow = {(op, shape) for (op, _, shape), t in read_rounds()[1].items() if ratio(t) < 1}
for _ in range(again if slow else 0):
    keep_round(slow)

result, times = read_rounds()
median = {k: ratio(t) for k, t in times.items()}
print(f'{result["model"]}, {result["precision"]}, {result["backend"]}, batch {result["batch"]}, {result["threads"]} threads, {max(map(len, times.values())) - (again if slow else 0)} round(s)'
      f'{f", and {again} of the shapes that were slower" if again and slow else ""}\n')
print("| times as fast as PyTorch | shapes | median | of all time together | least | slower than PyTorch |")
print("|---|---|---|---|---|---|")


def line(name, keys):
    mine, theirs = (sum(statistics.mean(t[side] for t in times[k]) for k in keys) for side in (0, 1))
    print(f"| {name} | {len(keys)} | {statistics.median(median[k] for k in keys):.2f} | {theirs / mine:.2f} | {min(median[k] for k in keys):.2f} | {sum(median[k] < 1 for k in keys)} |")


for direction in ("forward", "backward_data", "backward_weight"):
    keys = [k for k in median if k[1] == direction]
    line(direction, keys)
    kinds = collections.defaultdict(list)
    for k in keys:
        kinds[k[2].split()[1]].append(k)
    for kind, some in sorted(kinds.items()):
        line(f"... {kind}", some)
slower = sorted((k for k in median if median[k] < 1), key=median.get)
print("\nSlower than PyTorch:" + (" none" if not slower else ""))
for k in slower:
    print(f"  {k[2]:28} {k[1]:16} {median[k]:.2f}  ({', '.join(f'{theirs / mine:.2f}' for mine, theirs in times[k])})")
