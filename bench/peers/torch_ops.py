#!/usr/bin/env python3
"""Convolutions in PyTorch on the CPU (oneDNN), channels last and out of eager mode, as a training calls them: weights are handed over
as they are stored.

torch_ops.py [--dtype fp32|bf16] [--batch 4] [--threads 2] [--runs 3] says "ready", then answers each line "conv2d 64>128 3x3/2 @80" (or
conv_transpose2x2) of its input by {"forward", "backward_data", "backward_weight"}: milliseconds, medians.
"""

import argparse
import json
import statistics
import sys
import time

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--runs", type=int, default=3)
args = parser.parse_args()
torch.set_num_threads(args.threads)
dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
batch = args.batch


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


print("ready", flush=True)  # loading PyTorch takes seconds of a core: nobody should time anything beside it
with torch.no_grad():
    for line in sys.stdin:
        op, shape = line.strip().split(" ", 1)
        x, w, dy, stride, padding, transposed = case(op, shape)
        s, p = [stride] * 2, [padding] * 2

        def backward(mask):
            return lambda: torch.ops.aten.convolution_backward(dy, x, w, None, s, p, [1, 1], transposed, [0, 0], 1, mask)

        calls = {
            "forward": lambda: torch.ops.aten.convolution(x, w, None, s, p, [1, 1], transposed, [0, 0], 1),
            "backward_data": backward([True, False, False]),
            "backward_weight": backward([False, True, False]),
        }
        print(json.dumps({direction: timed(call) for direction, call in calls.items()}), flush=True)
