#!/usr/bin/env python3
"""A YOLO-seg training set from COCO images and annotations: coco_to_yolo.py COCO_DIR OUT_DIR [COPIES]

COCO_DIR holds images/*/ and annotations/instances_*.json. Images are linked, each under COPIES names (default 1), so that a small
set can stand for one that does not fit into a cache of images. Crowd regions are left out and the parts of an object joined, as the
original's converter does. Needs the peers' environment (bench/peers/setup.sh).
"""

import collections
import json
import sys
from pathlib import Path

import numpy as np
from ultralytics.data.converter import merge_multi_segment

coco, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
copies = int(sys.argv[3]) if len(sys.argv) > 3 else 1
for folder in ("images", "labels"):
    (out / folder).mkdir(parents=True, exist_ok=True)
images = {p.name: p for p in sorted(coco.glob("images/*/*.jpg"))}
for annotations in sorted(coco.glob("annotations/instances_*.json")):
    truth = json.loads(annotations.read_text())
    categories = sorted(c["id"] for c in truth["categories"])
    objects = collections.defaultdict(list)
    for a in truth["annotations"]:
        if not a.get("iscrowd") and isinstance(a["segmentation"], list):
            objects[a["image_id"]].append(a)
    for image in truth["images"]:
        rows = []
        for a in objects[image["id"]]:
            parts = a["segmentation"]
            points = np.concatenate(merge_multi_segment(parts), axis=0) if len(parts) > 1 else np.array(parts[0]).reshape(-1, 2)
            fractions = (points / (image["width"], image["height"])).clip(0, 1).reshape(-1)
            rows.append(" ".join([str(categories.index(a["category_id"]))] + [f"{v:.6g}" for v in fractions]))
        stem = Path(image["file_name"]).stem
        for k in range(copies):
            link = out / "images" / f"{k}_{stem}.jpg"
            link.unlink(missing_ok=True)
            link.symlink_to(images[image["file_name"]])
            (out / "labels" / f"{k}_{stem}.txt").write_text("\n".join(rows) + "\n")
names = {i: c["name"] for i, c in enumerate(sorted(truth["categories"], key=lambda c: c["id"]))}
(out / "data.yaml").write_text(f"path: {out}\ntrain: images\nval: images\nnames: {json.dumps(names)}\n")
