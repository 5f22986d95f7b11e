"""Compares Tessera's detections of real images with the original's, image by image.

    compare_real.py ORIGINAL_JSON TESSERA_JSON

ORIGINAL_JSON is what real_run.py recorded ("predict": file -> rows [x1, y1, x2, y2, score, class, mask pixels]); TESSERA_JSON is the output of
`predict_seg --model THE.pt --source FOLDER --imgsz SIZE --json`. Prints the number of images with the same number of detections and classes
in the same order, and the largest differences of box (pixels), score and mask area (pixels). Only the standard library is needed.
"""
import json
import pathlib
import sys


def area(rle):
    """Set pixels of a compressed COCO mask."""
    counts, text, p = [], rle["counts"], 0
    while p < len(text):
        x, k, more = 0, 0, True
        while more:
            c = ord(text[p]) - 48
            x |= (c & 31) << 5 * k
            more = bool(c & 32)
            p, k = p + 1, k + 1
            if not more and c & 16:
                x |= -1 << 5 * k
        counts.append(x + counts[-2] if len(counts) > 2 else x)
    return sum(counts[1::2])


original = json.load(open(sys.argv[1]))["predict"]
ours = {pathlib.Path(r["image"]).name: r["detections"] for r in json.load(open(sys.argv[2]))["results"]}
same, detections, box, score, mask = 0, 0, 0.0, 0.0, 0
for name, rows in original.items():
    mine = ours[name]
    equal = len(rows) == len(mine) and all(int(r[5]) == d["class"] for r, d in zip(rows, mine))
    same += equal
    if not equal:
        print(name, "original", [(int(r[5]), round(r[4], 4)) for r in rows], "Tessera", [(d["class"], round(d["confidence"], 4)) for d in mine])
        continue
    for r, d in zip(rows, mine):
        detections += 1
        box = max(box, max(abs(a - b) for a, b in zip(r[:4], d["box"])))
        score = max(score, abs(r[4] - d["confidence"]))
        mask = max(mask, abs(int(r[6]) - area(d["rle"])))
print(f"{same} of {len(original)} images with the same detections; {detections} detections; largest difference: "
      f"box {box:.2g} px, score {score:.2g}, mask area {mask} px")
