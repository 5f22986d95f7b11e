"""checkpoint/*.pt, checkpoint/*.safetensors, checkpoint/index.json: small checkpoints as the original and PyTorch write them, and
hostile ones.

stripped.pt: a checkpoint as training leaves it (spec 1.8): `model` is a SegmentationModel object with a short stack of the
original's Conv, C2f and SPPF modules and a plain Conv2d with bias, fp16; `optimizer`, `ema` None, `epoch` -1. running.pt: as
written during training: `model` None, `ema` the fp16 module, `optimizer` a state dict with fp16 moments, `epoch` 3. fp32.pt:
stripped, but in fp32. state_dict.pt: a bare dictionary of tensors of all types, with a scalar, an empty tensor, a non-contiguous
view and two tensors in one storage. The tensors of each are beside it as .safetensors. legacy.pt: PyTorch's old, non-zip format.
bad_*.pt: broken or malicious files; a reader must refuse each with an error, create no file named tessera_was_here, and not take
more than a moment or a few megabytes. index.json says what each one is.
"""

import io
import pickle
import struct
import sys
import zipfile

import torch
from torch import nn

from common import formula, output_folder, save_json, save_tensors, set_formula_weights


def small_model():
    """A SegmentationModel object with few parameters (the real network starts at 3.2 million)."""
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.modules import C2f, Conv, SPPF
    from ultralytics.nn.tasks import SegmentationModel

    model = SegmentationModel.__new__(SegmentationModel)
    nn.Module.__init__(model)
    model.model = nn.Sequential(Conv(3, 4, 3, 2), C2f(4, 8, 1, True), SPPF(8, 8), nn.Conv2d(8, 5, 1))
    for index, layer in enumerate(model.model):
        layer.i, layer.f, layer.type = index, -1, type(layer).__name__
    model.yaml = {"nc": 2, "scales": {"n": [0.33, 0.25, 1024]}, "scale": "n", "yaml_file": "yolov8n-seg.yaml", "ch": 3}
    model.names, model.nc, model.task = {0: "kitten", 1: "pup"}, 2, "segment"
    model.save, model.stride, model.args = [1, 2], torch.tensor([8.0, 16.0, 32.0]), dict(get_cfg())
    model.args = {k: model.args[k] for k in ("imgsz", "task", "single_cls")}
    return set_formula_weights(model)


def checkpoint(**changes):
    return {
        "epoch": -1,
        "best_fitness": None,
        "model": None,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": {"imgsz": 160, "task": "segment", "lr0": 0.01, "data": "pets.yaml"},
        "train_metrics": {"metrics/mAP50(B)": 0.25, "fitness": 0.125},
        "train_results": {"epoch": [1, 2], "train/box_loss": [1.5, 1.25]},
        "date": "2025-06-01T00:00:00",
        "version": "8.3.159",
        "license": "AGPL-3.0 License",
        "docs": "x",
        **changes,
    }


def good_files(folder, notes):
    def keep(name, state, note):
        save_tensors(folder / f"{name}.safetensors", state)
        notes[f"{name}.pt"] = {"ok": True, "what": note}

    half = small_model().half()
    torch.save(checkpoint(model=half), folder / "stripped.pt")
    keep("stripped", half.state_dict(), "stripped checkpoint, fp16 module object in 'model', names kitten and pup")
    model = small_model()
    optimizer = torch.optim.SGD(
        [
            {"params": [p for n, p in model.named_parameters() if "bias" in n]},
            {"params": [p for n, p in model.named_parameters() if "bias" not in n], "weight_decay": 0.0005},
        ],
        lr=0.01,
        momentum=0.9,
        nesterov=True,
    )
    for name, p in model.named_parameters():
        p.grad = formula("grad." + name, tuple(p.shape))
    optimizer.step()
    state = optimizer.state_dict()
    for entry in state["state"].values():
        entry["momentum_buffer"] = entry["momentum_buffer"].half()
    torch.save(checkpoint(ema=half, optimizer=state, epoch=3, updates=17, best_fitness=0.125), folder / "running.pt")
    keep(
        "running",
        half.state_dict(),
        "running checkpoint: 'model' None, module in 'ema', optimizer state with fp16 moments, epoch 3, updates 17",
    )
    single = small_model()
    torch.save(checkpoint(model=single), folder / "fp32.pt")
    keep("fp32", single.state_dict(), "stripped checkpoint in fp32")
    base = formula("base", (6, 4))
    tensors = {
        "f32": formula("f32", (3, 2)),
        "f16": formula("f16", (5,)).half(),
        "bf16": formula("bf16", (4,)).bfloat16(),
        "f64": torch.tensor([1.5, 2.0**-40 + 1], dtype=torch.float64),
        "i64": torch.tensor([2**40, -3]),
        "i32": torch.tensor([[7, -8]], dtype=torch.int32),
        "u8": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(42),
        "empty": torch.zeros(0, 3),
        "rows": base[2:4],
        "transposed": base.t(),
        "every_second": base[::2, 1::2],
    }
    torch.save(tensors, folder / "state_dict.pt")
    from safetensors.torch import save_file

    save_file({k: v.contiguous().clone() for k, v in sorted(tensors.items())}, folder / "state_dict.safetensors")
    notes["state_dict.pt"] = {"ok": True, "what": "bare dictionary of tensors of all types, views and shared storage"}
    torch.save({"w": torch.ones(2)}, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    notes["legacy.pt"] = {"ok": False, "what": "PyTorch's old format: not a zip archive"}


def archive(path, pickled, storages=None, extra=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z:
        if pickled is not None:
            z.writestr(zipfile.ZipInfo("a/data.pkl"), pickled)
        for key, data in (storages or {}).items():
            z.writestr(zipfile.ZipInfo(f"a/data/{key}"), data)
        z.writestr(zipfile.ZipInfo("a/version"), "3\n")
        for name, data in (extra or {}).items():
            z.writestr(zipfile.ZipInfo(name), data)


def tensor_pickle(size=(2, 3), stride=(3, 1), offset=0, count=6, kind="FloatStorage", key="0"):
    """Pickle of {"w": tensor} in the form torch.save writes, with free numbers."""

    def text(s):
        return b"X" + struct.pack("<I", len(s)) + s.encode()

    def integer(v):
        return b"\x8a\x08" + struct.pack("<q", v)

    def row(values):
        return b"(" + b"".join(integer(v) for v in values) + b"t"

    out = b"\x80\x02}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n"
    out += b"((" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + integer(count) + b"tQ"
    return out + integer(offset) + row(size) + row(stride) + b"\x89ccollections\nOrderedDict\n)RtRs."


def bad_files(folder, notes):
    command = "touch tessera_was_here"
    floats = {"0": struct.pack("<6f", *range(6))}

    def bad(name, what, pickled, storages=None, extra=None):
        archive(folder / f"bad_{name}.pt", pickled, storages, extra)
        notes[f"bad_{name}.pt"] = {"ok": False, "what": what}

    def call(module, function, argument):
        return b"\x80\x02c" + module + b"\n" + function + b"\n(X" + struct.pack("<I", len(argument)) + argument.encode() + b"tR."

    archive(folder / "plain.pt", tensor_pickle(), floats)
    notes["plain.pt"] = {"ok": True, "what": "the hand-made frame of the bad files with nothing wrong: w = 2 x 3, 0 to 5"}
    bad("system", "REDUCE of os.system", call(b"os", b"system", command))
    bad("posix", "REDUCE of posix.system", call(b"posix", b"system", command))
    bad("eval", "REDUCE of builtins.eval", call(b"builtins", b"eval", f"__import__('os').system('{command}')"))
    bad(
        "inst",
        "INST opcode calling os.system",
        b"\x80\x02(X" + struct.pack("<I", len(command)) + command.encode() + b"ios\nsystem\n.",
    )
    bad(
        "obj",
        "OBJ opcode calling os.system",
        b"\x80\x02(cos\nsystem\nX" + struct.pack("<I", len(command)) + command.encode() + b"o.",
    )
    bad(
        "stack_global",
        "STACK_GLOBAL subprocess.getoutput",
        b"\x80\x04\x8c\x0asubprocess\x8c\x09getoutput\x93\x8c" + bytes([len(command)]) + command.encode() + b"\x85R.",
    )
    bad(
        "nested",
        "os.system hidden as a value beside a good tensor",
        tensor_pickle()[:-2]
        + b"X\x01\x00\x00\x00vcos\nsystem\n(X"
        + struct.pack("<I", len(command))
        + command.encode()
        + b"tRs"
        + b"s.",
        floats,
    )
    bad("setstate", "BUILD with a state that names a function", b"\x80\x02cos\nsystem\n)\x81}X\x01\x00\x00\x00ccposix\nsystem\nsb.")
    bad("no_pickle", "archive without data.pkl", None, floats)
    bad("no_storage", "tensor whose storage record is missing", tensor_pickle(key="9"), floats)
    bad("short_storage", "storage record shorter than the tensor", tensor_pickle(), {"0": b"\0" * 8})
    bad("huge_size", "sizes whose product overflows", tensor_pickle(size=(2**40, 2**40), stride=(2**40, 1)), floats)
    bad("large_size", "tensor of 1 TiB over 24 bytes with stride 0", tensor_pickle(size=(2**38,), stride=(0,)), floats)
    bad("negative_size", "negative size", tensor_pickle(size=(-2, 3)), floats)
    bad("negative_offset", "negative storage offset", tensor_pickle(offset=-4), floats)
    bad("far_offset", "storage offset beyond the end", tensor_pickle(offset=2**40), floats)
    bad("far_stride", "stride that leaves the storage", tensor_pickle(stride=(2**62, 1)), floats)
    bad("negative_stride", "negative stride", tensor_pickle(stride=(-3, 1)), floats)
    bad("rank_mismatch", "two sizes, one stride", tensor_pickle(stride=(1,)), floats)
    bad("storage_kind", "unknown storage type", tensor_pickle(kind="PaperStorage"), floats)
    bad("path_key", "storage key that climbs out of the archive", tensor_pickle(key="../../../etc/passwd"), floats)
    bad("no_stop", "pickle without STOP", tensor_pickle()[:-1], floats)
    bad("cut_pickle", "pickle cut in an argument", tensor_pickle()[:37], floats)
    bad("underflow", "REDUCE on an empty stack", b"\x80\x02R.")
    bad("mark", "TUPLE without MARK", b"\x80\x02t.")
    bad("memo", "BINGET of an unset memo entry", b"\x80\x02h\x07.")
    bad("memo_far", "LONG_BINPUT with index 2^32-1", b"\x80\x02}r\xff\xff\xff\xff.")
    bad("opcode", "opcode that does not exist", b"\x80\x02\xfe.")
    bad("protocol", "protocol 200", b"\x80\xc8}.")
    bad("long_string", "BINUNICODE announcing 4 GiB", b"\x80\x02X\xff\xff\xff\xffabc.")
    bad("long8_string", "BINUNICODE8 announcing 2^63", b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"abc.")
    bad("long_integer", "LONG4 announcing -1 bytes", b"\x80\x02\x8b\xff\xff\xff\xff.")
    bad("depth", "30000 nested lists", b"\x80\x02" + b"(" * 30000 + b"l" * 30000 + b".")
    bad("not_a_model", "a pickled string", pickle.dumps("hello", protocol=2))
    bad("cycle", "a list that contains itself", b"\x80\x02]q\x00h\x00a.")
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(300.0)}, buffer)
    whole = buffer.getvalue()
    flip = whole.find(struct.pack("<2f", 150.0, 151.0))
    for name, data, what in (
        ("truncated", whole[: len(whole) * 6 // 10], "good file cut at 60 %"),
        ("truncated_tail", whole[:-10], "good file without its last ten bytes"),
        ("empty", b"", "no bytes"),
        ("text", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 6\n", "a text file"),
        (
            "bit_flip",
            whole[:flip] + bytes([whole[flip] ^ 0x10]) + whole[flip + 1 :],
            "good file with one bit changed: checksum mismatch",
        ),
    ):
        (folder / f"bad_{name}.pt").write_bytes(data)
        notes[f"bad_{name}.pt"] = {"ok": False, "what": what}


if __name__ == "__main__":
    folder = output_folder(sys.argv) / "checkpoint"
    folder.mkdir(parents=True, exist_ok=True)
    notes = {}
    good_files(folder, notes)
    bad_files(folder, notes)
    save_json(folder / "index.json", notes)
