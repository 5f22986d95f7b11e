#!/usr/bin/env python3
"""Training step of the original model in plain PyTorch, set up as an expert would: forward, loss, backward, SGD step, no data
loading.

torch_step.py SCALE BATCH [--dtype fp32|bf16] [--imgsz 640] [--steps 5] [--threads 2] [--device cpu|cuda] [--layout nhwc|nchw]
[--compile] [--objects 7] Untrained weights, 80 classes. Prints one JSON line. The original is only imported: its network and its
loss run as they are.
"""

import argparse
import contextlib
import time

import torch
from report import report
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import SegmentationModel

parser = argparse.ArgumentParser()
parser.add_argument("scale", choices=list("nsmlx"))
parser.add_argument("batch", type=int)
parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
parser.add_argument("--imgsz", type=int, default=640)
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--device", default="cpu")
parser.add_argument("--layout", choices=["nhwc", "nchw"], default="nhwc")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--objects", type=int, default=7)
args = parser.parse_args()

torch.manual_seed(0)
torch.set_num_threads(args.threads)
cuda = args.device.startswith("cuda")
if cuda:
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
model = SegmentationModel(f"yolov8{args.scale}-seg.yaml", ch=3, nc=80, verbose=False)
model.args = get_cfg()
model = model.to(args.device).train()
image = torch.rand(args.batch, 3, args.imgsz, args.imgsz, device=args.device)
if args.layout == "nhwc":
    model = model.to(memory_format=torch.channels_last)
    image = image.to(memory_format=torch.channels_last)
count = args.objects * args.batch
target = {
    "img": image,
    "batch_idx": torch.arange(args.batch).repeat_interleave(args.objects).float(),
    "cls": torch.randint(0, 80, (count, 1)).float(),
    "bboxes": torch.rand(count, 4) * 0.3 + 0.3,
    "masks": torch.randint(0, args.objects + 1, (args.batch, args.imgsz // 4, args.imgsz // 4)).float(),
}
target = {key: value.to(args.device) for key, value in target.items()}
optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, nesterov=True)
criterion = model.init_criterion()
forward = torch.compile(model.predict) if args.compile else model.predict


def step():
    optimizer.zero_grad()
    with torch.autocast(args.device.split(":")[0], torch.bfloat16) if args.dtype == "bf16" else contextlib.nullcontext():
        loss, _ = criterion(forward(image), target)
    loss.sum().backward()
    optimizer.step()
    if cuda:
        torch.cuda.synchronize()


for _ in range(3 if cuda else 1):
    step()
times = []
for _ in range(args.steps):
    start = time.perf_counter()
    step()
    times.append(time.perf_counter() - start)
extra = {"device_peak_mib": torch.cuda.max_memory_allocated() >> 20} if cuda else {}
report(
    "train_step",
    "torch" + ("+compile" if args.compile else ""),
    times,
    args.batch,
    scale=args.scale,
    batch=args.batch,
    dtype=args.dtype,
    imgsz=args.imgsz,
    device=args.device,
    layout=args.layout,
    **extra,
)
