"""coco_tiny.json: twenty-four pycocotools figures of made-up detections on real annotations: coco_tiny.py [OUT] DATA

DATA is the folder with annotations/instances_{train,val}2017.json (80 images each; not part of the repository). The detections
need no file, they follow from the annotations by this recipe (all arithmetic in double, f = common.fraction("coco_tiny", 8, 8 *
j) for annotation number j of the file):

  f[0] < 0.12: no detection. Category: that of the annotation, but where f[1] < 0.08 the next one in the file's category list
  (cyclic). Scale s = 0.85 + 0.3 f[2], shift dx = (f[3] - 0.5) * 0.3 * bw, dy = (f[4] - 0.5) * 0.3 * bh of the annotation's bbox
  (bx, by, bw, bh), centre (cx, cy) = (bx + bw / 2, by + bh / 2). A coordinate x becomes floor((cx + (x - cx) * s + dx) * 100 +
  0.5) / 100, y likewise. Polygons: every vertex so moved; segmentations that are not polygon lists (crowds): the four corners of
  the bbox (bx, by) (bx + bw, by) (bx + bw, by + bh) (bx, by + bh), so moved. bbox: x, y of the moved corner (bx, by); width
  floor(bw * s * 100 + 0.5) / 100, height likewise. Score floor((0.05 + 0.9 f[5]) * 1000 + 0.5) / 1000 (ties happen). Where f[6] <
  0.2 the same detection follows once more with half the score.

Polygons may leave the image; the evaluator rasterises them with the image size. Detections are in annotation order.
"""

import json
import math
import pathlib
import sys

from pycocotools import mask as mask_api

from common import fraction, output_folder, save_json
from coco_eval import evaluate


def rounded(v, factor):
    return math.floor(v * factor + 0.5) / factor


def detections(truth):
    categories = [c["id"] for c in truth["categories"]]
    out = []
    for j, annotation in enumerate(truth["annotations"]):
        f = fraction("coco_tiny", 8, 8 * j).tolist()
        if f[0] < 0.12:
            continue
        category = annotation["category_id"]
        if f[1] < 0.08:
            category = categories[(categories.index(category) + 1) % len(categories)]
        bx, by, bw, bh = annotation["bbox"]
        s, dx, dy, cx, cy = 0.85 + 0.3 * f[2], (f[3] - 0.5) * 0.3 * bw, (f[4] - 0.5) * 0.3 * bh, bx + bw / 2, by + bh / 2
        x_of, y_of = lambda x: rounded(cx + (x - cx) * s + dx, 100), lambda y: rounded(cy + (y - cy) * s + dy, 100)
        polygons = annotation["segmentation"]
        if not isinstance(polygons, list):
            polygons = [[bx, by, bx + bw, by, bx + bw, by + bh, bx, by + bh]]
        moved = [[y_of(v) if i % 2 else x_of(v) for i, v in enumerate(p)] for p in polygons]
        record = {
            "image_id": annotation["image_id"],
            "category_id": category,
            "bbox": [x_of(bx), y_of(by), rounded(bw * s, 100), rounded(bh * s, 100)],
            "score": rounded(0.05 + 0.9 * f[5], 1000),
            "segmentation": moved,
        }
        out.append(record)
        if f[6] < 0.2:
            out.append({**record, "score": record["score"] / 2})
    return out


def encoded(truth, results):
    """Polygons to RLE, as a results file has it."""
    sizes = {i["id"]: (i["height"], i["width"]) for i in truth["images"]}
    return [{**r, "segmentation": mask_api.merge(mask_api.frPyObjects(r["segmentation"], *sizes[r["image_id"]]))} for r in results]


if __name__ == "__main__":
    data = pathlib.Path(sys.argv[-1])
    folder = output_folder(sys.argv[:-1])
    out = {}
    for split in ("train2017", "val2017"):
        truth = json.loads((data / "annotations" / f"instances_{split}.json").read_text())
        results = detections(truth)
        with_masks = encoded(truth, results)
        area = sum(int(mask_api.area(r["segmentation"])) for r in with_masks)
        out[split] = {
            "annotations": len(truth["annotations"]),
            "detections": len(results),
            "score_sum": sum(r["score"] for r in results),
            "bbox_sum": sum(sum(r["bbox"]) for r in results),
            "mask_area_sum": area,
            "first": results[0],
            "bbox": evaluate(truth, with_masks, "bbox"),
            "segm": evaluate(truth, with_masks, "segm"),
        }
        print(split, out[split]["detections"], out[split]["bbox"][:3], out[split]["segm"][:3])
    save_json(folder / "coco_tiny.json", out, digits=17)
