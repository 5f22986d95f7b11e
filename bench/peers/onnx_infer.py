#!/usr/bin/env python3
"""Network-only inference of an ONNX file: onnx_infer.py onnxruntime|openvino-f32|openvino-bf16 MODEL.onnx [RUNS [THREADS]]

Batch and image size are those of the file. Prints one JSON line.
"""

import pathlib
import sys
import time

import numpy as np
from report import report

engine, path = sys.argv[1], sys.argv[2]
runs = int(sys.argv[3]) if len(sys.argv) > 3 else 20
threads = int(sys.argv[4]) if len(sys.argv) > 4 else 2
if engine == "onnxruntime":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    shape = source.shape
    image = np.random.default_rng(0).random(shape, dtype=np.float32)

    def run():
        session.run(None, {source.name: image})

else:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(path),
        "CPU",
        {"INFERENCE_PRECISION_HINT": engine.split("-")[1], "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"},
    )
    shape = list(compiled.input(0).shape)
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    request = compiled.create_infer_request()

    def run():
        request.infer({0: image})


run()
run()
times = []
for _ in range(runs):
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
report("infer", engine, times, shape[0], model=pathlib.Path(path).name, batch=int(shape[0]), imgsz=int(shape[3]), threads=threads)
