"""coco_labels.json: label text that the original's converter makes of COCO annotations: coco_labels.py [OUT] [DATA]

"instances" is made up here: polygons of one to five parts (among them middle parts whose vertices the original reverses), a crowd, a
repeated box, a box without area, an image without annotations, one with a crowd only; "labels" is what convert_coco writes for it,
file name to text. With DATA (the folder with annotations/instances_*2017.json), "coco_tiny" holds a CRC-32C and the number of bytes of
all label files of each split, in the order of their names.
"""

import json
import math
import pathlib
import shutil
import sys
import tempfile

from ultralytics.data.converter import convert_coco

from common import fraction, output_folder, save_json


def ring(f, cx, cy, radius, count):
    """A star-shaped polygon of `count` vertices with two decimals, as COCO's files have."""
    xy = []
    for k in range(count):
        angle, r = 2 * math.pi * k / count, radius * (0.5 + 0.5 * f[k])
        xy += [round(cx + r * math.cos(angle), 2), round(cy + r * math.sin(angle), 2)]
    return xy


def made_up():
    images = [{"id": 11 * (i + 1), "file_name": f"{i:012d}.jpg", "width": 640 - 37 * i, "height": 427 + 13 * i} for i in range(7)]
    annotations = []

    def add(image, category, polygons, crowd=0, bbox=None):
        xs = [v for p in polygons for v in p[0::2]]
        ys = [v for p in polygons for v in p[1::2]]
        box = bbox or [min(xs), min(ys), round(max(xs) - min(xs), 2), round(max(ys) - min(ys), 2)]
        annotations.append({"id": len(annotations) + 1, "image_id": images[image]["id"], "category_id": category, "iscrowd": crowd,
                            "area": 1.0, "bbox": box, "segmentation": polygons})

    n = 0
    for image in range(4):
        for parts in (1, 1, 2, 3, 4, 5):
            f = fraction("coco_labels", 64, 64 * n).tolist()
            n += 1
            rings = [ring(f[8 + 9 * p :], 90 + 380 * f[p], 80 + 250 * f[p + 1], 12 + 30 * f[p + 2], 4 + (n + p) % 6) for p in range(parts)]
            add(image, (1, 13, 17, 90)[(n + parts) % 4], rings)
    add(0, 1, annotations[0]["segmentation"], bbox=annotations[0]["bbox"])  # the same class and box
    annotations[-1]["category_id"] = annotations[0]["category_id"]
    add(1, 17, [[10.5, 10.5, 30.25, 10.5, 20, 40.75]], bbox=[10.5, 10.5, 0, 30])
    add(1, 13, [[10.5, 10.5, 30.25, 10.5, 20, 40.75]], crowd=1)
    add(4, 1, [[10.5, 10.5, 30.25, 10.5, 20, 40.75]], crowd=1)
    categories = [{"id": c, "name": f"c{c}"} for c in (*range(1, 12), 13, *range(14, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70, *range(72, 83), *range(84, 91))]
    return {"images": images, "annotations": annotations, "categories": categories}


def labels_of(annotations, split):
    """File name to text."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = pathlib.Path(folder) / "in", pathlib.Path(folder) / "out"
        source.mkdir()
        (source / f"instances_{split}.json").write_text(json.dumps(annotations))
        convert_coco(labels_dir=str(source), save_dir=str(out), use_segments=True, cls91to80=True)
        return {p.name: p.read_text() for p in sorted((out / "labels" / split).iterdir())}


def crc32c(data):
    table = []
    for i in range(256):
        for _ in range(8):
            i = (i >> 1) ^ (0x82F63B78 if i & 1 else 0)
        table.append(i)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


if __name__ == "__main__":
    arguments = sys.argv[1:]
    data = next((pathlib.Path(a) for a in arguments if (pathlib.Path(a) / "annotations").is_dir()), None)
    folder = output_folder([sys.argv[0]] + [a for a in arguments if data is None or pathlib.Path(a) != data])
    instances = made_up()
    out = {"instances": instances, "labels": labels_of(instances, "train"), "coco_tiny": {}}
    before = folder / "coco_labels.json"
    if data is None and before.exists():
        out["coco_tiny"] = json.loads(before.read_text())["coco_tiny"]
    for split in ("train2017", "val2017") if data is not None else ():
        text = "".join(labels_of(json.loads((data / "annotations" / f"instances_{split}.json").read_text()), split).values()).encode()
        out["coco_tiny"][split] = {"bytes": len(text), "crc32c": crc32c(text)}
    save_json(before, out, digits=17)
    print({k: v.count("\n") for k, v in out["labels"].items()}, out["coco_tiny"])
