#!/usr/bin/env python3
"""Training samples of the original's data set on one core: loader.py DATA_YAML [IMGSZ [SAMPLES]]

Decode, augment (mosaic, then without), format; the second pass over the same images, so files are cached by the system. Two JSON
lines.
"""

import sys
import time

import cv2
from report import report
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset

imgsz = int(sys.argv[2]) if len(sys.argv) > 2 else 640
samples = int(sys.argv[3]) if len(sys.argv) > 3 else 64
cv2.setNumThreads(1)
data = check_det_dataset(sys.argv[1])
settings = get_cfg(overrides={"task": "segment", "imgsz": imgsz})
dataset = build_yolo_dataset(settings, data["train"], 16, data, mode="train", rect=False, stride=32)
samples = min(samples, len(dataset))
for mosaic in (True, False):
    if not mosaic:
        dataset.close_mosaic(settings)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for i in range(samples):
            dataset[i]
        times.append(time.perf_counter() - start)
    report("sample", "ultralytics", times[1:], samples, mosaic=mosaic, imgsz=imgsz)
