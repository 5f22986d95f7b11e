"""assigner.safetensors, assigner.json: TaskAlignedAssigner of the original (topk 10, alpha 0.5, beta 6) on 200 random cases.

84 anchors of a 64 x 64 image (strides 8, 16, 32), 1-3 images, 0-8 ground truths, 1-5 classes. Entries of case k (N images, G
padded): "k.scores" (N,84,nc) f16, "k.boxes" (N,84,4) f16 predicted xyxy pixels, "k.labels" (N,G) u8, "k.gts" (N,G,4) f16,
"k.valid" (N,G) u8; results "k.fg" (N,84) u8, "k.gt_index" (N,84) u8 (0 where not fg), "k.weight" (N,84) f32: the target score at
the class of the assigned ground truth (all others are 0). Target boxes are gts[gt_index]. "anchors" (84,2) f32 pixels. Inputs are
exact in float16.

Kinds of case: "plain"; "duplicates" (ground truths with the same box, same or other class: every anchor they share has equal
overlaps, the lowest index wins); "equal_metrics" (groups of anchors with identical predicted boxes and scores, so equal metrics
inside the top ten). Rejected while drawing, because the outcome would be arbitrary or a matter of rounding: ties or near ties
(relative 1e-4) of the metric at rank 10/11; overlaps of different boxes closer than 1e-5 where two ground truths compete; and
ground truths with fewer than ten positive metrics that also hold an anchor with zero metric inside (spec 7.2 step 6). Zero-metric
picks that lie outside the ground truth do happen: they never become positives; assigner.json counts them per case ("zero_picks").
"""

import sys

import numpy as np
import torch

from common import output_folder, save_json, save_tensors

from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.tal import TaskAlignedAssigner

CASES = 200
anchors = torch.tensor([[(x + 0.5) * s, (y + 0.5) * s] for s in (8, 16, 32) for y in range(64 // s) for x in range(64 // s)])


def quantised(a, step):
    return np.round(np.asarray(a) / step) * step


def draw(rng, kind):
    n, nc = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    counts = [int(rng.integers(0, 9)) for _ in range(n)]
    if kind != "plain":
        counts[0] = max(counts[0], 2)
    g = max(counts)
    labels, gts, valid = np.zeros((n, g)), np.zeros((n, g, 4)), np.zeros((n, g))
    for i, count in enumerate(counts):
        for j in range(count):
            centre, size = rng.uniform(6, 58, 2), rng.uniform(8, 44, 2)
            gts[i, j] = quantised(np.concatenate([np.clip(centre - size / 2, 0, 64), np.clip(centre + size / 2, 0, 64)]), 0.125)
            labels[i, j], valid[i, j] = rng.integers(nc), 1
        if kind == "duplicates" and count >= 2:
            for _ in range(int(rng.integers(1, 3))):
                a, b = rng.choice(count, 2, replace=False)
                gts[i, b] = gts[i, a]
                if rng.random() < 0.5:
                    labels[i, b] = labels[i, a]
    boxes, scores = np.zeros((n, 84, 4)), quantised(rng.uniform(0.02, 0.98, (n, 84, nc)), 1 / 256)
    for i, count in enumerate(counts):
        for a in range(84):
            ax, ay = anchors[a].numpy()
            holders = [j for j in range(count) if gts[i, j, 0] < ax < gts[i, j, 2] and gts[i, j, 1] < ay < gts[i, j, 3]]
            if holders and rng.random() < 0.97:
                base = gts[i, rng.choice(holders)]
                noise = 0.35 * (base[2:] - base[:2])[[0, 1, 0, 1]]
                box = base + rng.uniform(-1, 1, 4) * noise
            else:
                box = np.concatenate([np.array([ax, ay]) - rng.uniform(4, 24, 2), np.array([ax, ay]) + rng.uniform(4, 24, 2)])
            boxes[i, a] = quantised(box, 0.125)
        if kind == "equal_metrics":
            for j in range(count):
                inside = [
                    a
                    for a in range(84)
                    if gts[i, j, 0] < anchors[a, 0] < gts[i, j, 2] and gts[i, j, 1] < anchors[a, 1] < gts[i, j, 3]
                ]
                if len(inside) >= 3:
                    group = rng.choice(inside, min(len(inside), int(rng.integers(2, 6))), replace=False)
                    boxes[i, group] = boxes[i, group[0]]
                    scores[i, group] = scores[i, group[0]]
    as_tensor = lambda v: torch.from_numpy(np.asarray(v, dtype=np.float32))
    return (
        as_tensor(scores),
        as_tensor(boxes),
        torch.from_numpy(labels).long()[..., None],
        as_tensor(gts),
        torch.from_numpy(valid).bool()[..., None],
    )


def well_defined(scores, boxes, labels, gts, valid):
    """(True, zero picks, has ties) or (False, ...)."""
    zero_picks, ties = 0, 0
    for i in range(gts.shape[0]):
        overlaps = []
        for j in range(gts.shape[1]):
            if not valid[i, j]:
                continue
            gt = gts[i, j]
            inside = torch.cat([anchors - gt[:2], gt[2:] - anchors], 1).amin(1) > 1e-9
            overlap = bbox_iou(gt[None], boxes[i], xywh=False, CIoU=True).reshape(-1).double().clamp(min=0) * inside
            metric = scores[i, :, labels[i, j, 0]].double().sqrt() * overlap**6
            overlaps.append((gt, overlap, inside))
            ordered = metric.sort(descending=True).values
            if ordered[9] == 0:
                zero_picks += int((ordered[:10] == 0).sum())
                if (inside & (metric == 0)).any():
                    return False, 0, 0
            elif ordered[9] - ordered[10] <= 1e-4 * ordered[9]:
                return False, 0, 0
            if ((overlap > 0) & (overlap < 1e-3)).any():
                return False, 0, 0
            top = ordered[:10][ordered[:10] > 0]
            ties += int((top[1:] == top[:-1]).sum())
        for x in range(len(overlaps)):
            for y in range(x):
                both = overlaps[x][2] & overlaps[y][2]
                if torch.equal(overlaps[x][0], overlaps[y][0]):
                    ties += int(both.sum())
                elif (both & ((overlaps[x][1] - overlaps[y][1]).abs() < 1e-5)).any():
                    return False, 0, 0
    return True, zero_picks, ties


tensors, table = {"anchors": anchors}, []
rng = np.random.Generator(np.random.PCG64(8))
while len(table) < CASES:
    kind = ("plain", "duplicates", "equal_metrics")[len(table) % 3]
    inputs = draw(rng, kind)
    fine, zero_picks, ties = well_defined(*inputs)
    scores, boxes, labels, gts, valid = inputs
    if not fine or (kind != "plain" and ties == 0):
        continue
    assigner = TaskAlignedAssigner(topk=10, num_classes=scores.shape[2], alpha=0.5, beta=6.0)
    _, target_boxes, target_scores, fg, index = assigner(scores, boxes, anchors, labels, gts, valid)
    fg, index = fg.bool(), index * fg
    weight = target_scores.sum(-1) * fg
    if gts.shape[1]:
        assert torch.equal(target_boxes[fg], gts[torch.arange(len(gts))[:, None].expand_as(index)[fg], index[fg]])
    k = len(table)
    tensors.update(
        {
            f"{k}.scores": scores.half(),
            f"{k}.boxes": boxes.half(),
            f"{k}.labels": labels[..., 0].to(torch.uint8),
            f"{k}.gts": gts.half(),
            f"{k}.valid": valid[..., 0].to(torch.uint8),
            f"{k}.fg": fg.to(torch.uint8),
            f"{k}.gt_index": index.to(torch.uint8),
            f"{k}.weight": weight,
        }
    )
    assert all(torch.equal(t.half().float(), t) for t in (scores, boxes, gts))
    table.append(
        {
            "kind": kind,
            "images": len(gts),
            "nc": scores.shape[2],
            "gts": int(valid.sum()),
            "positives": int(fg.sum()),
            "zero_picks": zero_picks,
            "ties": ties,
        }
    )
folder = output_folder(sys.argv)
save_tensors(folder / "assigner.safetensors", tensors)
with_zero = sum(1 for t in table if t["zero_picks"])
save_json(folder / "assigner.json", {"topk": 10, "alpha": 0.5, "beta": 6, "cases_with_zero_picks": with_zero, "cases": table})
print(
    with_zero,
    "cases with zero picks;",
    sum(t["positives"] for t in table),
    "positives;",
    sum(t["gts"] for t in table),
    "gts; empty",
    sum(t["gts"] == 0 for t in table),
)
