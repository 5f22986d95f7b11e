"""Trains the original from scratch for the comparison of training curves (docs/parity.md).

    parity_train.py DATA_YAML OUT EPOCHS [SEEDS] [--own-order] [--feed FOLDER] [NAME=VALUE ...]

yolov8n-seg.yaml, imgsz 160, batch 16, AdamW lr0 0.001 momentum 0.9, workers 0, amp off, plots off, all else at the original's
defaults; SEEDS is a comma list (0,1,2), NAME=VALUE changes an argument (nbs=16 lr0=0.002). Writes OUT/seed<k>.csv (the original's results.csv, also
while running) and OUT/seed<k>/weights/{best,last}.pt. OUT/args.json keeps the arguments. A seed with a finished csv is skipped.

--own-order   shuffles by the seed. The original shuffles all runs alike, whatever their seed: its seeds then share one order of images.
--feed FOLDER trains on our batches and from our initial weights: FOLDER/seed<k> as tools/golden/training_batches.cpp writes it.

The network is set to channels last, which changes no result beyond rounding and halves the time; preload tcmalloc for as much again:
LD_PRELOAD=libtcmalloc_minimal.so.4 OMP_NUM_THREADS=1 nice -n 19 python ...
"""

import argparse
import json
import pathlib
import shutil

import common  # noqa: F401  (offline switches, one thread)
import torch
from parity_defaults import DEFAULTS
from safetensors.torch import load_file
from ultralytics.models.yolo.segment import SegmentationTrainer


def fed_batches(folder):
    """The batches of all epochs in order, as the original's loader gives them."""
    for epoch in range(len(list(folder.glob("epoch*.safetensors")))):
        tensors = load_file(folder / f"epoch{epoch}.safetensors")
        for b in range(len(tensors) // 3):
            targets = tensors[f"{b}.targets"]
            yield {
                "img": tensors[f"{b}.images"].permute(0, 3, 1, 2).contiguous(),
                "batch_idx": targets[:, 0],
                "cls": targets[:, 1:2],
                "bboxes": targets[:, 2:],
                "masks": tensors[f"{b}.masks"],
            }


class Trainer(SegmentationTrainer):
    """The original's trainer with its order of images, or its batches and initial weights, replaced on demand."""

    order = None
    feed = None

    def get_dataloader(self, *args, **kwargs):
        loader = super().get_dataloader(*args, **kwargs)
        if self.order is not None and loader.generator is not None:
            loader.generator.manual_seed(self.order)
            loader.reset()
        return loader

    def preprocess_batch(self, batch):
        if self.feed is not None and self.model.training:
            batch.update(next(self.batches))
        return super().preprocess_batch(batch)

    def get_model(self, *args, **kwargs):
        model = super().get_model(*args, **kwargs)
        if self.feed is not None:
            self.batches = fed_batches(self.feed)
            model.load_state_dict(load_file(self.feed / "initial.safetensors"))
        return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("epochs", type=int)
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--own-order", action="store_true")
    parser.add_argument("--feed", type=pathlib.Path)
    options = parser.parse_intermixed_args()
    named = [a for a in options.rest if "=" in a]
    seeds = [int(s) for a in options.rest if "=" not in a for s in a.split(",")] or [0, 1, 2]
    arguments = DEFAULTS | dict(data=options.data, epochs=options.epochs)
    arguments |= {name: json.loads(value) for name, value in (a.split("=", 1) for a in named)}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "args.json").write_text(json.dumps(arguments, indent=1) + "\n")
    for seed in seeds:
        target = options.out / f"seed{seed}.csv"
        if target.exists() and len(target.read_text().splitlines()) > options.epochs:
            continue
        trainer = Trainer(overrides=arguments | dict(seed=seed, project=str(options.out), name=f"seed{seed}", exist_ok=True))
        trainer.order = seed if options.own_order else None
        trainer.feed = options.feed / f"seed{seed}" if options.feed else None
        trainer.add_callback("on_train_start", lambda t: t.model.to(memory_format=torch.channels_last))
        trainer.add_callback("on_fit_epoch_end", lambda t, to=target: t.csv.exists() and shutil.copy(t.csv, to))
        trainer.train()
        shutil.copy(trainer.csv, target)
        print("done", target, flush=True)


main()
