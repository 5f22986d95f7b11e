"""Trains the original from scratch for the comparison of training curves: parity_train.py DATA_YAML OUT EPOCHS [SEEDS]
[NAME=VALUE ...]

yolov8n-seg.yaml, imgsz 160, batch 16, AdamW lr0 0.001 momentum 0.9, workers 0, amp off, plots off, all else at the original's
defaults; SEEDS is a comma list (0,1,2), NAME=VALUE changes an argument (nbs=16 lr0=0.002). Writes OUT/seed<k>.csv (the original's results.csv, also while running) and
OUT/seed<k>/weights/{best,last}.pt. OUT/args.json keeps the arguments. A seed with a finished csv is skipped. Run it niced:
OMP_NUM_THREADS=1 nice -n 19 python ...
"""

import json
import pathlib
import shutil
import sys

import common  # noqa: F401  (offline switches, one thread)
from ultralytics import YOLO

data, out, epochs = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
seeds = [int(s) for s in (sys.argv[4] if len(sys.argv) > 4 else "0,1,2").split(",")]
out.mkdir(parents=True, exist_ok=True)
arguments = dict(
    data=data,
    epochs=epochs,
    imgsz=160,
    batch=16,
    optimizer="AdamW",
    lr0=0.001,
    momentum=0.9,
    workers=0,
    amp=False,
    plots=False,
    device="cpu",
    pretrained=False,
    close_mosaic=10,
    verbose=False,
)
arguments |= {name: json.loads(value) for name, value in (a.split("=", 1) for a in sys.argv[5:])}
(out / "args.json").write_text(json.dumps(arguments, indent=1) + "\n")
for seed in seeds:
    target = out / f"seed{seed}.csv"
    if target.exists() and len(target.read_text().splitlines()) > epochs:
        continue
    model = YOLO("yolov8n-seg.yaml")
    model.add_callback("on_fit_epoch_end", lambda trainer: trainer.csv.exists() and shutil.copy(trainer.csv, target))
    model.train(**arguments, seed=seed, project=str(out), name=f"seed{seed}", exist_ok=True)
    shutil.copy(out / f"seed{seed}" / "results.csv", target)
    print("done", target, flush=True)
