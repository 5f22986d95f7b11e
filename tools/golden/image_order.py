"""The order of training images in the original's loader, and its buffer for mosaics -> image_order.json.

"orders": the loader of ultralytics.data.build over a stand-in data set that gives its index, without workers: n items in batches of
`batch`, four epochs, its iterator made anew before epoch `reset` as the trainer does when mosaic closes (-1: never). "buffers": the
data set class itself over n small images without objects: what its buffer holds at the end of each of four epochs. One list an epoch.
"""

import pathlib
import sys
import tempfile

import numpy as np
from common import output_folder, save_json
from PIL import Image
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_dataloader, build_yolo_dataset


class Indices:
    """Item i is i."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return i

    @staticmethod
    def collate_fn(items):
        return items


def orders(n, batch, reset):
    loader = build_dataloader(Indices(n), batch, 0, shuffle=True, rank=-1)
    epochs = []
    for epoch in range(4):
        if epoch == reset:
            loader.reset()
        epochs.append([i for items in loader for i in items])
    return {"n": n, "batch": batch, "reset": reset, "orders": epochs}


def buffers(n, batch):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        for i in range(n):
            Image.fromarray(np.full((32, 32, 3), i, np.uint8)).save(folder / "images" / f"{i:03}.png")
            (folder / "labels" / f"{i:03}.txt").write_text("0 0.2 0.2 0.8 0.2 0.5 0.8\n")
        data = {"names": {0: "thing"}, "nc": 1, "channels": 3}
        cfg = get_cfg(overrides={"task": "segment", "imgsz": 32})
        dataset = build_yolo_dataset(cfg, str(folder / "images"), batch, data, mode="train")
        loader = build_dataloader(dataset, batch, 0, shuffle=True, rank=-1)
        epochs = []
        for _ in range(4):
            for _ in loader:
                pass
            epochs.append([int(i) for i in dataset.buffer])
    return {"n": n, "batch": batch, "buffers": epochs}


data = {
    "orders": [orders(*case) for case in ((48, 16, 2), (48, 16, -1), (37, 8, 2), (5, 8, 1), (1, 1, -1))],
    "buffers": [buffers(*case) for case in ((40, 2), (24, 4), (9, 1), (1, 1))],
}
save_json(output_folder(sys.argv) / "image_order.json", data)
