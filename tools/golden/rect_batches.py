"""rect_batches.json: order of the images and shapes of the batches in the original's rectangular validation.

The data set class of the original over images without objects, image k of the set of size "sizes"[k] (h, w), names ascending. "shapes": (h, w)
of each batch. "order": the order with arrays that sort stably; by default NumPy leaves the order of equal ratios open (and its vector code changes it even in
short lists), which "shapes" does not show, but which image of equal ratio pads in which batch. "moved": images that are then in another batch.
"""

import pathlib
import sys
import tempfile

import numpy as np
import ultralytics.data.base
from common import output_folder, save_json
from PIL import Image
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset


class StableArray(np.ndarray):
    def argsort(self, *args, **kwargs):
        return np.asarray(self).argsort(kind="stable")


class StableNumpy:
    """NumPy, but its arrays sort stably."""

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def array(*args, **kwargs):
        return np.array(*args, **kwargs).view(StableArray)

    @staticmethod
    def asarray(*args, **kwargs):
        return np.asarray(*args, **kwargs).view(StableArray)


def opened(folder, batch, imgsz, numpy):
    ultralytics.data.base.np = numpy
    data = {"names": {0: "thing"}, "nc": 1, "channels": 3}
    cfg = get_cfg(overrides={"task": "segment", "imgsz": imgsz})
    dataset = build_yolo_dataset(cfg, str(folder / "images"), batch, data, mode="val", rect=True)
    ultralytics.data.base.np = np
    order = [int(pathlib.Path(f).stem) for f in dataset.im_files]
    shapes = [[int(s) for s in shape] for shape in dataset.batch_shapes]
    seen = [list(dataset[i]["img"].shape[1:]) for i in range(0, len(order), batch)]
    if seen != shapes:
        raise SystemExit("a batch has another shape than announced")
    return order, shapes


def case(sizes, batch, imgsz):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        for i, (h, w) in enumerate(sizes):
            Image.fromarray(np.full((h, w, 3), i, np.uint8)).save(folder / "images" / f"{i:03}.png")
            (folder / "labels" / f"{i:03}.txt").write_text("0 0.2 0.2 0.8 0.2 0.5 0.8\n")
        usual, usual_shapes = opened(folder, batch, imgsz, np)
        order, shapes = opened(folder, batch, imgsz, StableNumpy())
    if shapes != usual_shapes:
        raise SystemExit("the order of equal ratios changed a shape")
    batches = lambda o: {i: k // batch for k, i in enumerate(o)}
    moved = sum(batches(order)[i] != batches(usual)[i] for i in order)
    return {"batch": batch, "imgsz": imgsz, "sizes": sizes, "order": order, "shapes": shapes, "moved": moved}


COMMON = [(480, 640), (640, 480), (426, 640), (640, 426), (427, 640), (640, 640), (360, 640), (333, 500), (500, 375)]


def main():
    draw = np.random.default_rng(0)
    few = [COMMON[i] for i in draw.integers(0, len(COMMON), 60)]
    scattered = [tuple(int(x) for x in draw.integers(20, 200, 2)) for _ in range(40)]
    data = [
        case(few, 8, 640),
        case(few[:13], 3, 640),
        case(scattered, 8, 160),
        case(scattered[:7], 16, 96),
        case([(64, 64)] * 9, 4, 64),
        case([(60, 80)] * 5 + [(80, 60)] * 5, 4, 160),
    ]
    save_json(output_folder(sys.argv) / "rect_batches.json", data)


if __name__ == "__main__":
    main()
