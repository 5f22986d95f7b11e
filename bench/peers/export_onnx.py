#!/usr/bin/env python3
"""ONNX files of untrained models through the original's exporter: export_onnx.py SCALES OUT [IMGSZ [BATCH]], e.g. `ns models`
writes models/yolov8n-seg.onnx.

Opset 20: with the pinned torch a file made for opset 17 is rejected by ONNX Runtime.
"""

import os
import pathlib
import sys

from ultralytics import YOLO

scales, out = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
imgsz = int(sys.argv[3]) if len(sys.argv) > 3 else 640
batch = int(sys.argv[4]) if len(sys.argv) > 4 else 1
out.mkdir(parents=True, exist_ok=True)
os.chdir(out)  # the exporter writes beside the working directory
for scale in scales:
    print(YOLO(f"yolov8{scale}-seg.yaml").export(format="onnx", imgsz=imgsz, batch=batch, opset=20, simplify=True))
