"""Joins the results.csv of the original (parity_train.py) and of Tessera over several seeds to one table and one picture.

    parity_report.py OUT_PREFIX ORIGINAL_DIR TESSERA_DIR

ORIGINAL_DIR and TESSERA_DIR hold seed0.csv, seed1.csv, ... with the same columns. Writes OUT_PREFIX.png and OUT_PREFIX.md: for each of
the four loss terms and the four mAP columns the band (smallest to largest over the seeds) of both at some epochs, and for how many epochs our
mean lies inside the original's band widened by its own width on each side, or on its better side. Needs matplotlib (pinned by
requirements.txt through ultralytics).
"""
import csv
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLUMNS = [("train/box_loss", -1), ("train/seg_loss", -1), ("train/cls_loss", -1), ("train/dfl_loss", -1),
           ("metrics/mAP50(B)", 1), ("metrics/mAP50-95(B)", 1), ("metrics/mAP50(M)", 1), ("metrics/mAP50-95(M)", 1)]


def read(folder):
    runs = []
    for path in sorted(pathlib.Path(folder).glob("seed*.csv")):
        with open(path) as f:
            rows = [{k.strip(): float(v) for k, v in row.items()} for row in csv.DictReader(f)]
        if rows:
            runs.append(rows)
    return runs


prefix, original, ours = sys.argv[1], read(sys.argv[2]), read(sys.argv[3])
epochs = min(len(r) for r in original + ours)
figure, axes = plt.subplots(2, 4, figsize=(18, 8))
lines = ["| column | epochs inside the band or better | " + " | ".join(f"epoch {e}: original, Tessera" for e in (epochs // 3, 2 * epochs // 3, epochs)) + " |",
         "|---|---|---|---|---|"]
for axis, (column, better) in zip(axes.flat, COLUMNS):
    inside, cells = 0, []
    for e in range(epochs):
        a = [r[e][column] for r in original]
        b = [r[e][column] for r in ours]
        mean = sum(b) / len(b)
        width = max(a) - min(a)
        inside += (mean >= min(a) - width if better > 0 else mean <= max(a) + width)
        if e + 1 in (epochs // 3, 2 * epochs // 3, epochs):
            cells.append(f"{min(a):.4g}..{max(a):.4g}, {min(b):.4g}..{max(b):.4g}")
    lines.append(f"| {column} | {inside}/{epochs} | " + " | ".join(cells) + " |")
    x = range(1, epochs + 1)
    for runs, colour, name in ((original, "tab:orange", "original"), (ours, "tab:blue", "Tessera")):
        low = [min(r[e][column] for r in runs) for e in range(epochs)]
        high = [max(r[e][column] for r in runs) for e in range(epochs)]
        axis.fill_between(x, low, high, color=colour, alpha=0.3)
        axis.plot(x, [sum(r[e][column] for r in runs) / len(runs) for e in range(epochs)], color=colour, label=f"{name}, {len(runs)} seeds")
    axis.set_title(column)
    axis.legend()
figure.tight_layout()
figure.savefig(prefix + ".png", dpi=60)
pathlib.Path(prefix + ".md").write_text("\n".join(lines) + "\n")
print("\n".join(lines))
