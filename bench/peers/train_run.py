#!/usr/bin/env python3
"""A whole training by the original, as its command line starts it: loader, steps, validation after each epoch, run folder.

train_run.py DATA_YAML OUT EPOCHS IMGSZ BATCH [--layout nhwc]
Without --layout everything is at the original's defaults; with it the network is channels last, which is faster on a CPU.
"""

import argparse
import pathlib

import torch
from ultralytics import YOLO

parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("epochs", type=int)
parser.add_argument("imgsz", type=int)
parser.add_argument("batch", type=int)
parser.add_argument("--layout", choices=["nhwc", "nchw"], default="nchw")
args = parser.parse_args()

model = YOLO("yolov8n-seg.yaml", task="segment")
if args.layout == "nhwc":
    model.add_callback("on_pretrain_routine_end", lambda t: t.model.to(memory_format=torch.channels_last))
model.train(data=args.data, epochs=args.epochs, imgsz=args.imgsz, batch=args.batch, device="cpu", project=str(args.out.parent),
            name=args.out.name, exist_ok=True)
