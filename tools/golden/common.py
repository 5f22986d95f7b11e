"""Shared parts of the golden scripts: formula numbers, layout changes, and writers of fixtures.

The original (ultralytics) is only called through its public classes and functions: a black box whose outputs are recorded.
Formula numbers need no stored weights: the value of entry i of a tensor named s comes from splitmix64(FNV-1a(s) + i), see
`fraction`.
"""

import json
import math
import os
import pathlib

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")

import numpy as np
import torch
from safetensors.numpy import save_file

torch.set_num_threads(1)  # sums in one fixed order
torch.manual_seed(0)

MASK64 = (1 << 64) - 1


def fnv1a(text):
    """FNV-1a, 64 bits, of the bytes of `text`."""
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK64
    return h


def fraction(name, count, start=0):
    """`count` doubles in [0, 1): entry i is (splitmix64(fnv1a(name) + start + i) >> 11) * 2^-53."""
    with np.errstate(over="ignore"):
        x = np.uint64(fnv1a(name)) + np.arange(start, start + count, dtype=np.uint64)
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def formula(name, shape, low=-1.0, high=1.0):
    """Float32 tensor of `shape` with values low + (high - low) * fraction, row-major."""
    values = low + (high - low) * fraction(name, int(np.prod(shape)))
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def sines(k, shape, factor=1.0):
    """Float32 tensor: entry i is factor * float32(sin(k * i)), the sine in double (factor applied in float32)."""
    values = np.sin(k * np.arange(int(np.prod(shape)), dtype=np.float64)).astype(np.float32).reshape(shape)
    return torch.from_numpy(values) * factor


def formula_value(name, shape):
    """Float32 array for the state-dict entry `name`; None where the entry keeps what the model has (DFL bins)."""
    u = fraction(name, int(np.prod(shape))).reshape(shape) * 2 - 1
    if name.endswith("dfl.conv.weight"):
        return None
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("bn.weight"):
        value = 1 + 0.1 * u
    elif name.endswith("bn.bias") or name.endswith("running_mean"):
        value = 0.1 * u
    elif name.endswith("running_var"):
        value = 1 + 0.2 * u
    elif len(shape) == 4:
        fan_in = shape[0] if name.endswith("upsample.weight") else shape[1] * shape[2] * shape[3]
        value = u * math.sqrt(9 / fan_in)
    elif ".cv3." in name and name.endswith(".2.bias"):
        value = -2 + 0.5 * u
    else:
        value = 0.1 * u
    return value.astype(np.float32)


def set_formula_weights(model):
    """Overwrites every state entry of `model` (a SegmentationModel) with its formula value."""
    state = model.state_dict()
    for name, tensor in state.items():
        value = formula_value(name, tuple(tensor.shape))
        if value is not None:
            tensor.copy_(torch.from_numpy(value).reshape(tensor.shape))
    return model


def segmentation_model(scale, nc):
    """The original's untrained model with formula weights, arguments at their defaults."""
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import SegmentationModel

    model = SegmentationModel(f"yolov8{scale}-seg.yaml", ch=3, nc=nc, verbose=False)
    model.args = get_cfg()
    return set_formula_weights(model)


def formula_image(n, h, w):
    """The formula input image, n x 3 x h x w in [0, 1)."""
    return formula("image", (n, 3, h, w), 0.0, 1.0)


def nhwc(t):
    """Image tensor (N,C,H,W) to channels last (N,H,W,C); also filters (O,I,kH,kW) to (O,kH,kW,I)."""
    return t.permute(0, 2, 3, 1)


def to_numpy(value):
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.dtype == torch.float64:
            value = value.float()
        value = value.contiguous().numpy()
    return np.ascontiguousarray(value)


def save_tensors(path, tensors, **metadata):
    """Safetensors file with sorted entries; double becomes float32 unless it is a NumPy array already."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: to_numpy(tensors[name]) for name in sorted(tensors)}
    save_file(arrays, path, metadata={key: str(value) for key, value in sorted(metadata.items())} or None)
    print(f"{path.name}: {len(arrays)} entries, {path.stat().st_size} bytes")


def plain(value, digits):
    """`value` with NumPy and PyTorch numbers as Python ones, floats rounded to `digits` significant digits (None: all)."""
    if isinstance(value, dict):
        return {str(k): plain(v, digits) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, digits) for v in value]
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return plain(value.tolist(), digits)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and digits is not None:
        value = float(f"{value:.{digits}g}")
        return int(value) if value.is_integer() and abs(value) < 1e15 else value
    return value


def save_json(path, data, digits=9):
    """One-line-per-top-level-entry JSON."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = plain(data, digits)

    def block(items, opening, closing):
        return opening + "\n" + ",\n".join(items) + "\n" + closing + "\n"

    def compact(v):
        return json.dumps(v, separators=(",", ":"))

    if isinstance(data, dict):
        parts = []
        for k, v in data.items():
            text = compact(v)
            if isinstance(v, list) and len(text) > 200:
                text = "[\n" + ",\n".join(compact(e) for e in v) + "]"
            elif isinstance(v, dict) and len(text) > 200:
                text = "{\n" + ",\n".join(json.dumps(a) + ":" + compact(b) for a, b in v.items()) + "}"
            parts.append(json.dumps(k) + ":" + text)
        text = block(parts, "{", "}")
    else:
        text = block([compact(v) for v in data], "[", "]")
    path.write_text(text)
    print(f"{path.name}: {path.stat().st_size} bytes")


def output_folder(argv):
    """First argument, or tests/golden of this repository."""
    if len(argv) > 1:
        return pathlib.Path(argv[1])
    return pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
