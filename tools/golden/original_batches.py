"""Records what a training of the original sees, for tools/golden/fed_training.cpp (docs/parity.md).

    original_batches.py DATA_YAML OUT EPOCHS [SEEDS] [NAME=VALUE ...]        arguments as of parity_train.py

Nothing is trained. OUT/seed<k>/epoch<e>.safetensors: for each batch b `<b>.images` u8 (N, H, W, 3) RGB, `<b>.targets` f32 (T, 6): image, class,
centre x, centre y, width, height in fractions, `<b>.masks` u8 (N, mh, mw); OUT/seed<k>/initial.pt: the weights before the first step,
a checkpoint of the original.
"""

import argparse
import copy
import json
import pathlib

import common  # noqa: F401  (offline switches, one thread)
import torch
from parity_defaults import DEFAULTS
from safetensors.torch import save_file
from ultralytics.models.yolo.segment import SegmentationTrainer


def record(arguments, out):
    trainer = SegmentationTrainer(overrides=arguments)
    trainer._setup_train(1)
    out.mkdir(parents=True, exist_ok=True)
    torch.save({"model": copy.deepcopy(trainer.model), "ema": None, "epoch": -1}, out / "initial.pt")
    epochs, close = arguments["epochs"], arguments["close_mosaic"]
    for epoch in range(epochs):
        if epoch == epochs - close:  # as the original's training loop
            trainer._close_dataloader_mosaic()
            trainer.train_loader.reset()
        tensors = {}
        for b, batch in enumerate(trainer.train_loader):
            tensors[f"{b}.images"] = batch["img"].permute(0, 2, 3, 1).contiguous()
            tensors[f"{b}.masks"] = batch["masks"].to(torch.uint8).contiguous()
            rows = [batch["batch_idx"][:, None], batch["cls"], batch["bboxes"]]
            tensors[f"{b}.targets"] = torch.cat(rows, 1).float().contiguous()
        save_file(tensors, out / f"epoch{epoch}.safetensors")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("epochs", type=int)
    parser.add_argument("rest", nargs="*")
    options = parser.parse_intermixed_args()
    named = dict(a.split("=", 1) for a in options.rest if "=" in a)
    seeds = [int(s) for a in options.rest if "=" not in a for s in a.split(",")] or [0, 1, 2]
    arguments = DEFAULTS | dict(data=options.data, epochs=options.epochs, project=str(options.out), name="unused", exist_ok=True)
    arguments |= {name: json.loads(value) for name, value in named.items()}
    for seed in seeds:
        record(arguments | dict(seed=seed), options.out / f"seed{seed}")
        print("done", options.out / f"seed{seed}", flush=True)


main()
