"""Prints how far the original's training step under PyTorch's bf16 autocast on the CPU lies from its float64 step: the figures beside
which tests/train/step_test.cpp holds our bf16 step. Writes nothing. Same network, batch and weights as train_step.py."""

import torch

from train_step import batch, setup


def step(dtype, autocast):
    model, criterion = setup(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        data = batch(dtype)
        predictions = model(data["img"])
        predictions = [p.float() if torch.is_tensor(p) else [q.float() for q in p] for p in predictions] if autocast else predictions
    loss, items = criterion(predictions, data)
    loss.sum().backward()
    gradient = torch.cat([p.grad.double().flatten() for p in model.parameters() if p.requires_grad])
    return items.double(), gradient


items, gradient = step(torch.float64, False)
for name, dtype, autocast in (("float32", torch.float32, False), ("bf16 autocast", torch.float32, True)):
    other_items, other = step(dtype, autocast)
    relative = ((other_items - items) / items).tolist()
    error = (other - gradient).norm() / gradient.norm()
    print(f"{name}: items box, seg, cls, dfl {['%.2e' % r for r in relative]}, difference of the whole gradient {error:.3e} of its length")
