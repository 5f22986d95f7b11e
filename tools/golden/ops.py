"""ops.safetensors, ops.json: PyTorch forward results and gradients of every differentiable operation.

Inputs are formula numbers (common.formula) and are stored. Everything is computed by PyTorch in float64 from the stored float32
inputs and rounded to float32 once, so that a float32 implementation is compared with the true value. Gradients are those of
sum(y * dy) with the stored dy; scalar losses have dy = 1. Images are stored N,H,W,C and filters O,kH,kW,I. The transposed
convolution's weight is stored twice: "w" as (O,2,2,I), "w_iohw" in PyTorch order. CIoU, DFL and the mask term (where PyTorch has no
operator) come from the original's bbox_iou and DFLoss, called as black boxes with the gradients of autograd.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F

from common import formula, nhwc, output_folder, save_json, save_tensors

tensors = {}
cases = {}


def leaf(name, shape, low=-1.0, high=1.0):
    return formula(name, shape, low, high).double().requires_grad_()


def is_image(t):
    return t.dim() == 4


def record(case, op, params, inputs, y, scalar=False, layout=None):
    """Runs backward and stores inputs, y, dy and d<input>."""
    layout = layout or {}
    outputs = {"y": y}
    if not scalar:
        dy = formula(case + ".dy", tuple(y.shape)).double()
        outputs["dy"] = dy
        y.backward(dy)
    else:
        y.backward()
    entries = {}
    for key, t in {**inputs, **outputs}.items():
        change = layout.get(key, nhwc if is_image(t) else (lambda v: v))
        entries[key] = change(t)
        if key in inputs and t.requires_grad:
            entries["d" + key] = change(t.grad)
    for key, t in entries.items():
        t = t.detach()
        tensors[f"{case}.{key}"] = t.float() if t.dtype == torch.float64 else t
    cases[case] = {"op": op, **params, "tensors": sorted(entries)}


def conv(case, n, h, w, i, o, k, stride, pad, bias):
    x = leaf(case + ".x", (n, i, h, w))
    weight = leaf(case + ".w", (o, i, k, k))
    inputs = {"x": x, "w": weight}
    if bias:
        inputs["bias"] = leaf(case + ".bias", (o,))
    y = F.conv2d(x, weight, inputs.get("bias"), stride=stride, padding=pad)
    record(case, "conv2d", {"stride": stride, "pad": pad, "kernel": k}, inputs, y)


conv("conv3x3_s1", 2, 5, 6, 3, 4, 3, 1, 1, True)
conv("conv3x3_s1_wide", 1, 9, 11, 16, 32, 3, 1, 1, False)
conv("conv3x3_s2", 2, 8, 6, 4, 5, 3, 2, 1, True)
conv("conv3x3_s2_odd", 1, 7, 9, 8, 16, 3, 2, 1, False)
conv("conv1x1", 2, 4, 5, 6, 7, 1, 1, 0, True)
conv("conv1x1_wide", 1, 5, 7, 48, 33, 1, 1, 0, False)
conv("conv_one_pixel", 1, 1, 1, 5, 3, 3, 1, 1, True)

for case, n, h, w, i, o in (("conv_transpose", 2, 3, 4, 5, 6), ("conv_transpose_wide", 1, 5, 3, 16, 16)):
    x, weight, bias = leaf(case + ".x", (n, i, h, w)), leaf(case + ".w", (i, o, 2, 2)), leaf(case + ".bias", (o,))
    y = F.conv_transpose2d(x, weight, bias, stride=2)
    record(
        case,
        "conv_transpose2x2",
        {"stride": 2, "kernel": 2},
        {"x": x, "w": weight, "bias": bias},
        y,
        layout={"w": lambda t: t.permute(1, 2, 3, 0)},
    )
    tensors[case + ".w_iohw"] = weight.detach().float()

for case, shape, offset in (
    ("batch_norm", (3, 5, 4, 3), 0.0),
    ("batch_norm_offset", (2, 4, 3, 3), 50.0),
    ("batch_norm_silu", (2, 6, 3, 4), 0.0),
):
    c = shape[1]
    x = leaf(case + ".x", shape, offset - 1, offset + 1)
    gamma, beta = leaf(case + ".gamma", (c,), 0.5, 1.5), leaf(case + ".beta", (c,))
    running_mean, running_var = formula(case + ".running_mean", (c,)), formula(case + ".running_var", (c,), 0.5, 1.5)
    inputs = {"x": x, "gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    mean_after, var_after = running_mean.double(), running_var.double()
    y = F.batch_norm(x, mean_after, var_after, gamma, beta, training=True, momentum=0.03, eps=1e-3)
    if case.endswith("silu"):
        y = F.silu(y)
    record(case, "batch_norm", {"eps": 1e-3, "momentum": 0.03, "train": True, "silu": case.endswith("silu")}, inputs, y)
    tensors[case + ".running_mean_after"], tensors[case + ".running_var_after"] = mean_after.float(), var_after.float()
    tensors[case + ".batch_mean"] = x.detach().mean((0, 2, 3)).float()
    tensors[case + ".batch_var"] = x.detach().var((0, 2, 3), unbiased=False).float()
case = "batch_norm_eval"
x, gamma, beta = leaf(case + ".x", (2, 5, 3, 2)), leaf(case + ".gamma", (5,), 0.5, 1.5), leaf(case + ".beta", (5,))
running_mean, running_var = formula(case + ".running_mean", (5,)), formula(case + ".running_var", (5,), 0.5, 1.5)
y = F.batch_norm(x, running_mean.double(), running_var.double(), gamma, beta, training=False, eps=1e-3)
record(
    case,
    "batch_norm",
    {"eps": 1e-3, "train": False},
    {"x": x, "gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var},
    y,
)

unary = {
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "relu": F.relu,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "negate": torch.neg,
    "abs": torch.abs,
    "softplus": lambda t: F.softplus(t, threshold=1e9),
    "atan": torch.atan,
}
for name, function in unary.items():
    low, high = (0.05, 6.0) if name in ("log", "sqrt") else (-6.0, 6.0)
    x = leaf(name + ".x", (7, 13), low, high)
    record(name, name, {}, {"x": x}, function(x))
x = torch.tensor([[-100.0, -88.5, -30.0, -1e-3, 0.0, 1e-3, 30.0, 88.5, 100.0]], dtype=torch.float64)
for name in ("silu", "sigmoid", "tanh", "softplus"):
    t = x.clone().requires_grad_()
    record(name + "_extreme", name, {}, {"x": t}, unary[name](t))

binary = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}
for name, function in binary.items():
    low = 0.5 if name == "divide" else -2.0
    a, b = leaf(name + ".a", (4, 3, 5)), leaf(name + ".b", (4, 3, 5), low, 2.0)
    record(name, name, {}, {"a": a, "b": b}, function(a, b))
    a, b = leaf(name + "_broadcast.a", (4, 3, 5)), leaf(name + "_broadcast.b", (3, 1), low, 2.0)
    record(name + "_broadcast", name, {}, {"a": a, "b": b}, function(a, b))

for case, shape, k, s, p in (
    ("max_pool5", (2, 3, 6, 7), 5, 1, 2),
    ("max_pool2", (2, 4, 6, 8), 2, 2, 0),
    ("max_pool2_odd", (1, 2, 5, 7), 2, 2, 0),
):
    x = leaf(case + ".x", shape)
    record(case, "max_pool2d", {"kernel": k, "stride": s, "pad": p}, {"x": x}, F.max_pool2d(x, k, s, p))
x = leaf("upsample.x", (2, 3, 3, 4))
record("upsample", "upsample_nearest", {"factor": 2}, {"x": x}, F.interpolate(x, scale_factor=2, mode="nearest"))
for case, shape, h, w in (("resize_up", (2, 3, 4, 6), 7, 9), ("resize_down", (1, 3, 12, 10), 8, 4), ("resize_mixed", (1, 2, 6, 9), 10, 6)):
    x = leaf(case + ".x", shape)
    record(case, "resize_bilinear", {"height": h, "width": w}, {"x": x}, F.interpolate(x, (h, w), mode="bilinear", align_corners=False))
a, b, c = leaf("concat.a", (2, 3, 4, 5)), leaf("concat.b", (2, 1, 4, 5)), leaf("concat.c", (2, 4, 4, 5))
record("concat", "concat", {"axis": "channels (last)"}, {"a": a, "b": b, "c": c}, torch.cat([a, b, c], 1))

for name, function in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
    x = leaf(name + ".x", (6, 16), -4.0, 4.0)
    record(name, name, {"axis": -1}, {"x": x}, function(x, -1))
    x = leaf(name + "_large.x", (3, 5), 900.0, 1100.0)
    record(name + "_large", name, {"axis": -1}, {"x": x}, function(x, -1))

a, b = leaf("matmul.a", (5, 7)), leaf("matmul.b", (7, 6))
record("matmul", "matmul", {}, {"a": a, "b": b}, a @ b)
a, b = leaf("matmul_batched.a", (3, 4, 5)), leaf("matmul_batched.b", (3, 5, 2))
record("matmul_batched", "matmul", {}, {"a": a, "b": b}, a @ b)
a, b = leaf("matmul_bt.a", (4, 9)), leaf("matmul_bt.b", (6, 9))
record("matmul_bt", "matmul", {"transpose_b": True}, {"a": a, "b": b}, a @ b.T)
x, w, bias = leaf("linear.x", (5, 8)), leaf("linear.w", (3, 8)), leaf("linear.bias", (3,))
record("linear", "linear", {"w": "(out, in)"}, {"x": x, "w": w, "bias": bias}, F.linear(x, w, bias))

for name, function in (("sum", lambda t, a: t.sum(a)), ("mean", lambda t, a: t.mean(a)), ("max", lambda t, a: t.amax(a))):
    for axis in (0, 1, 2):
        x = leaf(f"{name}_axis{axis}.x", (4, 5, 6))
        record(f"{name}_axis{axis}", name, {"axis": axis}, {"x": x}, function(x, axis))
    x = leaf(f"{name}_all.x", (4, 5, 6))
    record(f"{name}_all", name, {"axis": "all"}, {"x": x}, function(x, (0, 1, 2)), scalar=True)

x = leaf("gather_rows.x", (6, 4))
index = torch.tensor([5, 0, 0, 3, 2, 5, 5], dtype=torch.int64)
record("gather_rows", "gather_rows", {}, {"x": x, "index": index}, x[index])

x, target = leaf("bce_with_logits.x", (5, 7), -5.0, 5.0), formula("bce_with_logits.target", (5, 7), 0.0, 1.0)
record(
    "bce_with_logits",
    "bce_with_logits_sum",
    {"y": "sum over all elements"},
    {"x": x, "target": target},
    F.binary_cross_entropy_with_logits(x, target.double(), reduction="sum"),
    scalar=True,
)
x = torch.tensor([-200.0, -20.0, 0.0, 20.0, 200.0] * 2, dtype=torch.float64).requires_grad_()
target = torch.tensor([0.0] * 5 + [1.0] * 5)
record(
    "bce_with_logits_extreme",
    "bce_with_logits_sum",
    {},
    {"x": x, "target": target},
    F.binary_cross_entropy_with_logits(x, target.double(), reduction="sum"),
    scalar=True,
)


def ciou_case():
    """Random overlapping boxes plus special ones; weight as in sum of weight * (1 - CIoU)."""
    from ultralytics.utils.metrics import bbox_iou

    centre, size = formula("ciou.c", (12, 2), 4.0, 8.0), formula("ciou.s", (12, 2), 1.0, 6.0)
    shift, other = formula("ciou.d", (12, 2), -2.0, 2.0), formula("ciou.t", (12, 2), 1.0, 6.0)
    boxes = torch.cat([centre - size / 2, centre + size / 2], 1)
    target = torch.cat([centre + shift - other / 2, centre + shift + other / 2], 1)
    special = torch.tensor([[1.0, 2, 5, 9], [0, 0, 2, 2], [0, 0, 4, 4], [1, 1, 2, 2]])
    special_target = torch.tensor([[2.0, 1, 8, 6], [5, 6, 9, 8], [1, 1, 2, 3], [0, 0, 6, 8]])  # the example; apart; inside; around
    boxes, target = torch.cat([special, boxes]).double().requires_grad_(), torch.cat([special_target, target])
    weight = formula("ciou.weight", (16,), 0.1, 1.0)
    ciou = bbox_iou(boxes, target.double(), xywh=False, CIoU=True).reshape(-1)
    record(
        "ciou",
        "ciou_loss_sum",
        {"y": "sum of weight * (1 - CIoU)", "eps": 1e-7},
        {"boxes": boxes, "target": target, "weight": weight},
        (weight.double() * (1 - ciou)).sum(),
        scalar=True,
    )
    tensors["ciou.ciou"] = ciou.detach().float()


def dfl_case():
    from ultralytics.utils.loss import DFLoss

    x = leaf("dfl.x", (9, 64), -3.0, 3.0)
    target = formula("dfl.target", (9, 4), 0.0, 14.9)
    target[0] = torch.tensor([0.0, 1.0, 7.0, 14.99])  # whole numbers and the clamp value
    weight = formula("dfl.weight", (9,), 0.1, 1.0)
    loss = DFLoss(16)(x.view(-1, 16), target.double()).reshape(-1)
    record(
        "dfl",
        "dfl_loss_sum",
        {"y": "sum of weight * mean of 4 sides", "bins": 16},
        {"x": x, "target": target, "weight": weight},
        (weight.double() * loss).sum(),
        scalar=True,
    )
    tensors["dfl.per_row"] = loss.detach().float()
    expectation = (F.softmax(x.detach().view(9, 4, 16), -1) * torch.arange(16)).sum(-1)
    tensors["dfl.expectation"] = expectation.float()


def mask_case():
    """Spec 7.6 restated in PyTorch: overlap index map, crop to the box, mean over the plane, divided by the area."""
    n, k, mh, mw = 2, 5, 6, 8
    protos, coeff = leaf("mask_loss.prototypes", (n, k, mh, mw)), leaf("mask_loss.coefficients", (4, k))
    masks = torch.zeros(n, mh, mw, dtype=torch.int32)
    masks[0, 1:5, 1:6] = 1
    masks[0, 2:4, 3:8] = 2
    masks[1, 0:6, 2:5] = 1
    image = torch.tensor([0, 0, 1, 1], dtype=torch.int32)
    target = torch.tensor([1, 2, 1, 1], dtype=torch.int32)
    boxes = torch.tensor([[1.0, 1.0, 6.0, 5.0], [2.5, 1.2, 8.0, 4.4], [2.0, 0.0, 5.0, 6.0], [1.75, -1.0, 4.0, 9.0]])
    area = torch.tensor([0.4, 0.35, 0.375, 0.3])
    total = 0
    for j in range(4):
        b = boxes[j].double()
        logits = torch.einsum("k,kyx->yx", coeff[j], protos[image[j]])
        gt = (masks[image[j]] == target[j]).double()
        xs, ys = torch.arange(mw).double()[None], torch.arange(mh).double()[:, None]
        inside = (xs >= b[0]) & (xs < b[2]) & (ys >= b[1]) & (ys < b[3])
        bce = F.binary_cross_entropy_with_logits(logits, gt, reduction="none")
        total = total + (bce * inside).mean() / area[j].double()
    record(
        "mask_loss",
        "mask_loss_sum",
        {"overlap": True},
        {
            "coefficients": coeff,
            "prototypes": protos,
            "masks": masks,
            "image": image,
            "target": target,
            "boxes": boxes,
            "area": area,
        },
        total,
        scalar=True,
    )


ciou_case()
dfl_case()
mask_case()
folder = output_folder(sys.argv)
save_tensors(folder / "ops.safetensors", tensors)
save_json(folder / "ops.json", {"torch": torch.__version__, "numpy": np.__version__, "cases": cases})
