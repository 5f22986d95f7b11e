#!/usr/bin/env python3
"""Where fuzzing begins: small files of every format, from tests/golden and made here. seeds.py FOLDER"""

import base64
import io
import json
import pathlib
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
OUT = pathlib.Path(sys.argv[1])


def seed(target, name, data):
    folder = OUT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def golden(target, pattern, limit=65536, prefix=b""):
    for file in sorted(GOLDEN.glob(pattern)):
        if 0 < file.stat().st_size <= limit:
            seed(target, file.parent.name + "_" + file.name, prefix + file.read_bytes())


# .pt files, and the pickles in them
golden("torch_pt", "pt/*.pt")
golden("torch_pt", "checkpoint/*.pt")
for file in sorted(GOLDEN.glob("pt/*.pt")) + sorted(GOLDEN.glob("checkpoint/*.pt")):
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    seed("pickle", file.stem, archive.read(name))
    except (zipfile.BadZipFile, zlib.error, OSError):
        pass
for protocol in range(6):
    seed("pickle", f"values_{protocol}", pickle.dumps({"a": [1, 2.5, None, True, 1 << 70, b"x", "y", (1, 2, 3)], "b": {3, 4}}, protocol))

golden("onnx", "onnx/*.onnx", 1 << 17)
golden("checkpoint", "**/*.safetensors", 16384)

# images
pixels = bytes(range(60))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


EXIF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
EXIF_BIG = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"
for depth, colour, interlace in [(8, 2, 0), (8, 0, 0), (16, 6, 0), (1, 0, 0), (8, 2, 1), (8, 3, 0), (4, 3, 1), (8, 4, 0), (16, 0, 1)]:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    rows = b"".join(b"\0" + bytes((4 * channels * depth + 7) // 8) for _ in range(12))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 5, depth, colour, 0, 0, interlace)) + chunk(b"eXIf", EXIF_BIG)
    if colour == 3:
        png += chunk(b"PLTE", bytes(48)) + chunk(b"tRNS", b"\x80")
    seed("image", f"{depth}_{colour}_{interlace}.png", png + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIUFRT/2wBDAQMEBAUEBQkFBQkU"
    "DQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/wAARCAABAAEDASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAj/xAAUEAEAAAAAAAAA"
    "AAAAAAAAAAAA/8QAFAEBAAAAAAAAAAAAAAAAAAAAAP/EABQRAQAAAAAAAAAAAAAAAAAAAAD/2gAMAwEAAhEDEQA/AKpAB//Z")
seed("image", "a.jpg", JPEG)
seed("image", "turned.jpg", JPEG[:20] + b"\xff\xe1" + struct.pack(">H", 8 + len(EXIF)) + b"Exif\0\0" + EXIF + JPEG[20:])
seed("image", "a.ppm", b"P6\n# by hand\n5 4\n255\n" + pixels)
seed("image", "a.pgm", b"P5 5 4 65535\n" + pixels[:40])
seed("image", "a.bmp", b"BM" + struct.pack("<IIIIiiHHIIIIII", 54 + 64, 0, 54, 40, 5, 4, 1, 24, 0, 64, 0, 0, 0, 0) + bytes(64))
seed("image", "palette.bmp", b"BM" + struct.pack("<IIIIiiHHIIIIII", 54 + 8 + 16, 0, 62, 40, 5, -4, 1, 1, 0, 16, 0, 0, 2, 0) + bytes(24))
seed("image", "a.gif", b"GIF89a\2\0\2\0\x80\0\0\xff\xff\xff\0\0\0!\xf9\4\1\0\0\0\0,\0\0\0\0\2\0\2\0\0\2\3\x44\x52\5\0;")
seed("image", "a.psd", b"8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\4\0\0\0\5\0\x08\0\3" + bytes(14) + pixels)
seed("image", "b.psd", b"8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\1\0\0\0\4\0\x08\0\3" + bytes(13) + b"\1\0\2\0\2\0\2\xfd\x22\xfd\x33\xfd\x44")
seed("image", "a.hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 3 +X 4\n" + pixels[:48])
seed("image", "runs.hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 8\n\2\2\0\x08" + b"\x88\x40" * 4)
for byte_order, block in (("little", EXIF), ("big", EXIF_BIG)):
    seed("image", byte_order + ".exif", block)

# COCO
instances = {
    "info": {"a": [1, "}"]},
    "images": [{"id": 7, "height": 4, "width": 6, "file_name": "sub/7.jpg"}, {"id": 8, "height": 5, "width": 6, "file_name": "b.png"}],
    "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 5, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "area": 6, "bbox": [2, 1, 3, 2], "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
        {"id": 2, "image_id": 7, "category_id": 5, "iscrowd": 1, "bbox": [2, 1, 3, 2], "segmentation": {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]}},
        {"id": 3, "image_id": 8, "category_id": 3, "area": 1e1, "bbox": [0, 0, 1, 1], "segmentation": {"counts": "9220009", "size": [5, 6]}}],
}
results = [
    {"image_id": 7, "category_id": 3, "bbox": [2, 1, 3, 2], "score": 0.9, "segmentation": {"size": [4, 6], "counts": "52203"}},
    {"image_id": 7, "category_id": 5, "bbox": [0, 0, 2.5, 3], "score": 0.25, "segmentation": {"size": [4, 6], "counts": [9, 2, 13]}},
    {"image_id": "b", "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1e-3, "segmentation": [[0, 0, 3, 0, 3, 3.5]]},
]
seed("coco_json", "instances", b"\3" + json.dumps(instances, indent=1).encode())
# The same with images that are there, and parts, holes and boxes to convert.
images = [{"id": i, "height": 16, "width": 24, "file_name": name} for i, name in enumerate(("sub/7.png", "b.png", "nowhere.png"))]
shapes = [
    {"segmentation": [[1, 1, 20, 1, 20, 12, 1, 12]]}, {"segmentation": [[1, 1, 6, 1, 6, 6], [10, 10, 20, 10, 20, 15]]}, {"bbox": [3, 4, 10, 8]},
    {"segmentation": {"size": [16, 24], "counts": [100, 5, 11, 5, 11, 5, 247]}}, {"segmentation": [[2, 3, 12, 9]], "bbox": [2, 3, 10, 6]}]
converted = {"images": images, "categories": [{"id": 9, "name": "a: \"b\""}, {"id": 2, "name": "caf\u00e9"}],
             "annotations": [{"id": i, "image_id": i % 2, "category_id": 9 if i < 3 else 2, "iscrowd": 0, "area": 9} | shape for i, shape in enumerate(shapes)]}
seed("convert", "instances", json.dumps(instances, indent=1))
seed("convert", "images", json.dumps(converted, indent=1))
for kind in range(3):
    seed("coco_json", f"results_{kind}", bytes([kind]) + json.dumps(results).encode())
    seed("coco_json", f"boxes_{kind}", bytes([kind]) + json.dumps([{k: v for k, v in r.items() if k != "segmentation"} for r in results]).encode())
seed("rle", "text", b"\4\0\6\0\0" + b"52203")
seed("rle", "counts", b"\4\0\6\0\1" + struct.pack("<7q", 9, 2, 2, 2, 2, 2, 5))
seed("rle", "polygon", b"\x40\0\x40\0\2" + struct.pack("<6d", 1, 1, 40.5, 2, 30, 61))
seed("rle", "vertices", b"\x40\0\x40\0\3" + struct.pack("<8h", 8, 8, 320, 16, 240, 480, -80, 100))

# text
seed("labels", "rows", "0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9\n1 0.25 0.3 0.5 0.3 0.5 0.75\n\n0 .5 .5 .75 .5 .625 1.0\n2 0.5 0.5 1e-1 0.25 0.75 0.875\n")
seed("labels", "faults", "\ufeff0\t0.5,0.5 nan\r\n1.0 -0.005 0 1.004 1 0.5 inf\n0 0.5 0.5 0.1 0.1\n")
DATA = "# images\npath: .\ntrain: images/train\nval: [images/val]\ntest:\nnc: 3\nnames:\n  0: cat\n  1: 'dog'\n  2: \"a: b\"\nchannels: 3\n"
for name in ("rows", "faults"):
    seed("lint", name, (OUT / "labels" / name).read_bytes())
seed("lint", "mixed", "0 0.1 0.1 0.9 0.1 0.9 0.3333333\n1 0.5 0.5 0.2 0.2\n2 -0 1.001 1e-7 .5 +0.25 0.75\n1 x\n0 0.1 0.1 0.9 0.1 0.9 0.3333333\n")
for name, text in {"plain": "https://example.org/a/set.zip?x=1#y", "secret": "http://me:word@example.org:8080/my%20set.zip", "file": "file:///tmp/set.zip",
                   "six": "https://[::1]/a%2Fb.zip", "name": "https://b\u00fccher.example/\u00fc.zip"}.items():
    seed("url", name, text)
seed("data_yaml", "script.yaml", DATA + "download: |\n  import os\n")
seed("data_yaml", "list.yaml", DATA + "download:\n  - https://example.org/a.zip\n  - {url: https://example.org/b.zip, to: b, sha256: " + 64 * "0" + "}\n")
seed("data_yaml", "names.yaml", "train: a.txt\nval: b.txt\nnames: [cat, dog]\ndownload: https://example.org/a.zip\nsha256: " + 64 * "a" + "\n")
seed("data_yaml", "images.txt", "./a.jpg\n/b/c.png\n  d.BMP \r\nnothing\n")
seed("args_yaml", "ours.yaml", "# arguments\nepochs: 5\nlr0: 0.01\nmosaic: 0.5\ncos_lr: true\noptimizer: SGD\ndata: 'a b.yaml'\nresume:\nclasses: \"0,2\"\n")
seed("args_yaml", "theirs.yaml", "task: segment\nmode: train\nmodel: yolov8n-seg.pt\nepochs: 3\nbatch: 16\nfreeze: [0, 1]\nclasses: [0, 2]\namp: true\ndevice: '0,1'\n"
     "hide_labels: false\nimgsz: 640\nworkspace: null\ncopy_paste_mode: flip\n")
MODEL = """nc: 2
scales:
  n: [0.33, 0.0625, 256]
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 3, C2f, [128, True]]
  - [-1, 1, SPPF, [128, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 0], 1, Concat, [1]]
  - [[2, 3, 5], 1, Segment, [nc, 32, 256]]
"""
seed("model_yaml", "small.yaml", MODEL)
narrow = (pathlib.Path(__file__).resolve().parents[1] / "support" / "narrow_model.h").read_text()
seed("model_yaml", "narrow.yaml", narrow.split('R"(')[1].split(')"')[0])

# a run folder
HEADER = "epoch,time,train/box_loss\n"
seed("resume", "csv", b"\0" + (HEADER + ",".join(str(i) for i in range(1, 22)) + "\n2," + ",".join(["1e-3"] * 20) + "\n").encode())
seed("resume", "log", b'\1{"event":"step","epoch":1,"batch":2}\n{"event":"epoch","epoch":3}\n')
seed("resume", "meta", b"\2" + json.dumps({
    "format": 1, "task": "segment", "scale": "n", "model_yaml": "", "nc": 2, "class_names": ["cat", "dog"], "epoch": 3, "step": 40, "best_fitness": 0.5,
    "best_epoch": 2, "args": {"epochs": "9", "data": "a.yaml", "(explicit)": " epochs data "}, "counters": {"progress.batch": 3, "best.kept": 2},
    "numbers": {"progress.seconds": 1e300, "x": "inf"}}).encode())

# models: bytes of tests/fuzz/weights.cpp, then metadata
description = {"format": 1, "task": "segment", "scale": "", "model_yaml": "", "nc": 2, "class_names": ["cat", "dog"], "epoch": 3, "step": 40, "best_fitness": 0.5,
               "best_epoch": 2, "args": {}, "counters": {}, "numbers": {}}
NETWORK = (pathlib.Path(__file__).parent / "weights.cpp").read_text().split('R"(')[1].split(')"')[0]
own = json.dumps(description | {"scale": "n", "model_yaml": NETWORK})
for name, head, meta in (("whole", b"\0\x80", own), ("classes", b"\6\x80", own), ("into", b"\x0a\0", own), ("bare", b"\1\0", ""), ("scale", b"\1\0", json.dumps(description | {"scale": "n"})),
                         ("changed", b"\0\3" + bytes([5, 0, 1, 0, 9, 0, 3, 1, 30, 0, 4, 1]), own), ("nothing", b"\0\0", "")):
    seed("weights", name, head + meta.encode())

# the disk cache: an entry of 15 x 24 pixels of an image of 3 x 5, changes of a good one, and what others do to the folder
seed("cache_entry", "fits", b"\1" + struct.pack("<4i", 15, 24, 3, 5) + bytes(15 * 24 * 3))
seed("cache_entry", "does_not_fit", b"\1" + struct.pack("<4i", 24, 24, 3, 5) + bytes(24 * 24 * 3))
seed("cache_entry", "changed", b"\2" + bytes([48, 0, 1, 90, 0, 128]))
seed("cache_entry", "whole", b"\0TSRPIC\r\n" + bytes(100))
seed("disk_cache", "used", bytes([10, 26, 42, 10, 26, 42, 1, 10, 26, 42]))
seed("disk_cache", "spoiled", bytes([10, 2, 4, 1, 2, 3, 4, 26, 5 + 16 * 3, 80, 0, 1, 26, 10, 42, 6, 10, 7 + 48, 26]))
seed("disk_cache", "counted", bytes([10, 3, 8]) + b"\xff" * 7 + b"\x7f" + bytes([26, 0, 0, 0, 1, 0, 0, 0, 0, 0, 42, 4 + 32]) + b"\xff" * 8 + bytes([1, 8, 10, 26]))

# archives
content = io.BytesIO()
with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("set/images/a.jpg", b"x" * 40)
    archive.writestr("set/labels/a.txt", b"0 1")
seed("unpack", "set.zip", content.getvalue())
for kind in ("", "gz", "xz", "bz2"):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:" + kind) as archive:
        for name, link, what in (("set/a.txt", "", tarfile.REGTYPE), ("set/b.txt", "a.txt", tarfile.SYMTYPE), ("set/c.txt", "set/a.txt", tarfile.LNKTYPE),
                                 ("set/d", "", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = what, link, 5 if what == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"hello"))
    seed("unpack", "set.tar." + kind, content.getvalue())
seed("unpack", "note", json.dumps({"url": "https://example.org/a.zip", "validator": "\"1\"", "total": 20, "synced": 7}))
