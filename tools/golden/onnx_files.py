"""onnx.safetensors and onnx/*.onnx: what ONNX Runtime computes from files of this program, and files as the original exports them.

The network is the narrow one of tests/support/narrow_model.h with formula weights. TESSERA names the program. "static.output0",
"static.output1": ONNX Runtime's outputs of our file for the formula image 1 x 3 x 64 x 64; "dynamic.*": of our dynamic file for
2 x 3 x 64 x 96; "half.*": of our fp16 file, static. onnx/*.onnx are exports of the original (8.3.159) of the same network by the two
exporters that PyTorch has ("traced": torch.jit, "program": torch.export), static and dynamic, whose outputs ONNX Runtime finds within
1e-5 of ours here. Their weights are left out: an entry of the state lies in the file "<name>.bin" beside, which the test writes.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
import torch
import ultralytics.engine.exporter  # noqa: F401  before the patch below
from common import formula_image, output_folder, save_tensors, set_formula_weights
from ultralytics import YOLO

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("TESSERA", str(ROOT / "build/release/bin/tessera"))
torch_export = torch.onnx.export
traced = True


def exported(*args, **options):
    return torch_export(*args, **{**options, "dynamo": not traced})


def narrow_yaml(folder):
    text = (ROOT / "tests/support/narrow_model.h").read_text()
    path = folder / "narrow.yaml"
    path.write_text(re.search(r'R"\((.*?)\)"', text, re.S).group(1))
    return path


def run(path, image):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    half = "float16" in session.get_inputs()[0].type
    return session.run(None, {"images": image.astype(np.float16) if half else image})


def stripped(source, target):
    """Without weights, comments and shapes between."""
    model = onnx.load(source)
    del model.graph.value_info[:]
    model.doc_string = model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    kept = []
    for t in model.graph.initializer:
        t.doc_string = ""
        if re.fullmatch(r"model\.\d+\..*\.(weight|bias)", t.name) and ".dfl." not in t.name:
            t.ClearField("raw_data")
            t.ClearField("float_data")
            t.data_location = onnx.TensorProto.EXTERNAL
            del t.external_data[:]
            t.external_data.add(key="location", value=t.name + ".bin")
        else:
            kept.append((t.name, list(t.dims)))
    read = [p for p in model.metadata_props if p.key in ("stride", "task", "batch", "imgsz", "names", "args")]
    del model.metadata_props[:]
    model.metadata_props.extend(read)
    target.write_bytes(model.SerializeToString())
    print(target.name, target.stat().st_size, "bytes; kept", sum(int(np.prod(d)) for _, d in kept), "numbers")


def main():
    global traced
    out = output_folder(sys.argv)
    (out / "onnx").mkdir(exist_ok=True)
    torch.onnx.export = exported
    still, moving = formula_image(1, 64, 64).numpy(), formula_image(2, 64, 96).numpy()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        network = YOLO(narrow_yaml(folder))
        set_formula_weights(network.model)
        weights = folder / "narrow.pt"
        torch.save({"epoch": -1, "model": network.model, "ema": None, "train_args": {}}, weights)  # save() would round to fp16
        results = {}
        for kind, image, options in (
            ("static", still, ["--imgsz", "64"]),
            ("half", still, ["--imgsz", "64", "--half"]),
            ("dynamic", moving, ["--imgsz", "64,96", "--dynamic"]),
        ):
            file = folder / f"{kind}.onnx"
            subprocess.run([PROGRAM, "export", "--model", weights, "--output", file, *options], check=True)
            onnx.checker.check_model(str(file), full_check=True)
            for i, y in enumerate(run(file, image)):
                results[f"{kind}.output{i}"] = y.astype(np.float32)
        save_tensors(out / "onnx.safetensors", results)
        os.chdir(folder)
        for exporter, opset in (("traced", 17), ("program", 20)):
            traced = exporter == "traced"
            for kind, image, options in (
                ("static", still, {"imgsz": 64, "simplify": not traced}),
                ("dynamic", moving, {"imgsz": [64, 96], "dynamic": True, "simplify": traced}),
            ):
                model = YOLO(narrow_yaml(folder))
                set_formula_weights(model.model)
                path = model.export(format="onnx", opset=opset, **options)
                for i, y in enumerate(run(path, image)):
                    ours = results[f"{kind}.output{i}"]
                    assert abs(y - ours).max() <= 1e-5 * max(1, abs(ours).max()), (exporter, kind, i, abs(y - ours).max())
                stripped(path, out / "onnx" / f"{exporter}_{kind}.onnx")


main()
