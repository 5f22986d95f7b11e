#!/usr/bin/env python3
"""A made-up validation of COCO's kind and size: coco_set.py OUT_DIR [IMAGES [SEED]]

instances.json and results.json: about 7.4 objects an image (1.2 % crowds as uncompressed RLE, the others polygons of 24 corners), 80 classes, and
100 detections with compressed masks, half of them near an object. The files depend on the arguments only.
"""

import json
import sys
from pathlib import Path

import numpy as np
from pycocotools import mask

out, images, seed = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5000, int(sys.argv[3]) if len(sys.argv) > 3 else 0
HEIGHT, WIDTH, CLASSES, DETECTIONS, CORNERS = 480, 640, 80, 100, 24
rng = np.random.default_rng(seed)
angle = 2 * np.pi * np.arange(CORNERS) / CORNERS


def anywhere(n):
    size = np.exp(rng.uniform(np.log(8), np.log(0.55 * WIDTH), n))
    return np.stack([rng.uniform(0, WIDTH, n), rng.uniform(0, HEIGHT, n), size * rng.uniform(0.6, 1.4, n), size * rng.uniform(0.6, 1.4, n)], 1)


def outlines(shapes):
    r = 1 + 0.15 * rng.standard_normal((len(shapes), CORNERS))
    x = (shapes[:, :1] + shapes[:, 2:3] / 2 * r * np.cos(angle)).clip(0, WIDTH)
    y = (shapes[:, 1:2] + shapes[:, 3:4] / 2 * r * np.sin(angle)).clip(0, HEIGHT)
    return np.stack([x, y], 2).reshape(len(shapes), 2 * CORNERS).round(2).tolist()


def runs(rle):  # counts of an uncompressed mask
    flat = mask.decode(rle).flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return ([0] if flat[0] else []) + counts


annotations, results = [], []
for image in range(1, images + 1):
    count = int(7.35 * rng.uniform(0, 2) + 0.5)
    objects, classes = anywhere(count), rng.integers(0, CLASSES, count)
    polygons = outlines(objects)
    masks = mask.frPyObjects(polygons, HEIGHT, WIDTH) if count else []
    for polygon, rle, c in zip(polygons, masks, classes):
        crowd = bool(rng.uniform() < 0.012)
        segmentation = {"size": [HEIGHT, WIDTH], "counts": runs(rle)} if crowd else [polygon]
        annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": int(c) + 1, "iscrowd": int(crowd),
                            "area": float(mask.area(rle)), "bbox": mask.toBbox(rle).tolist(), "segmentation": segmentation})  # fmt: skip
    found, labels, near = anywhere(DETECTIONS), rng.integers(0, CLASSES, DETECTIONS), np.zeros(DETECTIONS, bool)
    if count:
        near = rng.uniform(size=DETECTIONS) < 0.5
        at = rng.integers(0, count, DETECTIONS)
        error = 0.08 * rng.standard_normal((DETECTIONS, 4))
        base = objects[at]
        close = np.concatenate([base[:, :2] + error[:, :2] * base[:, 2:], base[:, 2:] * np.exp(error[:, 2:])], 1)
        found[near] = close[near]
        right = near & (rng.uniform(size=DETECTIONS) < 0.8)
        labels[right] = classes[at][right]
    scores = np.where(near, rng.beta(2, 3, DETECTIONS), rng.beta(1, 6, DETECTIONS)).round(5)
    for rle, c, score in zip(mask.frPyObjects(outlines(found), HEIGHT, WIDTH), labels, scores):
        results.append({"image_id": image, "category_id": int(c) + 1, "bbox": mask.toBbox(rle).tolist(), "score": float(score),
                        "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}})  # fmt: skip

truth = {"images": [{"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i:012}.jpg"} for i in range(1, images + 1)],
         "categories": [{"id": c + 1, "name": f"class {c}"} for c in range(CLASSES)], "annotations": annotations}  # fmt: skip
out.mkdir(parents=True, exist_ok=True)
(out / "instances.json").write_text(json.dumps(truth))
(out / "results.json").write_text(json.dumps(results))
print(f"{images} images, {len(annotations)} objects, {len(results)} detections", file=sys.stderr)
