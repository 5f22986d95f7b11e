"""Arguments of the original in the comparison of training curves (docs/parity.md)."""

DEFAULTS = dict(
    model="yolov8n-seg.yaml",
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
