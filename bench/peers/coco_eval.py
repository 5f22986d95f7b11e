#!/usr/bin/env python3
"""The twelve figures of masks, from files, timed: coco_eval.py pycocotools|faster-coco-eval FOLDER

FOLDER holds instances.json and results.json. One JSON line; seconds include reading.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

peer, folder = sys.argv[1], Path(sys.argv[2])
if peer == "pycocotools":
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval as Eval
else:
    from faster_coco_eval import COCO
    from faster_coco_eval import COCOeval_faster as Eval

wall, cpu = time.perf_counter(), time.process_time()
with contextlib.redirect_stdout(io.StringIO()):
    truth = COCO(str(folder / "instances.json"))
    evaluation = Eval(truth, truth.loadRes(str(folder / "results.json")), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
print(json.dumps({"peer": peer, "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu,
                  "stats": [float(x) for x in evaluation.stats[:12]]}))  # fmt: skip
