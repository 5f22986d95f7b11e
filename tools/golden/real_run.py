"""A real checkpoint of the original and what the original says about it; nothing of this enters the repository.

real_run.py train OUT DATA_YAML [EPOCHS] yolov8n-seg.yaml from scratch, imgsz 160, batch 16, AdamW lr0 0.002, little augmentation
and no mosaic, so that few epochs give a visible mAP; checkpoint OUT/train/weights/best.pt real_run.py record PT DATA_YAML
OUT.json standalone validation (imgsz 160, batch 16, rect: all defaults) with unrounded metrics, the detections it scored, and
predictions at conf 0.25

Set YOLO_CONFIG_DIR to a writable folder. The JSON: "metrics" (P, R, mAP50, mAP50-95 of box and mask; per class too); "val": per
image file the detections with score >= 0.05 in score order as [x1, y1, x2, y2 (network input pixels of its rect batch), score,
class, mask pixels at prototype size] and the count of all (conf 0.001, multi-label, 300 at most); "predict": per image [x1, y1,
x2, y2 (original pixels), score, class, mask pixels at letterboxed network size].
"""

import pathlib
import sys

import common
import yaml
from ultralytics import YOLO
from ultralytics.models.yolo.segment import SegmentationValidator


def train(out, data, epochs=60):
    model = YOLO("yolov8n-seg.yaml")
    model.train(
        data=data,
        epochs=int(epochs),
        imgsz=160,
        batch=16,
        optimizer="AdamW",
        lr0=0.002,
        momentum=0.9,
        mosaic=0.0,
        close_mosaic=0,
        scale=0.1,
        translate=0.05,
        workers=0,
        amp=False,
        plots=False,
        device="cpu",
        pretrained=False,
        seed=0,
        verbose=False,
        project=out,
        name="train",
        exist_ok=True,
    )


def record(weights, data, out):
    seen = {}

    class Recorder(SegmentationValidator):
        """Keeps the detections of each image as they go into the metrics."""

        def update_metrics(self, preds, batch):
            for i, p in enumerate(preds):
                rows = []
                for box, score, cls, mask in zip(p["bboxes"], p["conf"], p["cls"], p["masks"]):
                    if score >= 0.05:
                        rows.append([*box.tolist(), score.item(), int(cls), int(mask.sum())])
                seen[pathlib.Path(batch["im_file"][i]).name] = {
                    "input": list(batch["img"].shape[2:]),
                    "count": len(p["conf"]),
                    "detections": rows,
                }
            super().update_metrics(preds, batch)

    model = YOLO(weights)
    metrics = model.val(validator=Recorder, data=data, imgsz=160, batch=16, workers=0, device="cpu", plots=False, verbose=False)

    def figures(m):
        return {
            "p": m.mp,
            "r": m.mr,
            "map50": m.map50,
            "map": m.map,
            "classes": m.ap_class_index,
            "p_class": m.p,
            "r_class": m.r,
            "map50_class": m.ap50,
            "map_class": m.ap,
        }

    predicted = {}
    for result in model.predict(source=sources(data), imgsz=160, device="cpu", verbose=False, stream=True):
        rows = []
        for k in range(len(result.boxes)):
            rows.append(
                [
                    *result.boxes.xyxy[k].tolist(),
                    result.boxes.conf[k].item(),
                    int(result.boxes.cls[k]),
                    int(result.masks.data[k].sum()),
                ]
            )
        predicted[pathlib.Path(result.path).name] = rows
    common.save_json(
        out,
        {
            "weights": pathlib.Path(weights).name,
            "metrics": {"box": figures(metrics.box), "mask": figures(metrics.seg), "fitness": metrics.fitness},
            "val": seen,
            "predict": predicted,
        },
        digits=9,
    )
    print("box", metrics.box.map50, metrics.box.map, "mask", metrics.seg.map50, metrics.seg.map)


def sources(data):
    description = yaml.safe_load(pathlib.Path(data).read_text())
    return str(pathlib.Path(description["path"]) / description["val"])


if __name__ == "__main__":
    {"train": train, "record": record}[sys.argv[1]](*sys.argv[2:])
