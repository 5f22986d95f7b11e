"""nms.json, masks.safetensors, masks.json, original_ap.json, label_scan.json: what the original does after the network and before
it.

nms.json: each case has "rows" [cx, cy, w, h, score_0, ...] (one per anchor) and options; "kept" lists [anchor, class, score, x1,
y1, x2, y2] in the original's order (the anchor number travels through it as the only mask coefficient). "scale_boxes": boxes back
to the original image. masks.safetensors: "<case>.prototypes" (mh,mw,32), ".coefficients" (n,32), ".boxes" (n,4) xyxy network
pixels; results u8 (n,h,w): ".small" (prototype size), ".upsampled" (network size), ".native.<j>" for the sizes and boxes of
masks.json. A pixel may flip where the logit is within rounding of 0. original_ap.json: "match": IoU matrix (labels x detections),
classes, and per detection the number of IoU thresholds passed as a 10-bit string; "ap": set of detections and per-class AP at ten
thresholds, P, R, F1 at the operating point; "confusion": matrices. No ties of confidence or IoU, which the original resolves by
unstable sorts. Full double precision. label_scan.json: label file contents and the outcome of the original's scan: status
ok|missing|empty|corrupt, classes, boxes (float32), polygon vertex counts, message of duplicates.
"""

import pathlib
import sys
import tempfile
import types

import cv2
import numpy as np
import torch

from common import fraction, output_folder, save_json, save_tensors, sines
from ultralytics.data.utils import verify_image_label
from ultralytics.engine.validator import BaseValidator
from ultralytics.utils import ops
from ultralytics.utils.metrics import ConfusionMatrix, ap_per_class, box_iou


def nms_case(rows, conf, iou=0.7, multi=False, agnostic=False, classes=None, max_det=300):
    rows = torch.tensor(rows, dtype=torch.float32)
    nc = rows.shape[1] - 4
    prediction = torch.cat([rows, torch.arange(len(rows), dtype=torch.float32)[:, None]], 1).T[None].clone()
    if prediction.shape[2] == 6:  # the original takes six columns for another kind of output: add an anchor without score
        prediction = torch.cat([prediction, torch.zeros_like(prediction[..., :1])], 2)
    out = ops.non_max_suppression(
        prediction, conf, iou, classes=classes, agnostic=agnostic, multi_label=multi, max_det=max_det, nc=nc
    )[0]
    kept = [[int(r[6]), int(r[5]), r[4].item(), *r[:4].tolist()] for r in out]
    return {
        "nc": nc,
        "conf": conf,
        "iou": iou,
        "multi_label": multi,
        "agnostic": agnostic,
        "classes": classes,
        "max_det": max_det,
        "rows": rows.tolist(),
        "kept": kept,
    }


def random_rows(name, count, nc, size=160.0):
    """Clustered boxes, so that suppression has work; coordinates in quarters, scores in 1/128: equal scores are common."""
    f = fraction(name, count * 6).reshape(count, 6)
    cluster = fraction(name + ".cluster", 16).reshape(8, 2) * size
    which = (f[:, 0] * 8).astype(int)
    rows = np.zeros((count, 4 + nc))
    rows[:, :2] = np.round((cluster[which] + (f[:, 1:3] - 0.5) * 12) * 4) / 4
    rows[:, 2:4] = np.round((24 + 16 * f[:, 3:5]) * 4) / 4
    rows[:, 4:] = np.round(fraction(name + ".scores", count * nc).reshape(count, nc) ** 3 * 128) / 128
    return rows.tolist()


def nms():
    example = [
        [100, 100, 40, 40, 0.9, 0.3],
        [104, 100, 40, 40, 0.8, 0.85],
        [100, 103, 40, 40, 0.7, 0.1],
        [300, 300, 50, 20, 0.25, 0.2],
        [300, 300, 50, 20, 0.26, 0.2],
        [110, 100, 40, 40, 0.6, 0.6],
    ]
    cases = [
        nms_case(example, 0.25),
        nms_case(example, 0.001, multi=True),
        nms_case(example, 0.25, agnostic=True),
        nms_case(example, 0.001, multi=True, classes=[1]),
    ]
    touching = [
        [10, 10, 20, 20, 0.9],
        [10, 10, 20, 10, 0.8],
        [10, 10, 20, 9.5, 0.7],
        [60, 10, 20, 20, 0.5],
    ]  # IoU exactly 0.5 with the first; score equal to conf
    cases += [nms_case(touching, 0.5, iou=0.5), nms_case(touching, 0.25, iou=0.5), nms_case(touching, 0.95)]
    cases += [
        nms_case(random_rows("nms.a", 60, 3), 0.25),
        nms_case(random_rows("nms.a", 60, 3), 0.001, multi=True),
        nms_case(random_rows("nms.b", 60, 1), 0.001, multi=True),
        nms_case(random_rows("nms.c", 60, 2), 0.1, iou=0.45, agnostic=True),
        nms_case(random_rows("nms.d", 60, 4), 0.001, multi=True, max_det=7),
    ]
    same = [[20 + 50 * (k % 5), 20 + 50 * (k // 5), 30, 30, 0.5, 0.5] for k in range(15)] + [
        [21 + 50 * (k % 5), 20 + 50 * (k // 5), 30, 30, 0.5, 0.5] for k in range(15)
    ]
    cases += [nms_case(same, 0.25), nms_case(same, 0.001, multi=True)]  # all scores equal: original order decides
    wide = []
    for k, r in enumerate(random_rows("nms.e", 24, 1)):  # class ids near 79: boxes are quantised to 1/16 inside the original's NMS
        scores = [0.0] * 80
        scores[79 - k % 2] = r[4] * 0.9 + 0.05
        wide.append([r[0] + 0.03 * k, r[1], r[2] + 0.011 * k, r[3], *scores])
    cases.append(nms_case(wide, 0.001, multi=True))
    scaled = []
    boxes = torch.tensor([[12.0, 20, 100, 130], [-5, 3, 700, 650], [50.25, 60.5, 51.75, 90.125]])
    for net, original, pad in (
        ((640, 480), (1080, 810), None),
        ((384, 640), (720, 1280), None),
        ((640, 448), (500, 333), None),
        ((256, 640), (37, 100), None),
        ((448, 672), (427, 640), ((1.0, 1.0), (16, 10))),
        ((672, 448), (500, 333), ((1.28, 1.2822822822822824), (10, 16))),
        ((512, 672), (318, 424), ((1.5125786163522013, 1.509433962264151), (16, 15))),
    ):
        scaled.append(
            {
                "net": net,
                "original": original,
                "ratio_pad": pad,
                "boxes": boxes,
                "result": ops.scale_boxes(net, boxes.clone(), original, ratio_pad=pad),
            }
        )
    return {"cases": cases, "scale_boxes": scaled}


def masks(tensors):
    info = {}
    for case, (mh, mw), boxes, natives in (
        ("square", (16, 16), [[4, 6, 40, 50], [10.5, 3.2, 63.9, 30.7], [-5, 20, 20, 70]], [((64, 64), 1.0), ((60, 96), 1.5)]),
        (
            "wide",
            (12, 24),
            [[0, 0, 96, 48], [20.25, 10.5, 55.5, 44], [60, 5, 95.9, 47.9], [30, 30, 30.4, 31]],
            [((40, 96), 1.0), ((75, 180), 1.9), ((24, 48), 0.5)],
        ),
    ):
        n = len(boxes)
        protos, coefficients, boxes = sines(0.31, (32, mh, mw)), sines(0.7, (n, 32)), torch.tensor(boxes, dtype=torch.float32)
        tensors.update(
            {f"{case}.prototypes": protos.permute(1, 2, 0), f"{case}.coefficients": coefficients, f"{case}.boxes": boxes}
        )
        size = (mh * 4, mw * 4)
        small = ops.process_mask(protos, coefficients, boxes.clone(), size, upsample=False)
        upsampled = ops.process_mask(protos, coefficients, boxes.clone(), size, upsample=True)
        tensors[f"{case}.small"], tensors[f"{case}.upsampled"] = small.to(torch.uint8), upsampled.to(torch.uint8)
        info[case] = {"network": size, "small": small.sum((1, 2)).int(), "upsampled": upsampled.sum((1, 2)).int(), "native": []}
        for j, (shape, factor) in enumerate(natives):
            native = ops.process_mask_native(protos, coefficients, boxes.clone() * factor, shape)
            tensors[f"{case}.native.{j}"] = native.to(torch.uint8)
            info[case]["native"].append({"size": shape, "boxes_times": factor, "pixels": native.sum((1, 2)).int()})
    return info


def average_precision():
    validator = types.SimpleNamespace(iouv=torch.linspace(0.5, 0.95, 10))
    out = {"match": [], "ap": [], "confusion": []}
    for k in range(12):
        labels, detections = (0, 1, 2, 3, 5, 8)[k % 6], (4, 0, 3, 6, 9, 12)[(k * 5) % 6]
        gt_boxes, gt_classes = random_boxes(f"match.gt{k}", labels)
        boxes, classes = random_boxes(f"match.dt{k}", detections, gt_boxes)
        gt_classes, classes = gt_classes % 2, classes % 2
        iou = box_iou(gt_boxes, boxes)
        if labels and detections:
            tp = BaseValidator.match_predictions(validator, classes, gt_classes, iou)
            strings = ["".join("1" if v else "0" for v in row) for row in tp.tolist()]
        else:
            strings = ["0" * 10] * detections
        confidence = 0.9 - 0.9 * torch.arange(detections) / max(detections, 1)
        out["match"].append(
            {
                "labels": gt_boxes,
                "label_classes": gt_classes,
                "detections": boxes,
                "detection_classes": classes,
                "iou": iou,
                "tp": strings,
            }
        )
        matrix = ConfusionMatrix(names=["a", "b"])
        matrix.process_batch(
            {"bboxes": boxes, "conf": confidence, "cls": classes.float()},
            {"bboxes": gt_boxes, "cls": gt_classes.float()},
            conf=0.25,
            iou_thres=0.45,
        )
        out["confusion"].append({"match": k, "confidence": confidence, "matrix": matrix.matrix.astype(int)})
    for k in range(10):
        count, labels, classes = (
            (40, 12, 100, 3, 60, 1, 200, 25, 30, 0)[k],
            (30, 20, 60, 5, 8, 1, 150, 0, 40, 7)[k],
            (3, 2, 5, 4, 1, 1, 10, 2, 3, 2)[k],
        )
        f = fraction(f"ap{k}", count * 4 + labels).astype(np.float64)
        passed = np.clip((f[:count] * 14).astype(int) - 3, 0, 10)
        confidence = (0.05 + 0.9 * (0.4 * passed / 10 + 0.6 * f[count : 2 * count])).astype(np.float32)
        assert len(set(confidence.tolist())) == count
        predicted, target = (f[2 * count : 3 * count] * (classes + 1)).astype(int), (f[4 * count :] * classes).astype(int)
        tp = np.arange(10)[None] < passed[:, None]
        entry = {"passed": passed, "confidence": confidence, "predicted": predicted, "target": target, "classes": []}
        if count and labels:
            _, _, p, r, f1, ap, unique, *_ = ap_per_class(
                tp,
                confidence,
                predicted.astype(np.float32),
                target.astype(np.float32),
                plot=False,
                names={i: str(i) for i in range(20)},
            )
            entry["classes"] = [{"class": int(c), "p": p[i], "r": r[i], "f1": f1[i], "ap": ap[i]} for i, c in enumerate(unique)]
            entry["mean"] = {"p": p.mean(), "r": r.mean(), "map50": ap[:, 0].mean(), "map75": ap[:, 5].mean(), "map": ap.mean()}
        out["ap"].append(entry)
    return out


def random_boxes(name, count, near=None):
    f = torch.from_numpy(fraction(name, count * 5).reshape(count, 5))
    centre, size = 20 + 60 * f[:, :2], 10 + 30 * f[:, 2:4]
    if near is not None and len(near):
        base = near[(f[:, 4] * len(near)).long()].double()
        centre = (base[:, :2] + base[:, 2:]) / 2 + 6 * (f[:, :2] - 0.5)
        size = (base[:, 2:] - base[:, :2]) * (0.85 + 0.3 * f[:, 2:4])
    return torch.cat([centre - size / 2, centre + size / 2], 1).float(), (f[:, 4] * 7).int()


SCANS = [
    ("box", "0 0.5 0.5 0.2 0.3\n"),
    ("two boxes", "0 0.5 0.5 0.2 0.3\n2 .25 .25 .5 .5\n"),
    ("polygon", "0 .1 .1 .6 .2 .5 .8"),
    ("polygon then box row", "0 .1 .1 .6 .2 .5 .8\n1 .5 .5 .2 .2\n"),
    ("polygon then point row", "0 .1 .1 .6 .2 .5 .8\n0 .1 .1\n"),
    ("six fields", "0 .1 .1 .6 .2 .5\n"),
    ("six fields and polygon", "0 .1 .1 .6 .2 .5\n0 .1 .1 .6 .2 .5 .8\n"),
    ("eight fields", "0 .1 .1 .6 .2 .5 .8 .9\n"),
    ("class only and polygon", "0\n0 .1 .1 .6 .2 .5 .8\n"),
    ("blanks between rows", "0 .5 .5 .2 .2\n   \n0 .4 .5 .2 .2\n"),
    ("empty line between rows", "0 .5 .5 .2 .2\n\n0 .4 .5 .2 .2\n"),
    ("tabs and CRLF", "0\t.5 .5\t.2 .2\r\n1 .4 .5 .2 .2\r\n"),
    ("blanks only", "  \n \n"),
    ("empty", ""),
    ("missing", None),
    ("vertex outside, box inside", "0 -.1 .1 .6 .2 .5 .8\n"),
    ("centre outside", "0 .9 .1 1.4 .2 1.3 .8\n"),
    ("width above 1", "0 .5 .5 1.1 .2\n"),
    ("exactly 1", "0 .5 .5 1 1\n"),
    ("negative centre", "0 -0.01 .5 .2 .2\n"),
    ("class -1", "-1 .5 .5 .2 .2\n"),
    ("class 3", "3 .5 .5 .2 .2\n"),
    ("class 1.7", "1.7 .5 .5 .2 .2\n"),
    ("duplicates", "1 .5 .5 .2 .2\n0 .4 .5 .2 .2\n1 .5 .5 .2 .2\n0 .3 .5 .2 .2\n"),
    ("duplicate polygons", "1 .1 .1 .6 .2 .5 .8\n0 .2 .2 .6 .2 .5 .8\n1 .1 .1 .6 .2 .5 .8\n"),
    ("nan", "0 nan .5 .2 .2\n"),
    ("inf", "0 inf .5 .2 .2\n"),
    ("byte-order mark", "\ufeff0 .5 .5 .2 .2\n"),
    ("decimal comma", "0 0,5 .5 .2 .2\n"),
    ("text", "person .5 .5 .2 .2\n"),
    ("exponents", "0 5e-1 5E-1 2.0e-1 .2\n"),
    ("form feed", "0 .5\f.5 .2 .2\n"),
    ("four fields", "0 .5 .5 .2\n"),
    ("leading spaces, no end of line", "   0 .5 .5 .2 .2"),
    ("plus sign", "+1 +.5 .5 .2 .2\n"),
    ("underscore number", "0 0.5 0.5 0.2 1_0\n"),
    ("ten polygons", "\n".join(f"{k % 3} .1 .1 .{k + 1}5 .2 .5 .8" for k in range(9)) + "\n2 .2 .2 .9 .2 .5 .9 .3 .4\n"),
]


def label_scan():
    out = []
    with tempfile.TemporaryDirectory() as folder:
        image = pathlib.Path(folder) / "image.png"
        cv2.imwrite(str(image), np.zeros((20, 30, 3), np.uint8))
        for single in (False, True):
            for name, content in SCANS:
                if single and not name.startswith(("class", "two", "dup")):
                    continue
                label = pathlib.Path(folder) / "image.txt"
                label.unlink(missing_ok=True)
                if content is not None:
                    label.write_bytes(content.encode())
                _, rows, _, segments, _, missing, found, empty, corrupt, message = verify_image_label(
                    (str(image), str(label), "", False, 3, 0, 0, single)
                )
                status = "corrupt" if corrupt else "missing" if missing else "empty" if empty else "ok"
                entry = {"name": name, "nc": 3, "single_cls": single, "content": content, "status": status}
                if status == "ok":
                    entry.update(
                        classes=rows[:, 0],
                        boxes=rows[:, 1:],
                        vertices=[len(s) for s in segments],
                        removed_duplicates=int(message.split(" duplicate")[0].split()[-1]) if "duplicate" in message else 0,
                    )
                out.append(entry)
    return out


if __name__ == "__main__":
    folder = output_folder(sys.argv)
    save_json(folder / "nms.json", nms())
    tensors = {}
    save_json(folder / "masks.json", masks(tensors))
    save_tensors(folder / "masks.safetensors", tensors)
    save_json(folder / "original_ap.json", average_precision(), digits=17)
    save_json(folder / "label_scan.json", label_scan())
