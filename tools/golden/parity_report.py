"""Joins the results.csv of the original (parity_train.py) and of Tessera over several seeds to tables and one chart.

    parity_report.py OUT_PREFIX ORIGINAL_DIR TESSERA_DIR [FED_DIR]

The folders hold seed0.csv, seed1.csv, ... with the same columns; FED_DIR those of the original trained on our batches and weights
(parity_train.py --feed). Writes OUT_PREFIX.png and OUT_PREFIX.md:

1. for each loss term and mAP column: at how many epochs our mean over the seeds lies inside the original's band (smallest to largest
   of its seeds, not widened) or on its better side; the same for our single runs, in per cent of seeds and epochs, of which n/(n+1) are
   expected when n seeds of the original and ours are of one population; both means with standard deviations at the last epoch; and
   the chance that two groups of seeds of one population are as far apart there (permutation test, two-sided, 10 000 draws).
2. with FED_DIR: the same columns seed by seed, ours and the original on identical batches and weights.
"""
import csv
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

COLUMNS = [("train/box_loss", -1), ("train/seg_loss", -1), ("train/cls_loss", -1), ("train/dfl_loss", -1),
           ("metrics/mAP50(B)", 1), ("metrics/mAP50-95(B)", 1), ("metrics/mAP50(M)", 1), ("metrics/mAP50-95(M)", 1)]


def read(folder):
    """seed -> rows of its csv"""
    runs = {}
    for path in sorted(pathlib.Path(folder).glob("seed*.csv")):
        with open(path) as f:
            rows = [{k.strip(): float(v) for k, v in row.items()} for row in csv.DictReader(f)]
        if rows:
            runs[path.stem] = rows
    return runs


def column(runs, name, epochs):
    """(seeds, epochs)"""
    return np.array([[row[name] for row in rows[:epochs]] for rows in runs.values()])


def permutation_p(a, b, draws=10_000):
    rng = np.random.default_rng(0)
    both, n, seen = np.concatenate([a, b]), len(a), abs(a.mean() - b.mean())
    hits = 0
    for _ in range(draws):
        rng.shuffle(both)
        hits += abs(both[:n].mean() - both[n:].mean()) >= seen
    return hits / draws


def spread(values):
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def main():
    prefix, original, ours = sys.argv[1], read(sys.argv[2]), read(sys.argv[3])
    fed = read(sys.argv[4]) if len(sys.argv) > 4 else {}
    epochs = min(len(r) for r in [*original.values(), *ours.values()])
    lines = [f"{len(original)} seeds of the original, {len(ours)} of Tessera, {epochs} epochs.", "",
             f"| column | epochs inside the band or better | single runs inside | epoch {epochs}: original | Tessera | p |",
             "|---|---|---|---|---|---|"]
    figure, axes = plt.subplots(2, 4, figsize=(18, 8))
    for axis, (name, better) in zip(axes.flat, COLUMNS):
        a, b = column(original, name, epochs), column(ours, name, epochs)
        a_sign, b_sign = better * a, better * b
        inside = b_sign.mean(0) >= a_sign.min(0)
        single = (b_sign >= a_sign.min(0)).mean()
        lines.append(f"| {name} | {inside.sum()}/{epochs} | {100 * single:.0f} % | {spread(a[:, -1])} | {spread(b[:, -1])} | {permutation_p(a[:, -1], b[:, -1]):.2f} |")
        x = range(1, epochs + 1)
        for values, colour, who in ((a, "tab:orange", f"original, {len(original)} seeds"), (b, "tab:blue", f"Tessera, {len(ours)} seeds")):
            axis.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.3)
            axis.plot(x, values.mean(0), color=colour, label=who)
        axis.set_title(name)
        axis.legend()
    figure.tight_layout()
    figure.savefig(prefix + ".png", dpi=60)
    if fed:
        shown = sorted({epochs // 5, 2 * epochs // 5, epochs})
        lines += ["", "| identical batches and weights | " + " | ".join(f"epoch {e}: original, Tessera" for e in shown) + " |",
                  "|---|" + "---|" * len(shown)]
        for seed, rows in fed.items():
            for name, _ in COLUMNS[:4] + COLUMNS[5:8:2]:
                cells = [f"{rows[e - 1][name]:.3f}, {ours[seed][e - 1][name]:.3f}" for e in shown]
                lines.append(f"| {seed} {name} | " + " | ".join(cells) + " |")
    pathlib.Path(prefix + ".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


main()
