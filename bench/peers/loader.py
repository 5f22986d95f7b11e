#!/usr/bin/env python3
"""Training samples of the original's data set on one core: loader.py DATA_YAML [IMGSZ [SAMPLES [WARMUP]]]

Decode, augment (mosaic, then without), format. The samples go through the set once, so that each decodes its image, as in training; the set
must have more than WARMUP + 2 SAMPLES images. CPU time of the process, which other programs disturb little. Two JSON lines.
"""

import sys
import time

import cv2
from report import report
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset

imgsz = int(sys.argv[2]) if len(sys.argv) > 2 else 640
samples = int(sys.argv[3]) if len(sys.argv) > 3 else 256
warmup = int(sys.argv[4]) if len(sys.argv) > 4 else 128  # fills the buffer of mosaic partners
cv2.setNumThreads(1)
data = check_det_dataset(sys.argv[1])
settings = get_cfg(overrides={"task": "segment", "imgsz": imgsz})
dataset = build_yolo_dataset(settings, data["train"], 16, data, mode="train", rect=False, stride=32)
assert len(dataset) > warmup + 2 * samples, f"{len(dataset)} images are too few"
next_image = 0
for mosaic in (True, False):
    if not mosaic:
        dataset.close_mosaic(settings)
    for _ in range(warmup if mosaic else 0):
        dataset[next_image]
        next_image += 1
    start = time.process_time()
    for _ in range(samples):
        dataset[next_image]
        next_image += 1
    report("sample", "ultralytics", [time.process_time() - start], samples, mosaic=mosaic, imgsz=imgsz)
