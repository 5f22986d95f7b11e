"""grad_scaler.json: torch.amp.GradScaler around SGD with Nesterov momentum, decay and clipping, as the original makes an update, over
gradients of which some are infinite or NaN. For each case the scaler's settings and for each step: the gradient before it is scaled
(of four weights; null for infinity or NaN), whether the step was made, the scale and the count of good steps after it, the weights."""

import math
import random
import sys

import torch

from common import output_folder, save_json

CASES = {
    "defaults": (dict(), 12, {0, 1, 5}),
    "grows": (dict(init_scale=1024.0, growth_interval=3), 14, {4, 9}),
    "odd factors": (dict(init_scale=1000.0, growth_factor=1.7, backoff_factor=0.3, growth_interval=2), 16, {0, 3, 7, 8}),
    "below one": (dict(init_scale=4.0, growth_interval=2), 10, {0, 1, 2, 3}),
    "at the top": (dict(init_scale=2.0**126, growth_interval=1), 4, set()),
}
LR, MOMENTUM, DECAY, MAX_NORM = 0.1, 0.9, 0.01, 2.0


def run(settings, steps, bad, rng):
    scaler = torch.amp.GradScaler("cpu", **settings)
    weights = torch.nn.Parameter(torch.tensor([rng.uniform(-1, 1) for _ in range(4)]))
    start = weights.tolist()
    optimizer = torch.optim.SGD([weights], lr=LR, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)
    trace = []
    for i in range(steps):
        gradient = torch.tensor([rng.uniform(-2, 2) for _ in range(4)])
        if i in bad:
            gradient[rng.randrange(4)] = math.nan if i % 3 == 0 else math.inf
        before = weights.detach().clone()
        scaler.scale((weights * gradient).sum()).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_([weights], MAX_NORM)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        trace.append({
            "gradient": [v if math.isfinite(v) else None for v in gradient.tolist()],
            "made": not torch.equal(before, weights.detach()),
            "scale": scaler.get_scale(),
            "good": scaler._get_growth_tracker(),
            "weights": weights.tolist(),
        })
    state = scaler.state_dict()
    kept = {"init_scale": settings.get("init_scale", 65536.0)}
    kept |= {k: state[k] for k in ("growth_factor", "backoff_factor", "growth_interval")}
    return {"settings": kept, "weights": start, "steps": trace}


if __name__ == "__main__":
    rng = random.Random(20)
    cases = {name: run(settings, steps, bad, rng) for name, (settings, steps, bad) in CASES.items()}
    about = {"lr": LR, "momentum": MOMENTUM, "decay": DECAY, "max_norm": MAX_NORM, "cases": cases}
    save_json(output_folder(sys.argv) / "grad_scaler.json", about, digits=17)
