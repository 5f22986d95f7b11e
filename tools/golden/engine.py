"""engine.json: what the original's trainer does around its steps, on 37 small images (n, 32 pixels, batch 8: five batches an epoch, the last of five).

Real trainings by the original's SegmentationTrainer, watched through its callbacks; its validator is called, but answers with given figures.

"schedules": arguments and, at some iterations, [iteration, learning rate of the three groups (biases, weights, norms), momentum (beta1 of Adam),
accumulation]; "updates": the iterations after which the average had been updated. "ema": [update, decay]. "setups": arguments (images, classes: of the
data), then what was set up: optimizer, rate, momentum, decay and size of each group, bias rate of the warm-up, number of images and classes.
"freeze": layers without trainable parameters but for the always frozen projection of the DFL, and layers whose norms keep their statistics, during training.
"mosaic": [epochs, close_mosaic, epoch at whose start it closed (-1: never)]. "stops": fitness after each epoch (null: not validated), patience,
save_period; epochs trained, validated, at which best.pt was written, and epoch<k>.pt left. "csv": header, and the rates in the last row of the first schedule.
"""

import contextlib
import csv
import io
import pathlib
import sys
import tempfile

import numpy as np
import torch
from common import output_folder, save_json
from PIL import Image
from ultralytics.models.yolo.segment import SegmentationTrainer, SegmentationValidator

N, BATCH = 37, 8
BASE = dict(
    model="yolov8n-seg.yaml",
    imgsz=32,
    batch=BATCH,
    workers=0,
    amp=False,
    plots=False,
    device="cpu",
    pretrained=False,
    verbose=False,
    exist_ok=True,
)


class Enough(Exception):
    """Of a training that would be long."""


class Answers(SegmentationValidator):
    """Says what it is told to."""

    def __call__(self, trainer=None, model=None):
        self.called.append(trainer.epoch)
        return dict.fromkeys(self.metrics.keys, 0.25) | {f"val/{n}": 1.5 for n in trainer.loss_names} | {"fitness": self.told[trainer.epoch]}


class Trainer(SegmentationTrainer):
    told = None  # fitness by epoch
    closed = -1

    def get_validator(self):
        validator = super().get_validator()
        validator.__class__ = Answers
        validator.called = self.called = []
        validator.told = self.told or [0.0] * self.epochs
        return validator

    def _close_dataloader_mosaic(self):
        self.closed = self.epoch
        super()._close_dataloader_mosaic()

    def final_eval(self):
        pass


def make_data(folder, classes):
    names = {i: str(i) for i in range(classes)}
    for part, n in (("train", N), ("val", 2)):
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(np.full((32, 32, 3), 5 * i, np.uint8)).save(folder / "images" / part / f"{i:03}.png")
            (folder / "labels" / part / f"{i:03}.txt").write_text(f"{i % classes} 0.2 0.2 0.8 0.2 0.5 0.8\n")
    yaml = folder / "data.yaml"
    yaml.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: {names}\n")
    return str(yaml)


def trainer(folder, data_classes=3, told=None, **arguments):
    data = folder / f"data{data_classes}"
    yaml = data / "data.yaml" if data.exists() else make_data(data, data_classes)
    Trainer.told = told
    return Trainer(overrides=BASE | dict(data=str(yaml), project=str(folder / "runs"), name="run") | arguments)


def momentum(group):
    return group["betas"][0] if "betas" in group else group["momentum"]


def schedule(folder, around, most=None, **arguments):
    rows, updates, t = [], [], trainer(folder, **arguments)
    count = [0, 0]  # iterations, updates of the average

    def batch_end(t):
        i = count[0]
        if i < 4 or i % 9 == 0 or any(abs(i - a) < 3 for a in around):
            groups = t.optimizer.param_groups
            rows.append([i, *(g["lr"] for g in groups), momentum(groups[0]), int(t.accumulate)])
        if t.ema.updates > count[1]:
            updates.append(i)
        count[:] = i + 1, t.ema.updates
        if count[0] == most:
            raise Enough

    t.add_callback("on_train_batch_end", batch_end)
    with contextlib.suppress(Enough):
        t.train()
    return {"arguments": arguments, "iterations": count[0], "batches": (N + BATCH - 1) // BATCH, "rows": rows, "updates": updates}, t


def setup(folder, data_classes=3, **arguments):
    t = trainer(folder, data_classes, **arguments)
    t._setup_train(1)
    groups = t.optimizer.param_groups
    return {
        "arguments": arguments,
        "images": N,
        "classes": data_classes,
        "optimizer": type(t.optimizer).__name__,
        "nesterov": bool(groups[0].get("nesterov", False)),
        "lr": [g["initial_lr"] for g in groups],
        "momentum": momentum(groups[0]),
        "decay": [g["weight_decay"] for g in groups],
        "size": [len(g["params"]) for g in groups],
        "warmup_bias_lr": float(t.args.warmup_bias_lr),
        "used_images": len(t.train_loader.dataset),
        "used_classes": int(t.model.nc),
    }


def freeze(folder, value):
    t = trainer(folder, epochs=1, freeze=value)
    seen = {}

    def batch_end(t):
        layers = list(t.model.model.children())
        live = lambda layer: any(p.requires_grad for n, p in layer.named_parameters() if "dfl" not in n)
        norms = lambda layer: [m for m in layer.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        seen["frozen"] = [i for i, layer in enumerate(layers) if list(layer.parameters()) and not live(layer)]
        seen["fixed"] = [i for i, layer in enumerate(layers) if norms(layer) and not any(m.training for m in norms(layer))]

    t.add_callback("on_train_batch_end", batch_end)
    t.train()
    return {"freeze": value, **seen}


def mosaic(folder, epochs, close):
    t = trainer(folder, epochs=epochs, close_mosaic=close, fraction=0.2)
    t.train()
    return [epochs, close, t.closed]


def stop(folder, fitness, patience, period, val=True):
    with tempfile.TemporaryDirectory() as runs:
        arguments = dict(epochs=len(fitness), patience=patience, save_period=period, val=val, fraction=0.2, project=runs)
        t = trainer(folder, told=[f if f is not None else 0.0 for f in fitness], **arguments)
        best, last = [], [None]

        def saved(t):
            now = t.best.stat().st_mtime_ns if t.best.exists() else None
            if now != last[0]:
                best.append(t.epoch)
            last[0] = now

        t.add_callback("on_model_save", saved)
        t.train()
        kept = sorted(int(f.stem[5:]) for f in t.wdir.glob("epoch*.pt"))
    return {
        "fitness": fitness,
        "patience": patience,
        "save_period": period,
        "val": val,
        "epochs": t.epoch + 1,
        "validated": t.called,
        "best": best,
        "kept": kept,
    }


def main():
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = pathlib.Path(name)
        sgd, t = schedule(folder, (100,), epochs=24, optimizer="SGD")
        with open(t.csv) as f:
            table = list(csv.reader(f))
        ema = [[u, t.ema.decay(u)] for u in (1, 2, 50, 2000, 100000)]
        data = {
            "schedules": [
                sgd,
                schedule(folder, (5, 10), epochs=6, optimizer="AdamW", lr0=0.002, lrf=0.1, momentum=0.9, cos_lr=True, warmup_epochs=0, nbs=20)[0],
                schedule(folder, (102,), epochs=22, optimizer="SGD", warmup_epochs=20.5, warmup_bias_lr=0.05, warmup_momentum=0.5, nbs=100)[0],
                schedule(folder, (5,), epochs=3, optimizer="auto", nbs=16)[0],
                schedule(folder, (100,), 103, epochs=10001, optimizer="auto")[0],
                schedule(folder, (), 7, epochs=10001, optimizer="auto", warmup_epochs=0)[0],
            ],
            "ema": ema,
            "csv": {"header": table[0], "lr": table[-1][-3:]},
            "setups": [
                setup(folder, optimizer="auto", epochs=10000),
                setup(folder, optimizer="auto", epochs=10001),
                setup(folder, optimizer="auto", epochs=10001, lr0=0.3, momentum=0.5, warmup_bias_lr=0.2),
                setup(folder, optimizer="auto", epochs=3, lr0=0.3, momentum=0.5, warmup_bias_lr=0.2),
                setup(folder, 1, optimizer="auto", epochs=3),
                setup(folder, 7, optimizer="auto", epochs=3, single_cls=True),
                setup(folder, 7, optimizer="auto", epochs=3, classes=[1, 2]),
                setup(folder, 80, optimizer="auto", epochs=2500, nbs=16, fraction=0.5),
                setup(folder, optimizer="SGD", epochs=3, weight_decay=0.01, nbs=100, fraction=0.3),
                setup(folder, optimizer="Adam", epochs=3, batch=30, nbs=64),
                setup(folder, optimizer="AdamW", epochs=3, batch=50, nbs=16),
            ],
            "freeze": [freeze(folder, value) for value in (0, 1, 10, [0, 2, 22], [9], [1])],
            "mosaic": [mosaic(folder, *case) for case in ((4, 2), (3, 3), (2, 3), (3, 0), (3, 1))],
            "stops": [
                stop(folder, [0, 0, 0.1, 0.3, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1], 3, -1),
                stop(folder, [0.1, 0.3, 0.2, 0.3, 0.4, 0.4, 0.1, 0.1, 0.1], 4, 2),
                stop(folder, [0, 0, 0, 0, 0, 0], 2, 1),
                stop(folder, [0.2, 0.1, 0.1, 0.1, 0.1], 0, 3),
                stop(folder, [0.2, 0.1, 0.1, 0.1, 0.1], 1, -1),
                stop(folder, [None, None, None, 0.2], 100, -1, False),
                stop(folder, [None, 0.1, None, 0.2], 2, -1, False),
            ],
        }
    save_json(output_folder(sys.argv) / "engine.json", data, digits=15)


if __name__ == "__main__":
    main()
