#!/usr/bin/env python3
"""Convolutions of a file that `tessera bench op --json` wrote, in PyTorch on the CPU (oneDNN), in channels last and out of eager mode,
as a training calls them: weights are handed over as they are stored.

torch_ops.py FILE [--runs 3] Prints {"ops": [{"op", "direction", "shape", "ms"}]}, medians; batch, type and threads are those of the file.
"""

import argparse
import json
import statistics
import time

import torch

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("--runs", type=int, default=3)
args = parser.parse_args()
source = json.load(open(args.file))
torch.set_num_threads(source["threads"])
dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[source["precision"]]
batch = source["batch"]


def case(op, shape):
    """x, w, dy and the arguments of a convolution that is called "in>out kxk/stride @size"."""
    channels, kernel, place = shape.split()
    cin, cout = map(int, channels.split(">"))
    (k, stride), size = (int(v) for v in kernel.split("x")[1].split("/")), int(place[1:])
    transposed = op != "conv2d"
    make = lambda *s: torch.rand(*s, dtype=dtype).to(memory_format=torch.channels_last)
    x = make(batch, cin, size, size)
    w = make(*((cin, cout, k, k) if transposed else (cout, cin, k, k)))
    padding = 0 if transposed else k // 2
    y = torch.ops.aten.convolution(x, w, None, [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1)
    return x, w, torch.rand_like(y), stride, padding, transposed


def timed(call):
    call()
    times = []
    for _ in range(args.runs):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


rows = []
last, made = None, None
with torch.no_grad():
    for o in source["ops"]:
        if not o["op"].startswith("conv"):
            continue
        if (o["op"], o["shape"]) != last:
            last, made = (o["op"], o["shape"]), case(o["op"], o["shape"])
        x, w, dy, stride, padding, transposed = made
        s, p = [stride] * 2, [padding] * 2

        def backward(mask):
            return lambda: torch.ops.aten.convolution_backward(dy, x, w, None, s, p, [1, 1], transposed, [0, 0], 1, mask)

        calls = {
            "forward": lambda: torch.ops.aten.convolution(x, w, None, s, p, [1, 1], transposed, [0, 0], 1),
            "backward_data": backward([True, False, False]),
            "backward_weight": backward([False, True, False]),
        }
        rows.append({"op": o["op"], "direction": o["direction"], "shape": o["shape"], "ms": timed(calls[o["direction"]])})
print(json.dumps({"ops": rows, "version": torch.__version__}))
