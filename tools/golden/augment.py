"""augment.safetensors, augment_pairs.safetensors, augment.json, letterbox.json: the original's image and label transforms with known random numbers.

letterbox.json: "letterbox" rows [w, h, target h, target w, auto, scaleup, result h, result w, top, bottom, left, right] observed
on black images (the border shows); "dataset" rows of the validation data set at one image per batch (rect): [w, h, imgsz, resized
h, resized w, batch h, batch w, left, top, ratio h, ratio w].

augment.safetensors (images u8 H,W,3 BGR, or H,W): "resize.<k>.x/.y" (cv2.resize, bilinear), "letterbox.<k>.x/.y", "hsv.<k>.x/.y",
"flip_*.x/.y", "warp.<k>.x/.y", "mosaic.<k>.*", "copy_paste.<k>.*", "mixup.*", "raster.<k>.*", "hsv_forward.*"; in
augment_pairs.safetensors "paste.*", "cutmix.*". Labels: cls (n)
i32, boxes (n,4) f32 xyxy pixels, polygons (n,P,2) f32 pixels. augment.json gives the parameters and every random number the
transform asked for, in order. Draws are U(a, b) results, not unit-interval numbers, except where "unit" is said. "polygons":
resampling, contours and multi-part merge, with vertices in full. Warped images come from OpenCV 5 (float32 coordinates, spec
14.2): allow +-1 on a few pixels. HSV: the last w mod 16 columns may differ by 1 (spec 14.4). Everything else is exact, polygons
within 1e-4 pixel.
"""

import pathlib
import random
import sys
import tempfile

import cv2
import numpy as np
import torch

from common import fraction, output_folder, save_json, save_tensors
from ultralytics.cfg import get_cfg
from ultralytics.data import augment, build_yolo_dataset, converter
from ultralytics.data.utils import polygon2mask, polygons2masks_overlap
from ultralytics.utils import ops
from ultralytics.utils.instance import Instances

tensors, parameters = {}, {}


def noise(name, h, w, c=3):
    """Formula image: smooth ramp plus noise, uint8."""
    f = fraction(name, h * w * c).reshape(h, w, c)
    y, x = np.mgrid[0:h, 0:w]
    ramp = (x[..., None] * 3 + y[..., None] * 2 + np.arange(c) * 40) % 256
    image = np.floor(0.5 * ramp + 0.5 * 255.999 * f).astype(np.uint8)
    return image if c > 1 else image[..., 0]


class Draws:
    """Replaces random.uniform, random.random, random.choices, random.randint and NumPy's by one recorded stream."""

    def __init__(self, name):
        self.name, self.count, self.log = name, 0, []

    def unit(self):
        self.count += 1
        return float(fraction(self.name, 1, self.count - 1)[0])

    def uniform(self, a=0.0, b=1.0, size=None):
        if size is not None:
            return np.array([self.uniform(a, b) for _ in range(int(np.prod(size)))]).reshape(size)
        value = a + (b - a) * self.unit()
        self.log.append(["uniform", a, b, value])
        return value

    def random(self):
        value = self.unit()
        self.log.append(["unit", value])
        return value

    def randint(self, a, b):
        value = a + int(self.unit() * (b - a + 1))
        self.log.append(["randint", a, b, value])
        return value

    def choices(self, population, k=1):
        value = [list(population)[int(self.unit() * len(population))] for _ in range(k)]
        self.log.append(["choices", len(population), k, value])
        return value

    def choice(self, population):
        return self.choices(population)[0]

    def sample(self, population, k):
        raise RuntimeError("unexpected draw")

    def beta(self, a, b):
        value = 0.4 + 0.2 * self.unit()
        self.log.append(["beta", a, b, value])
        return value

    def __enter__(self):
        self.kept = [
            (m, n, getattr(m, n))
            for m, names in (
                (random, ("uniform", "random", "randint", "choices", "choice", "sample")),
                (np.random, ("uniform", "random", "beta")),
            )
            for n in names
        ]
        for module, name, _ in self.kept:
            setattr(module, name, getattr(self, name))
        return self

    def __exit__(self, *_):
        for module, name, value in self.kept:
            setattr(module, name, value)


def polygon(cx, cy, rx, ry, corners, phase=0.3):
    t = np.arange(corners) * 2 * np.pi / corners + phase
    return np.stack([cx + rx * np.cos(t), cy + ry * np.sin(t)], 1).astype(np.float32)


def labels_of(image, polygons, classes, points):
    """Label dictionary with normalised xywh boxes and resampled polygons, as the original's data set hands it on."""
    h, w = image.shape[:2]
    boxes = np.array([[p[:, 0].min(), p[:, 1].min(), p[:, 0].max(), p[:, 1].max()] for p in polygons], np.float32).reshape(-1, 4)
    segments = (
        np.stack(ops.resample_segments([p.copy() for p in polygons], n=points))
        if polygons
        else np.zeros((0, points, 2), np.float32)
    )
    xywh = np.stack(
        [
            (boxes[:, 0] + boxes[:, 2]) / 2 / w,
            (boxes[:, 1] + boxes[:, 3]) / 2 / h,
            (boxes[:, 2] - boxes[:, 0]) / w,
            (boxes[:, 3] - boxes[:, 1]) / h,
        ],
        1,
    )
    instances = Instances(
        xywh.astype(np.float32),
        (segments / np.array([w, h], np.float32)).astype(np.float32),
        None,
        bbox_format="xywh",
        normalized=True,
    )
    return {
        "img": image.copy(),
        "cls": np.array(classes, np.float32).reshape(-1, 1),
        "instances": instances,
        "im_file": "x.jpg",
        "ori_shape": (h, w),
        "resized_shape": (h, w),
        "ratio_pad": (1.0, 1.0),
    }


def store_labels(prefix, labels):
    """Image, classes, boxes (xyxy pixels) and polygons (pixels) of a label dictionary."""
    image, instances = labels["img"], labels["instances"]
    h, w = image.shape[:2]
    copy = Instances(
        instances.bboxes.copy(),
        instances.segments.copy(),
        None,
        bbox_format=instances._bboxes.format,
        normalized=instances.normalized,
    )
    copy.convert_bbox("xyxy")
    copy.denormalize(w, h)
    tensors[prefix + ".img"] = image
    tensors[prefix + ".cls"] = labels["cls"].reshape(-1).astype(np.int32)
    tensors[prefix + ".boxes"], tensors[prefix + ".polygons"] = copy.bboxes.astype(np.float32), copy.segments.astype(np.float32)


def letterbox_sizes():
    rows = []
    sizes = [
        (810, 1080),
        (1280, 720),
        (640, 427),
        (333, 500),
        (100, 37),
        (64, 64),
        (640, 640),
        (424, 318),
        (116, 87),
        (641, 480),
        (1000, 20),
        (31, 57),
        (427, 640),
        (500, 375),
        (375, 500),
        (33, 32),
        (1920, 1080),
        (639, 639),
        (10, 10),
        (200, 1),
        (160, 120),
        (57, 31),
    ]
    for w, h in sizes:
        for target, auto, scaleup in (
            ((640, 640), True, True),
            ((640, 640), False, True),
            ((640, 640), False, False),
            ((384, 672), False, False),
            ((160, 160), True, True),
            ((320, 640), False, True),
        ):
            result = augment.LetterBox(target, auto=auto, scaleup=scaleup, stride=32)(image=np.zeros((h, w, 3), np.uint8))
            inside = np.argwhere(result[..., 0] != 114)
            (top, left), (bottom, right) = inside.min(0), inside.max(0)
            rows.append(
                [
                    w,
                    h,
                    *target,
                    auto,
                    scaleup,
                    *result.shape[:2],
                    top,
                    result.shape[0] - 1 - bottom,
                    left,
                    result.shape[1] - 1 - right,
                ]
            )
    return rows


def dataset_sizes():
    sizes = [
        (640, 427),
        (333, 500),
        (500, 333),
        (424, 318),
        (116, 87),
        (641, 480),
        (1280, 720),
        (810, 1080),
        (1000, 20),
        (64, 2000),
        (31, 57),
        (100, 37),
        (232, 174),
        (476, 357),
        (572, 429),
        (640, 640),
        (160, 160),
        (33, 40),
        (12, 10),
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "images"
        root.mkdir()
        for k, (w, h) in enumerate(sizes):
            cv2.imwrite(str(root / f"{k:02d}.png"), np.zeros((h, w, 3), np.uint8))
        for imgsz in (640, 160):
            data = {"names": {0: "a"}, "nc": 1, "channels": 3}
            dataset = build_yolo_dataset(
                get_cfg(overrides=dict(task="segment", imgsz=imgsz)), str(root), 1, data, mode="val", rect=True, stride=32
            )
            for k in range(len(dataset)):
                item = dataset[k]
                w, h = sizes[int(pathlib.Path(item["im_file"]).stem)]
                (ratio_h, ratio_w), (left, top) = item["ratio_pad"]
                rows.append([w, h, imgsz, *item["resized_shape"], *item["img"].shape[1:], left, top, ratio_h, ratio_w])
    rows.sort(key=lambda r: (r[2], sizes.index((r[0], r[1]))))
    return rows


def resizes():
    cases = [
        (3, 4, 5, 6, 1),
        (3, 4, 2, 3, 1),
        (7, 9, 20, 13, 3),
        (20, 31, 11, 17, 3),
        (16, 24, 8, 12, 3),
        (16, 24, 4, 6, 1),
        (37, 100, 19, 51, 3),
        (5, 5, 5, 5, 3),
        (1, 7, 3, 14, 3),
        (30, 20, 29, 21, 3),
        (64, 48, 16, 12, 1),
        (9, 1, 4, 2, 3),
        (33, 65, 64, 64, 3),
    ]
    for k, (h, w, nh, nw, c) in enumerate(cases):
        x = (
            np.array([[0, 20, 40, 60], [80, 100, 120, 140], [160, 180, 200, 220]], np.uint8)
            if k < 2
            else noise(f"resize{k}", h, w, c)
        )
        tensors[f"resize.{k}.x"], tensors[f"resize.{k}.y"] = x, cv2.resize(x, (nw, nh), interpolation=cv2.INTER_LINEAR)
    parameters["resize"] = [{"from": [h, w], "to": [nh, nw], "channels": c} for h, w, nh, nw, c in cases]
    parameters["letterbox"] = []
    for k, (h, w, target, auto, scaleup) in enumerate(
        [
            (37, 50, (64, 64), True, True),
            (50, 37, (64, 64), False, True),
            (20, 30, (64, 64), False, False),
            (90, 41, (64, 64), True, True),
            (33, 64, (64, 96), False, False),
        ]
    ):
        x = noise(f"letterbox{k}", h, w)
        tensors[f"letterbox.{k}.x"], tensors[f"letterbox.{k}.y"] = x, augment.LetterBox(
            target, auto=auto, scaleup=scaleup, stride=32
        )(image=x)
        parameters["letterbox"].append({"target": target, "auto": auto, "scaleup": scaleup})


def hsv():
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 17, dtype=np.uint8)] * 3, indexing="ij"), -1).reshape(64, 64, 3)
    tensors["hsv_forward.bgr"], tensors["hsv_forward.hsv"] = grid, cv2.cvtColor(grid, cv2.COLOR_BGR2HSV)
    tensors["hsv_forward.back"] = cv2.cvtColor(tensors["hsv_forward.hsv"], cv2.COLOR_HSV2BGR)
    parameters["hsv"] = []
    for k, gains in enumerate([(0.015, 0.7, 0.4), (0.5, 0.9, 0.9), (0.0, 0.0, 0.4)]):
        x = grid.copy() if k == 0 else noise(f"hsv{k}", 20, 48 if k == 1 else 67)
        with Draws(f"hsv.draw{k}") as draws:
            y = augment.RandomHSV(*gains)({"img": x.copy()})["img"]
        tensors[f"hsv.{k}.x"], tensors[f"hsv.{k}.y"] = x, y
        parameters["hsv"].append({"gains": gains, "draws": draws.log})


def scene(k, points, size=None):
    h, w = size or [(48, 64), (64, 40), (64, 64), (30, 64), (64, 57)][k % 5]
    polygons = [
        polygon(w * 0.35, h * 0.4, w * 0.22, h * 0.27, 7 + k),
        polygon(w * 0.7, h * 0.62, w * 0.25, h * 0.3, 5, 0.9),
        polygon(w * 0.1, h * 0.9, w * 0.08, h * 0.09, 4, 0.1),
    ]
    polygons = [np.clip(p, 0, [w, h]).astype(np.float32) for p in polygons][: 1 + (k + 2) % 3]
    return labels_of(noise(f"scene{k}", h, w), polygons, [(k + j) % 4 for j in range(len(polygons))], points)


def flips():
    for direction in ("horizontal", "vertical"):
        labels = scene(0, 20)
        store_labels(f"flip_{direction}.in", labels)
        with Draws("flip"):
            store_labels(f"flip_{direction}.out", augment.RandomFlip(p=1.0, direction=direction)(labels))


def warps():
    parameters["warp"] = []
    settings = [
        dict(translate=0.1, scale=0.5),
        dict(degrees=30.0, translate=0.1, scale=0.5, shear=10.0),
        dict(degrees=10.0, perspective=0.0005),
        dict(translate=0.4, scale=0.9),
        dict(degrees=0.0, translate=0.0, scale=0.0),
        dict(translate=0.3, scale=0.2),
    ]
    for k, options in enumerate(settings):
        labels = scene(k, 30 if k % 2 else 100, (64, 64) if k != 5 else (48, 64))
        full = {"degrees": 0.0, "translate": 0.1, "scale": 0.5, "shear": 0.0, "perspective": 0.0, **options}
        labels["mosaic_border"] = (0, 0)
        store_labels(f"warp.{k}.in", labels)
        with Draws(f"warp{k}") as draws:
            out = augment.RandomPerspective(**full)(labels)
        store_labels(f"warp.{k}.out", out)
        parameters["warp"].append({**full, "draws": draws.log, "kept": len(out["cls"])})


class Store:
    """The data set a Mosaic, CopyPaste or MixUp draws its partners from."""

    def __init__(self, points):
        self.points, self.buffer, self.cache = points, list(range(5)), False

    def __len__(self):
        return 5

    def get_image_and_label(self, index):
        return scene(index, self.points)


def mosaics():
    parameters["mosaic"] = []
    for k in range(5):
        store_labels(f"mosaic.scene{k}", scene(k, 40))
    for k in range(4):
        store = Store(40)
        labels = scene(k, 40)
        mosaic, perspective = augment.Mosaic(store, imgsz=64, p=1.0), augment.RandomPerspective(translate=0.1, scale=0.5)
        with Draws(f"mosaic{k}") as draws:
            labels = mosaic(labels)
            border = labels["mosaic_border"]
            store_labels(f"mosaic.{k}.canvas", labels)
            after_mosaic = len(draws.log)
            labels = perspective(labels)
        store_labels(f"mosaic.{k}.out", labels)
        parameters["mosaic"].append(
            {
                "first": k,
                "imgsz": 64,
                "buffer": store.buffer,
                "border": border,
                "draws": draws.log[:after_mosaic],
                "warp_draws": draws.log[after_mosaic:],
            }
        )


def copy_paste_and_mixup():
    parameters["copy_paste"] = []
    polygons = [polygon(16, 12, 9, 7, 9), polygon(14, 41, 8, 7, 16), polygon(56, 50, 6, 6, 12)]  # mirrored overlaps 0, 0.2, 0.1
    for k, p in enumerate((0.25, 0.5, 1.0)):
        labels = labels_of(noise("copy_paste", 64, 64), polygons, [0, 1, 2], 50)
        if k == 0:
            store_labels("copy_paste.in", labels)
        with Draws(f"copy_paste{k}") as draws:
            out = augment.CopyPaste(Store(50), p=p, mode="flip")(labels)
        store_labels(f"copy_paste.{k}.out", out)
        parameters["copy_paste"].append({"p": p, "draws": draws.log, "instances": len(out["cls"])})
    labels = scene(2, 40, (64, 64))
    store_labels("mixup.in", labels)
    with Draws("mixup_draw") as draws:
        box = augment.LetterBox((64, 64))
        out = augment.MixUp(Store(40), pre_transform=lambda item: box(item), p=1.0)(labels)
    store_labels("mixup.out", out)
    parameters["mixup"] = {"draws": draws.log, "partner": "scene drawn, letterboxed to 64 x 64"}


class AreaDraws(Draws):
    """Draws whose Beta(1, 1) covers its range, with np.random.randint and choice too."""

    def beta(self, a, b):
        value = self.unit()
        self.log.append(["beta", a, b, value])
        return value

    def below(self, n):
        value = int(self.unit() * n)
        self.log.append(["below", int(n), value])
        return value

    def choice(self, population):
        value = population[int(self.unit() * len(population))]
        self.log.append(["choice", [int(v) for v in population], int(value)])
        return value

    def __enter__(self):
        super().__enter__()
        for name, replacement in (("randint", self.below), ("choice", self.choice)):
            self.kept.append((np.random, name, getattr(np.random, name)))
            setattr(np.random, name, replacement)
        return self


class One:
    """A data set of one item, for what draws a partner."""

    def __init__(self, labels):
        self.labels, self.buffer = labels, [0]

    def __len__(self):
        return 1

    def get_image_and_label(self, index):
        return self.labels


def in_pixels(labels):
    """Boxes and polygons as RandomPerspective hands them on."""
    h, w = labels["img"].shape[:2]
    labels["instances"].convert_bbox("xyxy")
    labels["instances"].denormalize(w, h)
    return labels


def pasting_and_cutmix():
    """copy_paste_mode mixup, and cutmix into images with two objects, one and none; a partner object is 6 % inside, others 100 %."""
    own = [polygon(12, 12, 9, 8, 9), polygon(50, 44, 8, 12, 16)]
    there = [polygon(30, 30, 20, 18, 10), polygon(10, 50, 8, 9, 8), polygon(52, 10, 9, 9, 12)]
    paste = [polygon(30, 30, 10, 8, 10), polygon(10, 50, 8, 9, 8), polygon(52, 10, 9, 9, 12), polygon(14, 14, 9, 9, 12)]

    def labels(name, shapes, first):
        return in_pixels(labels_of(noise(name, 64, 64), shapes, [first + j for j in range(len(shapes))], 50))

    store_labels("paste.in", labels("paste", own, 0))
    store_labels("paste.partner", labels("partner", paste, 2))
    parameters["paste"] = []
    for k, p in enumerate((0.25, 0.5, 1.0, 0.1)):
        with Draws(f"paste{k}") as draws:
            out = augment.CopyPaste(One(labels("partner", paste, 2)), p=p, mode="mixup")(labels("paste", own, 0))
        store_labels(f"paste.{k}.out", out)
        parameters["paste"].append({"p": p, "draws": draws.log, "instances": len(out["cls"])})
    store_labels("cutmix.partner", labels("partner", there, 2))
    for count in range(3):
        store_labels(f"cutmix.in{count}", labels("paste", own[:count], 0))
    parameters["cutmix"] = []
    for k, count in ((1, 2), (2, 2), (4, 2), (5, 2), (3, 0), (27, 0), (51, 0), (6, 1), (54, 1), (12, 1)):
        with AreaDraws(f"cut{k}") as draws:
            out = augment.CutMix(One(labels("partner", there, 2)), p=1.0)(labels("paste", own[:count], 0))
        store_labels(f"cutmix.{len(parameters['cutmix'])}.out", out)
        parameters["cutmix"].append({"objects": count, "draws": draws.log})


def rasters():
    """Single polygons, and overlap index maps of several (no equal non-zero areas, whose order would be arbitrary)."""
    parameters["raster"] = []
    special = [
        np.array([[2.9, 1.2], [20.7, 3.9], [15.1, 14.8], [4.4, 11]], np.float32),
        np.array([[0, 0], [24, 0], [24, 16], [0, 16]], np.float32),
        np.array([[5, 5], [5, 5], [5, 5]], np.float32),
        np.array([[0, 0], [23, 15], [23, 0], [0, 15]], np.float32),
        np.array([[10, 2], [12, 2], [12, 3], [10, 3]], np.float32),
        np.array([[23.99, 4], [24, 12], [17, 16], [16.5, 8]], np.float32),
    ]
    for k, p in enumerate(special):
        for ratio in (1, 2, 4):
            tensors[f"raster.{k}.r{ratio}"] = polygon2mask((16, 24), [p.reshape(-1)], 1, ratio)
        parameters["raster"].append({"h": 16, "w": 24, "polygon": p})
    parameters["overlap"] = []
    for k, (h, w, count, ratio) in enumerate(
        [(64, 64, 6, 4), (96, 64, 20, 4), (64, 96, 9, 2), (48, 48, 5, 1), (64, 64, 1, 4), (640, 640, 5, 4)]
    ):
        attempt = 0
        while True:
            f = fraction(f"overlap{k}.{attempt}", count * 6).reshape(count, 6)
            polygons = [
                polygon(w * a, h * b, w * (0.02 + 0.3 * c * c), h * (0.02 + 0.3 * d * d), 3 + int(e * 8), g * 6)
                for a, b, c, d, e, g in f
            ]
            if k == 5:
                square = lambda a, b: np.array([[a, a], [b, a], [b, b], [a, b]], np.float32)
                polygons = [polygon(320, 320, 0, 0, 4), square(100, 201), square(300, 400), square(10, 500), square(50, 90)]
            polygons = [np.clip(p, 0, [w, h]).astype(np.float32) for p in polygons]
            areas = [int(polygon2mask((h, w), [p.reshape(-1)], 1, ratio).sum()) for p in polygons]
            if len(set(areas)) == count:
                break
            attempt += 1
        masks, order = polygons2masks_overlap((h, w), [p.reshape(-1) for p in polygons], ratio)
        tensors[f"overlap.{k}.map"], tensors[f"overlap.{k}.order"] = masks, np.asarray(order).astype(np.int32)
        parameters["overlap"].append({"h": h, "w": w, "ratio": ratio, "areas": areas, "order": order, "polygons": polygons})


def polygons():
    out = {"resample": [], "contours": [], "merge": []}
    for count, n in ((3, 10), (4, 10), (5, 9), (7, 7), (12, 10), (6, 25), (3, 4), (40, 30), (1, 5), (2, 6)):
        p = formula_points(f"resample{count}.{n}", count, 20)
        out["resample"].append({"n": n, "polygon": p, "result": ops.resample_segments([p.copy()], n=n)[0]})
    for k in range(24):
        h, w = 6 + k % 7, 9 + (k * 5) % 11
        mask = (fraction(f"contour{k}", h * w).reshape(h, w) < (0.15, 0.35, 0.55, 0.75)[k % 4]).astype(np.uint8)
        if k == 0:
            mask[:] = 0
        if k == 1:
            mask[:] = 1
        if k == 2:
            mask[:] = 0
            mask[2, 3:7] = 1
        if k == 3:
            mask[:] = 1
            mask[2:5, 2:6] = 0
            mask[3, 3] = 1
        contours = [c.reshape(-1, 2) for c in cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]]
        out["contours"].append(
            {
                "h": h,
                "w": w,
                "rows": ["".join(map(str, r)) for r in mask.tolist()],
                "contours": contours,
                "all": ops.masks2segments(torch.from_numpy(mask[None]), strategy="all")[0],
                "largest": ops.masks2segments(torch.from_numpy(mask[None]), strategy="largest")[0],
            }
        )
    square = [np.array([[5.0 * k, 0], [5.0 * k + 2, 0], [5.0 * k + 2, 2], [5.0 * k, 2]]) for k in range(3)]
    for k in range(12):
        parts = square if k == 0 else [formula_points(f"merge{k}.{j}", 3 + (k + j) % 6, 10) + 8 * j for j in range(2 + k % 4)]
        parts = [np.asarray(p, np.float64) for p in parts]
        merged = converter.merge_multi_segment([p.reshape(-1).tolist() for p in parts])
        out["merge"].append(
            {"parts": parts, "merged": [np.asarray(m).tolist() for m in merged], "result": np.concatenate(merged, 0)}
        )
    return out


def formula_points(name, count, size):
    return (np.round(fraction(name, count * 2) * size * 8) / 8).astype(np.float32).reshape(count, 2)


if __name__ == "__main__":
    folder = output_folder(sys.argv)
    save_json(folder / "letterbox.json", {"letterbox": letterbox_sizes(), "dataset": dataset_sizes()}, digits=17)
    resizes()
    hsv()
    flips()
    warps()
    mosaics()
    copy_paste_and_mixup()
    pasting_and_cutmix()
    rasters()
    parameters["opencv"] = cv2.__version__
    save_json(folder / "augment.json", parameters, digits=17)
    save_json(folder / "polygons.json", polygons(), digits=9)
    pairs = {name for name in tensors if name.split(".")[0] in ("paste", "cutmix")}
    save_tensors(folder / "augment.safetensors", {name: t for name, t in tensors.items() if name not in pairs})
    save_tensors(folder / "augment_pairs.safetensors", {name: tensors[name] for name in pairs})
