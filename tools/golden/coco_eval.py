"""coco_eval.json: generated ground truths and detections with the twelve statistics of pycocotools for bbox and segm.

Each case: "gt" (COCO instances dictionary: images, categories, annotations with polygons, uncompressed RLE and crowds), "dt"
(results list: bbox ltwh, score, compressed RLE) and "bbox"/"segm" (12 doubles in full precision). Images are 64 x 48 (a few
larger for the medium and large area ranges). Coordinates in quarters, areas as COCO has them (mask area), scores with many ties.
Cases without detections are evaluated with an empty result set. Expect equality to about 1e-12: same order of sums or not,
nothing else differs.
"""

import contextlib
import copy
import io
import sys

import numpy as np
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from common import output_folder, save_json


def evaluate(gt, dt, kind):
    """Twelve statistics of pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(gt)  # the evaluator writes into its records
        truth.createIndex()
        if dt:
            result = truth.loadRes(copy.deepcopy(dt))
        else:
            result = COCO()
            result.dataset = {"images": gt["images"], "categories": gt["categories"], "annotations": []}
            result.createIndex()
        run = COCOeval(truth, result, kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(v) for v in run.stats]


def quarter(v):
    return round(float(v) * 4) / 4


def star(rng, cx, cy, rx, ry):
    """Random star-shaped polygon, flat list of coordinates in quarters."""
    corners = int(rng.integers(3, 10))
    t = np.sort(rng.uniform(0, 2 * np.pi, corners))
    r = rng.uniform(0.6, 1.0, corners)
    return [quarter(v) for p in zip(cx + rx * r * np.cos(t), cy + ry * r * np.sin(t)) for v in p]


def clipped(polygon, w, h):
    return [min(max(v, 0.0), float((w, h)[i % 2])) for i, v in enumerate(polygon)]


def rle_of(polygons, w, h):
    return mask_api.merge(mask_api.frPyObjects(polygons, h, w))


def uncompressed(rle):
    mask = mask_api.decode(rle)
    flat, counts, value = mask.flatten(order="F"), [], 0
    position = 0
    while position < flat.size:
        run = 0
        while position < flat.size and flat[position] == value:
            run, position = run + 1, position + 1
        counts.append(run)
        value = 1 - value
    return {"size": [int(s) for s in rle["size"]], "counts": counts}


def make(
    k,
    rng,
    images=3,
    per_image=(0, 6),
    categories=2,
    crowd=0.0,
    missed=0.15,
    false=0.4,
    tie=False,
    size=(64, 48),
    noise=0.12,
    many=0,
    rle=0.15,
    parts=0.2,
    no_detections=False,
    perfect=False,
    radius=(0.05, 1.0),
):
    w, h = size
    ids = [7 * (j + 1) for j in range(images)]
    gt = {
        "images": [{"id": i, "width": w, "height": h, "file_name": f"{i}.jpg"} for i in ids],
        "categories": [{"id": 1 + 3 * c, "name": f"c{c}"} for c in range(categories)],
        "annotations": [],
    }
    dt = []

    def score():
        return round(float(rng.integers(1, 20)) / 20, 5) if tie else round(float(rng.uniform(0.01, 0.99)), 5)

    def detect(image, category, cx, cy, rx, ry, polygon=None):
        polygon = polygon or [clipped(star(rng, cx, cy, rx, ry), w, h)]
        encoded = rle_of(polygon, w, h)
        if int(mask_api.area(encoded)) == 0:
            return
        box = [round(float(v), 3) for v in mask_api.toBbox(encoded)]
        if not perfect:
            box = [round(b + float(rng.uniform(-1, 1)) * noise * 4, 3) for b in box[:2]] + [
                round(max(b + float(rng.uniform(-1, 1)) * noise * 6, 0.5), 3) for b in box[2:]
            ]
        dt.append(
            {
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "score": score(),
                "segmentation": {"size": [h, w], "counts": encoded["counts"].decode()},
            }
        )

    for image in ids:
        for _ in range(int(rng.integers(per_image[0], per_image[1] + 1))):
            category = 1 + 3 * int(rng.integers(categories))
            cx, cy = rng.uniform(0.1, 0.9) * w, rng.uniform(0.1, 0.9) * h
            rx, ry = (rng.uniform(*radius, 2) ** 1.5) * np.array([w, h]) * 0.5
            polygons = [clipped(star(rng, cx, cy, max(rx, 2), max(ry, 2)), w, h)]
            if rng.random() < parts:
                polygons.append(clipped(star(rng, cx + rx * 0.8, cy, max(rx * 0.4, 2), max(ry * 0.5, 2)), w, h))
            encoded = rle_of(polygons, w, h)
            area = int(mask_api.area(encoded))
            if area == 0:
                continue
            is_crowd = int(rng.random() < crowd)
            as_rle = is_crowd or rng.random() < rle
            gt["annotations"].append(
                {
                    "id": len(gt["annotations"]) + 1,
                    "image_id": image,
                    "category_id": category,
                    "iscrowd": is_crowd,
                    "area": area,
                    "bbox": [float(v) for v in mask_api.toBbox(encoded)],
                    "segmentation": uncompressed(encoded) if as_rle else polygons,
                }
            )
            if no_detections:
                continue
            if perfect:
                detect(image, category, 0, 0, 0, 0, polygons)
                continue
            for _ in range(0 if rng.random() < missed else (int(rng.integers(1, 4)) if is_crowd else 1 + int(rng.random() < 0.25))):
                moved = [[quarter(v + float(rng.normal()) * noise * (rx, ry)[i % 2]) for i, v in enumerate(p)] for p in polygons]
                detect(
                    image,
                    category if rng.random() < 0.9 else 1 + 3 * int(rng.integers(categories)),
                    0,
                    0,
                    0,
                    0,
                    [clipped(p, w, h) for p in moved],
                )
        if not no_detections and not perfect:
            for _ in range(int(rng.poisson(false * 2)) + many):
                detect(
                    image,
                    1 + 3 * int(rng.integers(categories)),
                    rng.uniform(0, w),
                    rng.uniform(0, h),
                    rng.uniform(2, 14),
                    rng.uniform(2, 14),
                )
    order = rng.permutation(len(dt))
    return gt, [dt[int(i)] for i in order]


SETTINGS = [
    dict(),
    dict(tie=True),
    dict(crowd=0.4),
    dict(crowd=0.4, tie=True),
    dict(no_detections=True),
    dict(perfect=True),
    dict(images=5, per_image=(0, 1)),
    dict(images=1, per_image=(0, 0), false=2.0),
    dict(images=1, per_image=(5, 5), many=110, categories=1),
    dict(images=2, per_image=(3, 6), many=105, categories=1, tie=True),
    dict(size=(160, 120), per_image=(2, 6)),
    dict(size=(160, 120), crowd=0.3, radius=(0.4, 1.1)),
    dict(categories=5, images=6, per_image=(0, 3)),
    dict(missed=0.9),
    dict(missed=0.0, false=0.0, noise=0.03),
    dict(noise=0.3),
    dict(crowd=1.0, per_image=(1, 3)),
    dict(rle=1.0),
    dict(parts=1.0),
    dict(categories=1, images=1, per_image=(1, 1), false=0.0, missed=0.0),
    dict(images=8, per_image=(0, 3), tie=True, crowd=0.2),
    dict(images=4, per_image=(4, 12), categories=1),
    dict(size=(280, 200), tie=True, parts=0.6, radius=(0.1, 1.4)),
    dict(categories=3, false=3.0),
    dict(images=4, per_image=(3, 5), size=(300, 220), noise=0.05, radius=(0.1, 1.3)),
    dict(categories=4, missed=0.5, crowd=0.15, tie=True),
    dict(images=2, per_image=(3, 5), many=12, tie=True),
    dict(size=(33, 97), per_image=(1, 5)),
]

if __name__ == "__main__":
    cases = []
    for k, setting in enumerate(SETTINGS):
        gt, dt = make(k, np.random.Generator(np.random.PCG64(100 + k)), **setting)
        cases.append({"setting": setting, "gt": gt, "dt": dt, "bbox": evaluate(gt, dt, "bbox"), "segm": evaluate(gt, dt, "segm")})
        print(
            k, len(gt["annotations"]), len(dt), [round(v, 3) for v in cases[-1]["bbox"]], [round(v, 3) for v in cases[-1]["segm"]]
        )
    save_json(output_folder(sys.argv) / "coco_eval.json", cases, digits=17)
