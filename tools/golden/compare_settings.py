"""The program beside the original with settings other than the defaults: prediction and validation, setting by setting.

    compare_settings.py WEIGHTS DATA_YAML PROGRAM OUT [IMGSZ] [predict|val [NUMBER ...]]

WEIGHTS: a .pt of the original, or a .safetensors of ours, which is put into the original's network. DATA_YAML names the validation images;
prediction takes the same. PROGRAM: the folder with val_seg and predict_seg. OUT: a scratch folder. Prints a line for each setting:

predict  detections of both, how many of them are the same (class, box within 0.05 px, score within 1e-4), the largest differences of box (px) and score
         among these, masks that differ in any pixel, by how many, and the smallest IoU of a pair, lines of --save-txt that are not equal number by number (1e-5)
val      the largest differences of P and R, and of the mAP figures (--map-style original); then, of predictions.json: detections of both, the same ones,
         masks that differ, by how many pixels, and the smallest IoU

Set YOLO_CONFIG_DIR to a writable folder. Arrays of the original sort stably here (docs/verification.md, "Images of different shape").
"""

import json
import pathlib
import shutil
import subprocess
import sys

import common  # noqa: F401  (offline switches, one thread)
import cv2
import numpy as np
import torch
import ultralytics.data.base
import ultralytics.data.utils
import yaml
from pycocotools import mask as coco_mask
from rect_batches import StableNumpy
from ultralytics import YOLO

PREDICT = [
    {},
    {"conf": 0.05},
    {"conf": 0.01, "iou": 0.45},
    {"conf": 0.01, "iou": 0.95},
    {"conf": 0.001, "max_det": 5},
    {"conf": 0.01, "max_det": 1},
    {"conf": 0.01, "agnostic_nms": True},
    {"conf": 0.01, "agnostic_nms": True, "iou": 0.3, "max_det": 20},
    {"conf": 0.01, "rect": False},
    {"conf": 0.01, "classes": [0]},
    {"conf": 0.005, "classes": [2, 0, 4], "max_det": 7},
    {"conf": 0.01, "retina_masks": True},
    {"conf": 0.01, "retina_masks": True, "rect": False},
    {"conf": 0.01, "imgsz": 320},
    {"conf": 0.01, "imgsz": 96, "retina_masks": True},
    {"conf": 0.01, "imgsz": 96},
]
VAL = [
    {},
    {"conf": 0.05, "iou": 0.5},
    {"conf": 0.25},
    {"iou": 0.95},
    {"max_det": 5},
    {"max_det": 1, "conf": 0.01},
    {"agnostic_nms": True},
    {"single_cls": True},
    {"single_cls": True, "max_det": 20, "iou": 0.4},
    {"rect": False},
    {"rect": False, "imgsz": 96, "batch": 5},
    {"imgsz": 320, "batch": 3},
    {"batch": 1},
    {"classes": [0, 2]},
    {"overlap_mask": False, "mask_ratio": 1, "rect": False},
]


def original(weights):
    """The original with the weights of a file of either kind."""
    if weights.suffix == ".pt":
        return YOLO(weights)
    from safetensors.torch import load_file

    state = load_file(weights)
    classes = state["model.22.cv3.0.2.bias"].shape[0]
    description = yaml.safe_load((pathlib.Path(ultralytics.__file__).parent / "cfg/models/v8/yolov8-seg.yaml").read_text())
    network = ultralytics.nn.tasks.SegmentationModel(description | {"scale": "n", "nc": classes}, verbose=False)
    network.load_state_dict(state)
    network.args = ultralytics.utils.DEFAULT_CFG_DICT | {"task": "segment"}
    file = OUT / "weights.pt"
    torch.save({"model": network, "train_args": {"task": "segment"}}, file)
    return YOLO(file)


def resize_each(image, size, resize=cv2.resize, **options):
    """OpenCV 5 refuses more than 128 channels, of which the original makes one for each mask of an image."""
    if image.ndim < 3 or image.shape[2] <= 4:
        return resize(image, size, **options)
    return np.stack([resize(image[..., k], size, **options) for k in range(image.shape[2])], axis=2)


def arguments(settings):
    return [f"--{k}={','.join(map(str, v)) if isinstance(v, list) else str(v).lower()}" for k, v in settings.items()]


def iou(a, b):
    union = np.logical_or(a, b).sum()
    return 1.0 if union == 0 else np.logical_and(a, b).sum() / union


class Tally:
    """Detections of both sides, paired by class, box and score."""

    def __init__(self):
        self.theirs = self.ours = self.same = self.masks = self.pixels = self.moved = 0
        self.box = self.score = 0.0
        self.iou = 1.0
        self.lost = []

    def image(self, name, theirs, ours):
        """Rows: class, score, box [4], mask as an array."""
        self.theirs += len(theirs)
        self.ours += len(ours)
        free = list(range(len(ours)))
        for place, (cls, score, box, mask) in enumerate(theirs):
            fits = [k for k in free if ours[k][0] == cls and abs(ours[k][1] - score) < 1e-4 and np.abs(ours[k][2] - box).max() < 0.05]
            if not fits:
                self.lost.append(f"{name}: class {cls} score {score:.5f} box {np.round(box, 2).tolist()}")
                continue
            k = min(fits, key=lambda k: np.abs(ours[k][2] - box).max())
            free.remove(k)
            self.same += 1
            self.moved += k != place
            self.box = max(self.box, np.abs(ours[k][2] - box).max())
            self.score = max(self.score, abs(ours[k][1] - score))
            self.masks += not np.array_equal(ours[k][3], mask)
            self.pixels = max(self.pixels, int((ours[k][3] != mask).sum()))
            self.iou = min(self.iou, iou(ours[k][3], mask))
        self.lost += [f"{name}: ours alone: class {ours[k][0]} score {ours[k][1]:.5f} box {np.round(ours[k][2], 2).tolist()}" for k in free]

    def __str__(self):
        return (f"{self.theirs}/{self.ours} detections, {self.same} the same ({self.moved} at another place), box {self.box:.2g} px, "
                f"score {self.score:.2g}, {self.masks} masks differ, by {self.pixels} pixels at most, IoU >= {self.iou:.4f}")


def in_image(mask, height, width):
    """A mask of the letterboxed image in the image itself: padding cut off, resized as 8 bits."""
    rows, columns = mask.shape
    gain = min(rows / height, columns / width)
    inner_height, inner_width = round(height * gain), round(width * gain)
    top, left = round((rows - inner_height) / 2 - 0.1), round((columns - inner_width) / 2 - 0.1)
    inner = mask[top : top + inner_height, left : left + inner_width]
    return cv2.resize(inner, (width, height), interpolation=cv2.INTER_LINEAR)


def same_text(a, b):
    a, b = (sorted(x.read_text().splitlines()) if x.exists() else [] for x in (a, b))
    different = abs(len(a) - len(b))
    for x, y in zip(a, b):
        x, y = (np.array(line.split(), dtype=float) for line in (x, y))
        different += x.shape != y.shape or np.abs(x - y).max() > 1e-5
    return different


def predict(settings):
    settings = {"imgsz": IMGSZ} | settings
    for folder in ("theirs", "ours"):
        shutil.rmtree(OUT / folder, ignore_errors=True)
    command = [PROGRAM / "predict_seg", "--model", WEIGHTS, "--source", SOURCE, "--json", "--save=false", "--save-txt", "--save-conf", "--quiet",
               "--project", OUT, "--name", "ours", "--exist-ok", *arguments(settings)]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    if "error" in answer:
        print("predict", settings, answer["error"])
        return
    ours = {pathlib.Path(r["image"]).name: r["detections"] for r in answer["results"]}
    tally, text = Tally(), 0
    for result in original(WEIGHTS).predict(source=SOURCE, device="cpu", verbose=False, stream=True, save=False, save_txt=True, save_conf=True,
                                            project=OUT, name="theirs", exist_ok=True, **settings):
        name = pathlib.Path(result.path).name
        height, width = result.orig_shape
        rows = []
        for k in range(len(result.boxes)):
            mask = result.masks.data[k].numpy().astype(np.uint8)
            if not settings.get("retina_masks"):
                mask = in_image(mask, height, width)
            rows.append((int(result.boxes.cls[k]), result.boxes.conf[k].item(), result.boxes.xyxy[k].numpy(), mask))
        mine = [(d["class"], d["confidence"], np.array(d["box"]), coco_mask.decode(d["rle"])) for d in ours.pop(name)]
        tally.image(name, rows, mine)
        file = f"labels/{pathlib.Path(name).stem}.txt"
        text += same_text(OUT / "theirs" / file, OUT / "ours" / file)
    print("predict", settings, f"{tally}, {text} lines of text differ", *tally.lost[:LIST], *ours, sep="\n    " if tally.lost else " ", flush=True)


def val(settings):
    settings = {"imgsz": IMGSZ, "batch": 16} | settings
    command = [PROGRAM / "val_seg", "--model", WEIGHTS, "--data", DATA, "--map-style=original", "--json", "--save-json", "--plots=false", "--quiet",
               "--project", OUT, "--name", "val", "--exist-ok", *arguments(settings)]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    if "error" in answer:
        print("val", settings, answer["error"])
        return
    ours = [answer[kind][figure] for kind in ("box", "mask") for figure in ("precision", "recall", "map50", "map")]
    options = dict(data=DATA, workers=0, device="cpu", plots=False, verbose=False, project=OUT, name="original", exist_ok=True, **settings)
    metrics = original(WEIGHTS).val(**options)
    theirs = [f for m in (metrics.box, metrics.seg) for f in (m.mp, m.mr, m.map50, m.map)]
    differences = np.abs(np.array(ours) - theirs)
    line = f"P, R {differences[[0, 1, 4, 5]].max():.1e}, mAP {differences[[2, 3, 6, 7]].max():.1e} (box {theirs[3]:.5f}, mask {theirs[7]:.5f})"

    original(WEIGHTS).val(save_json=True, **options)
    by_image = {}
    for file, side in ((OUT / "original/predictions.json", 0), (OUT / "val/predictions.json", 1)):
        for d in json.loads(file.read_text()):
            box = np.array(d["bbox"])
            box[2:] += box[:2]
            by_image.setdefault(str(d["image_id"]), ([], []))[side].append((d["category_id"], d["score"], box, d["segmentation"]))
    tally = Tally()
    for name, sides in by_image.items():
        # Masks are decoded image by image, not all at once.
        tally.image(name, *[[(c, s, b, coco_mask.decode(m)) for c, s, b, m in side] for side in sides])
    print("val", settings, line, tally, *tally.lost[:LIST], sep="\n    ", flush=True)


LIST = 5
WEIGHTS, DATA, PROGRAM, OUT = (pathlib.Path(a).absolute() for a in sys.argv[1:5])
IMGSZ = int(sys.argv[5]) if len(sys.argv) > 5 else 160
description = yaml.safe_load(DATA.read_text())
SOURCE = pathlib.Path(description["path"]) / description["val"]
OUT.mkdir(parents=True, exist_ok=True)
ultralytics.data.base.np = ultralytics.data.utils.np = StableNumpy()  # batches, and which of masks of equal area covers which
cv2.resize = resize_each
verbs = {"predict": (predict, PREDICT), "val": (val, VAL)}
for verb in [sys.argv[6]] if len(sys.argv) > 6 else verbs:
    function, cases = verbs[verb]
    for number, settings in enumerate(cases):
        if len(sys.argv) <= 7 or str(number) in sys.argv[7:]:
            function(settings)
