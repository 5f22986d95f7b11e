"""Writes tests/golden/pt: small PyTorch files of every form that the reader must take or refuse, with the expected tensors beside them.

Modules carry the class names of the original's checkpoints but are stand-ins defined here: only names and attributes reach the file.
usage: python tools/golden/pt_fixtures.py
"""

import collections
import os
import pathlib
import pickle
import sys
import types

import numpy as np
import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "pt"


def stand_in(path, base=torch.nn.Module):
    """A class that pickles under the dotted name `path`."""
    module_name, name = path.rsplit(".", 1)
    parts = module_name.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    made = type(name, (base,), {"__module__": module_name})
    setattr(sys.modules[module_name], name, made)
    return made


Model = stand_in("ultralytics.nn.tasks.SegmentationModel")
Conv = stand_in("ultralytics.nn.modules.conv.Conv")
Segment = stand_in("ultralytics.nn.modules.head.Segment")
Args = stand_in("ultralytics.utils.IterableSimpleNamespace", object)


def conv(cin, cout, k):
    block = Conv()
    block.conv = torch.nn.Conv2d(cin, cout, k, bias=False)
    block.bn = torch.nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03)
    block.act = torch.nn.SiLU()
    return block


def model():
    torch.manual_seed(3)
    head = Segment()
    head.nc = 2
    head.stride = torch.tensor([8.0, 16.0, 32.0])
    head.cv2 = torch.nn.ModuleList([torch.nn.Sequential(conv(4, 4, 3), torch.nn.Conv2d(4, 3, 1))])
    head.upsample = torch.nn.ConvTranspose2d(4, 3, 2, 2)
    head.register_buffer("scratch", torch.zeros(3), persistent=False)
    head.register_parameter("absent", None)
    made = Model()
    made.yaml = {"nc": 2, "scale": "n", "scales": {"n": [0.33, 0.25, 1024]}, "backbone": [[-1, 1, "Conv", [64, 3, 2]]], "ch": 3}
    made.names = {0: "cat", 1: "dög"}
    made.stride = torch.tensor([8.0, 16.0, 32.0])
    made.nc = 2
    made.args = Args()
    made.args.imgsz = 640
    made.criterion = None
    made.model = torch.nn.Sequential(conv(3, 4, 3), head)
    made.save = [0]
    for p in made.parameters():
        torch.nn.init.normal_(p)
    return made


def plain(state):
    return {k: v.detach().clone().contiguous() for k, v in state.items()}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    net = model()
    half = model().half()
    save_file(plain(half.state_dict()), OUT / "checkpoint.safetensors", {"format": "pt", "made": "pt_fixtures.py"})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    checkpoint = {
        "epoch": 2, "best_fitness": np.float64(0.375), "model": None, "ema": half, "updates": 12, "optimizer": optimizer.state_dict(),
        "train_args": {"task": "segment", "data": "coco8-seg.yaml", "epochs": 3, "lr0": 0.01, "cos_lr": False, "time": None, "freeze": [0, 1]},
        "train_metrics": {"fitness": np.float64(0.375)}, "train_results": {"epoch": [1, 2]}, "date": "2025-01-01T00:00:00", "version": "8.3.159",
    }
    torch.save(checkpoint, OUT / "checkpoint.pt")

    # As after the final strip; protocol 4, one filter stored channels-last, a bound method in the way a fused module has one.
    net.model[0].conv.weight = torch.nn.Parameter(net.model[0].conv.weight.detach().contiguous(memory_format=torch.channels_last))
    net.model[0].forward = net.model[0].extra_repr
    torch.save({"epoch": -1, "best_fitness": None, "model": net, "ema": None, "updates": None, "optimizer": None}, OUT / "stripped.pt", pickle_protocol=4)
    save_file(plain(net.state_dict()), OUT / "stripped.safetensors")

    base = torch.arange(12, dtype=torch.float32)
    state = collections.OrderedDict(
        f64=torch.tensor([0.1, -2.5], dtype=torch.float64), f32=torch.tensor([[1.5, -0.25, 3e8]]), f16=torch.tensor([1.5, -0.25], dtype=torch.float16),
        bf16=torch.tensor([1.5, 256.0], dtype=torch.bfloat16), i64=torch.tensor([2**40, -1]), i32=torch.tensor([7, -8], dtype=torch.int32),
        u8=torch.tensor([0, 255], dtype=torch.uint8), bool=torch.tensor([True, False]), scalar=torch.tensor(5.0), empty=torch.zeros(2, 0),
        slice=base[4:8], transposed=base.reshape(3, 4).t(), every_third=base[::3])
    torch.save(state, OUT / "state_dict.pt")
    save_file(plain(state), OUT / "state_dict.safetensors")

    torch.save({"weight": base}, OUT / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(OUT / "script.pt"))

    class Attack:
        def __reduce__(self):
            return os.system, ("touch attacked",)

    torch.save({"weight": base, "model": Attack()}, OUT / "code.pt")
    torch.save({"weight": torch.zeros(2, dtype=torch.complex64)}, OUT / "complex.pt")


if __name__ == "__main__":
    main()
