"""curves.json: precision and recall curves at IoU 0.50, for the detections of original_ap.json and coco_eval.json (run after them).

"original": for each "ap" case of original_ap.json, what ap_per_class returns and draws. "classes" (of the labels, ascending): "p",
"r", "f1" over 1000 confidences, and "pr", precision over 1000 recalls, null for a class without detections, which the original
leaves out. "mean": the thick line of each plot, y and legend, as handed to matplotlib.
"coco": for some cases of coco_eval.json and both kinds, the categories with objects. "pr": COCOeval's precision at the recalls
0/1000 ... 1000/1000 instead of its 101; "p" and "r": true and false positives among the detections with score >= k * 0.001, k = 0
... 1000, counted from COCOeval's matches; p is null without any. "ap50": with the 101 recalls.
Of each curve: "sum" over all points (null as 1), "at": the values at "points".
"""

import contextlib
import copy
import io
import json
import pathlib
import sys
import tempfile

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.axes import Axes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from common import output_folder, save_json
from ultralytics.utils.metrics import ap_per_class

COCO_CASES = [0, 2, 3, 4, 8, 12, 20, 25]
POINTS = {n: [*range(0, n, 83), n - 1] for n in (1000, 1001)}


def curve(y):
    y = np.asarray(y, dtype=np.float64)
    at = [None if np.isnan(y[i]) else y[i] for i in POINTS[len(y)]]
    return {"sum": np.where(np.isnan(y), 1, y).sum(), "at": at}


@contextlib.contextmanager
def recorded_lines():
    """(label, y) of every line drawn inside."""
    lines, plot = [], Axes.plot

    def record(self, *args, **kwargs):
        lines.append((kwargs.get("label"), args[1]))
        return plot(self, *args, **kwargs)

    Axes.plot = record
    try:
        yield lines
    finally:
        Axes.plot = plot


def original(case):
    tp = np.arange(10)[None] < np.array(case["passed"])[:, None]
    predicted, target = np.array(case["predicted"], np.float32), np.array(case["target"], np.float32)
    with tempfile.TemporaryDirectory() as folder, recorded_lines() as lines:
        _, _, _, _, _, _, unique, p, r, f1, _, pr = ap_per_class(
            tp,
            np.array(case["confidence"], np.float32),
            predicted,
            target,
            plot=True,
            save_dir=pathlib.Path(folder),
            names={i: str(i) for i in range(20)},
        )
    means = [(label, y) for label, y in lines if label and label.startswith("all classes")]
    rows = iter(pr)
    classes = [
        {
            "class": int(c),
            "p": curve(p[i]),
            "r": curve(r[i]),
            "f1": curve(f1[i]),
            "pr": curve(next(rows)) if (predicted == c).any() else None,
        }
        for i, c in enumerate(unique)
    ]
    names = ("pr", "f1", "p", "r")  # in the order of drawing
    return {"classes": classes, "mean": {n: {"legend": label, **curve(y)} for n, (label, y) in zip(names, means, strict=True)}}


def coco(case, kind):
    def run_with(recalls):
        truth = COCO()
        truth.dataset = copy.deepcopy(case["gt"])
        truth.createIndex()
        if case["dt"]:
            result = truth.loadRes(copy.deepcopy(case["dt"]))
        else:
            result = COCO()
            result.dataset = {"images": case["gt"]["images"], "categories": case["gt"]["categories"], "annotations": []}
            result.createIndex()
        run = COCOeval(truth, result, kind)
        if recalls is not None:
            run.params.recThrs = recalls
        run.evaluate()
        run.accumulate()
        return run

    with contextlib.redirect_stdout(io.StringIO()):
        usual, fine = run_with(None), run_with(np.arange(1001) / 1000)
    categories = []
    for k, category in enumerate(fine.params.catIds):
        precision = fine.eval["precision"][0, :, k, 0, 2]
        if (precision < 0).any():  # no objects
            continue
        images = [e for e in fine.evalImgs if e and e["category_id"] == category and e["aRng"] == fine.params.areaRng[0]]
        objects = sum(int(np.sum(np.logical_not(e["gtIgnore"]))) for e in images)
        empty = np.zeros(0)
        score = np.concatenate([empty, *(e["dtScores"] for e in images)])
        counted = ~np.concatenate([empty, *(e["dtIgnore"][0] for e in images)]).astype(bool)
        matched = np.concatenate([empty, *(e["dtMatches"][0] for e in images)]) > 0
        above = score[None] >= (np.arange(1001) * 0.001)[:, None]
        tp, fp = (above & counted & matched).sum(1), (above & counted & ~matched).sum(1)
        with np.errstate(invalid="ignore"):
            p = tp / (tp + fp)
        categories.append(
            {
                "category": category,
                "ap50": usual.eval["precision"][0, :, k, 0, 2].mean(),
                "pr": curve(precision),
                "p": curve(p),
                "r": curve(tp / objects),
            }
        )
    return categories


if __name__ == "__main__":
    folder = output_folder(sys.argv)
    cases = json.loads((folder / "original_ap.json").read_text())["ap"]
    pairs = json.loads((folder / "coco_eval.json").read_text())
    data = {
        "points": {str(n): points for n, points in POINTS.items()},
        "original": [{"ap": k, **original(c)} for k, c in enumerate(cases) if c["classes"]],
        "coco": [{"case": k, **{kind: coco(pairs[k], kind) for kind in ("bbox", "segm")}} for k in COCO_CASES],
    }
    save_json(folder / "curves.json", data, digits=12)
