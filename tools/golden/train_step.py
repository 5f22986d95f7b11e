"""train_step_n.safetensors, train_step_n.json, trajectory_n.json: a training step and ten-step trajectories of the original's n
network.

nc = 3, formula weights, train-mode BN, formula image 3 x 3 x 96 x 96, targets: image 0 none, image 1 one object, image 2 eight.
Computed in float64 by the original (model.double()), so gradients are the true ones; the relative difference of a float32 run is
in the JSON.

train_step_n.safetensors: targets "batch_idx", "cls", "bboxes" (xywh normalised), "masks" (3,24,24) index maps; "items" (4) gained
items box, seg, cls, dfl (the original sums them in float32); for parameter p of train_step_n.json "parameters" (order of the
model): "grad_norm"[p], "grad_sum"[p] f64 and "grad_samples"[p][16] f32 at flat indices floor(j * numel / 16) in PyTorch order
(O,I,kH,kW; transposed convolution I,O,kH,kW); "grad.<name>" in full for tensors of at most 256 entries; "stat.<name>": BN running
mean and variance after the step. The frozen DFL weight has no gradient and is not listed.

trajectory_n.json: ten iterations on that fixed batch. "warmup": the original's set-up (build_optimizer SGD lr 0.01 Nesterov
0.937, weight decay 0.0005 * 3 * 21 / 64, warm-up of spec 8.5 with nw = 100, accumulation of spec 8.6, clip 10, ModelEMA).
"plain": the same without warm-up and accumulation at lr 0.002 for all groups. "adamw": build_optimizer AdamW lr 0.0001 beta1 0.9,
every iteration. Per iteration: items, gradient norm before clipping (null when not stepped), stepped, learning rates, momentum,
positives. At the end [sum, L2 norm] of some weights and EMA entries. "fp32" repeats the items in float32: the spread that
rounding alone causes. The script stops if an arbitrary top-k occurs (see loss.py).
"""

import sys
import types

import numpy as np
import torch

from common import formula_image, output_folder, save_json, save_tensors, segmentation_model
from recorder import Recorder, ambiguous

STEPS, BATCH, NW = 10, 3, 100
CHECKED = [
    "model.0.conv.weight",
    "model.0.bn.weight",
    "model.0.bn.bias",
    "model.0.bn.running_mean",
    "model.0.bn.running_var",
    "model.4.m.1.cv2.conv.weight",
    "model.9.cv2.bn.running_var",
    "model.12.cv1.conv.weight",
    "model.21.cv2.bn.bias",
    "model.22.cv2.0.2.bias",
    "model.22.cv2.2.2.weight",
    "model.22.cv3.1.2.bias",
    "model.22.cv3.1.2.weight",
    "model.22.proto.upsample.weight",
    "model.22.proto.upsample.bias",
    "model.22.cv4.0.2.bias",
]


def batch(dtype):
    targets = [[1, 2, 0.45, 0.52, 0.62, 0.58]] + [
        [2, k % 3, 0.27 + 0.16 * (k % 4), 0.33 + 0.31 * (k // 4), 0.41, 0.47] for k in range(8)
    ]
    t = torch.tensor(targets, dtype=torch.float32).to(dtype)
    masks = torch.zeros(BATCH, 24, 24)
    masks[1, 5:20, 4:18] = 1
    for k in range(8):
        masks[2, 3 + 2 * k : 10 + 2 * k, 2 + k : 12 + k] = k + 1
    return {
        "img": formula_image(BATCH, 96, 96).to(dtype),
        "batch_idx": t[:, 0],
        "cls": t[:, 1:2],
        "bboxes": t[:, 2:],
        "masks": masks.to(dtype),
    }


def setup(dtype):
    from ultralytics.utils.loss import v8SegmentationLoss

    model = segmentation_model("n", 3).train().to(dtype)
    for name, p in model.named_parameters():
        p.requires_grad_(".dfl" not in name)
    criterion = v8SegmentationLoss(model)
    criterion.assigner = Recorder(criterion.assigner)
    return model, criterion


def forward(model, criterion, data):
    total, items = criterion(model(data["img"]), data)
    if ambiguous(criterion.assigner.inputs):
        raise SystemExit("a ground truth has an arbitrary top-k")
    return total.sum(), items


def train_step(folder):
    gradients, values = {}, {}
    for dtype in (torch.float32, torch.float64):
        model, criterion = setup(dtype)
        total, items = forward(model, criterion, batch(dtype))
        total.backward()
        gradients[dtype] = {name: p.grad.double() for name, p in model.named_parameters() if p.requires_grad}
        values[dtype] = items
    true = gradients[torch.float64]
    out = {k: v for k, v in batch(torch.float32).items() if k != "img"}
    out["batch_idx"], out["cls"], out["masks"] = out["batch_idx"].int(), out["cls"].flatten().int(), out["masks"].int()
    out["items"] = values[torch.float64].numpy().astype(np.float64)
    out["total"] = np.array([total.item()])
    out["grad_norm"] = np.array([g.norm().item() for g in true.values()])
    out["grad_sum"] = np.array([g.sum().item() for g in true.values()])
    samples = [g.flatten()[[j * g.numel() // 16 for j in range(16)]] for g in true.values()]
    out["grad_samples"] = torch.stack(samples)
    out.update({"grad." + name: g for name, g in true.items() if g.numel() <= 256})
    out.update({"stat." + name: b for name, b in model.named_buffers() if "running" in name})
    save_tensors(folder / "train_step_n.safetensors", out)
    spread = {name: ((gradients[torch.float32][name] - g).norm() / g.norm()).item() for name, g in true.items()}
    total_norm = sum(g.norm().item() ** 2 for g in true.values()) ** 0.5
    save_json(
        folder / "train_step_n.json",
        {
            "nc": 3,
            "image": [3, 3, 96, 96],
            "items": values[torch.float64].tolist(),
            "items_fp32": values[torch.float32].tolist(),
            "total": total.item(),
            "gradient_norm": total_norm,
            "positives": int(criterion.assigner.outputs[3].sum()),
            "fp32_relative_difference_max": max(spread.values()),
            "parameters": list(true),
        },
        digits=17,
    )
    print(values, max(spread.values()))


def trajectory(kind, dtype):
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.utils.torch_utils import ModelEMA

    model, criterion = setup(dtype)
    data = batch(dtype)
    accumulate = max(round(64 / BATCH), 1)
    decay = 0.0005 * BATCH * accumulate / 64
    stub = types.SimpleNamespace(args=types.SimpleNamespace(warmup_bias_lr=0.1), data={"nc": 3})
    name, lr, momentum = {"warmup": ("SGD", 0.01, 0.937), "plain": ("SGD", 0.002, 0.937), "adamw": ("AdamW", 0.0001, 0.9)}[kind]
    optimizer = BaseTrainer.build_optimizer(stub, model, name=name, lr=lr, momentum=momentum, decay=decay, iterations=1e5)
    ema = ModelEMA(model)
    rows, last = [], -1
    optimizer.zero_grad()
    for ni in range(STEPS):
        step_every = 1
        if kind == "warmup":
            step_every = max(1, int(np.interp(ni, [0, NW], [1, 64 / BATCH]).round()))
            for j, group in enumerate(optimizer.param_groups):
                group["lr"] = float(np.interp(ni, [0, NW], [0.1 if j == 0 else 0.0, lr]))
                group["momentum"] = float(np.interp(ni, [0, NW], [0.8, 0.937]))
        model.train()
        total, items = forward(model, criterion, data)
        total.backward()
        row = {
            "items": items.tolist(),
            "positives": int(criterion.assigner.outputs[3].sum()),
            "lr": [g["lr"] for g in optimizer.param_groups],
            "momentum": optimizer.param_groups[0].get("momentum"),
            "accumulate": step_every,
            "gradient_norm": None,
            "stepped": False,
        }
        if ni - last >= step_every:
            row["gradient_norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0).item()
            row["stepped"] = True
            optimizer.step()
            optimizer.zero_grad()
            ema.update(model)
            last = ni
        rows.append(row)
    sums = lambda state: {n: [state[n].double().sum().item(), state[n].double().norm().item()] for n in CHECKED}
    everything = [p.double().norm().item() ** 2 for p in model.parameters() if p.requires_grad]
    return {
        "optimizer": name,
        "decay": decay,
        "groups": [[len(g["params"]), g["weight_decay"]] for g in optimizer.param_groups],
        "steps": rows,
        "weights": sums(model.state_dict()),
        "ema": sums(ema.ema.state_dict()),
        "ema_updates": ema.updates,
        "weight_norm": sum(everything) ** 0.5,
    }


def main():
    folder = output_folder(sys.argv)
    train_step(folder)
    result = {}
    for kind in ("warmup", "plain", "adamw"):
        result[kind] = trajectory(kind, torch.float64)
        single = trajectory(kind, torch.float32)
        result[kind]["fp32"] = [row["items"] for row in single["steps"]]
        relative = max(abs(a / b - 1) for r, s in zip(single["steps"], result[kind]["steps"]) for a, b in zip(r["items"], s["items"]))
        worst = {n: abs(single["weights"][n][1] / v[1] - 1) for n, v in result[kind]["weights"].items()}
        print(
            kind,
            relative,
            max(worst.values()),
            [r["items"][0] for r in result[kind]["steps"]],
            [r["gradient_norm"] for r in result[kind]["steps"]],
            [r["positives"] for r in result[kind]["steps"]],
        )
        result[kind]["fp32_relative_difference"] = {"items": relative, "weight_norms": max(worst.values())}
    save_json(folder / "trajectory_n.json", result, digits=15)


if __name__ == "__main__":
    main()
