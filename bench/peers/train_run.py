#!/usr/bin/env python3
"""A whole training by the original, as its command line starts it: loader, steps, validation after each epoch, run folder.

train_run.py DATA_YAML OUT EPOCHS IMGSZ BATCH [--set-up THREADS]
Everything is at the original's defaults, which leave one core of two idle; --set-up is what an expert would change for a CPU: the network
channels last, THREADS compute threads.
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
parser.add_argument("--set-up", type=int, metavar="THREADS")
args = parser.parse_args()

model = YOLO("yolov8n-seg.yaml", task="segment")
if args.set_up:

    def set_up(trainer):
        torch.set_num_threads(args.set_up)
        trainer.model.to(memory_format=torch.channels_last)

    model.add_callback("on_pretrain_routine_end", set_up)
model.train(data=args.data, epochs=args.epochs, imgsz=args.imgsz, batch=args.batch, device="cpu", project=str(args.out.parent),
            name=args.out.name, exist_ok=True)
