"""loss.safetensors, loss.json: the original's segmentation loss as a black box on raw head outputs.

Each case holds raw maps (N,h,w,64+nc), coefficients (N,A,32), prototypes (N,mh,mw,32), targets (batch_idx, cls, bboxes xywh
normalised) and masks (overlap: N,H,W index maps; else objects,H,W), the gradient of the total loss (items times batch size) with
respect to the first three ("d..."), the four gained items (box, seg, cls, dfl; spec 7.3) and the assigner's outputs. fp32 on CPU.

Cases other than "example" tilt the box logits (later bins weighed down) so that predicted boxes are about 30 pixels wide. No case
has an anchor inside a ground truth with zero metric while that ground truth has fewer than ten positive metrics: there the
original's top-k resolves ties arbitrarily and the mask term depends on it (spec 7.2 step 6). The script stops if one does.
"decode": DFL expectation and boxes in grid units.
"""

import sys

import torch

from common import nhwc, output_folder, save_json, save_tensors, segmentation_model, sines
from recorder import Recorder, ambiguous

tensors, cases = {}, {}


def make_inputs(n, nc, size, tilt, phase):
    h, w = size
    maps = []
    for stride, k, slope in ((8, 0.37, 0.5), (16, 0.41, 0.75), (32, 0.43, 1.1)):
        m = sines(k + phase, (n, 64 + nc, h // stride, w // stride))
        if tilt:
            m[:, :64] -= (slope * torch.arange(16.0).repeat(4))[None, :, None, None]
        maps.append(m.requires_grad_())
    anchors = sum(m.shape[2] * m.shape[3] for m in maps)
    coefficients = sines(0.29 + phase, (n, 32, anchors), 0.5).requires_grad_()
    protos = sines(0.31 + phase, (n, 32, h // 4, w // 4)).requires_grad_()
    return maps, coefficients, protos


def box_masks(targets, n, size, overlap):
    """Filled boxes at the given resolution; overlap: later objects of an image overwrite (the fixture only needs some masks)."""
    h, w = size
    planes = []
    for _, _, x, y, bw, bh in targets:
        m = torch.zeros(h, w)
        m[max(round((y - bh / 2) * h), 0) : round((y + bh / 2) * h), max(round((x - bw / 2) * w), 0) : round((x + bw / 2) * w)] = 1
        planes.append(m)
    if not overlap:
        return torch.stack(planes) if planes else torch.zeros(0, h, w)
    maps = torch.zeros(n, h, w)
    counters = [0] * n
    for t, m in zip(targets, planes):
        image = int(t[0])
        counters[image] += 1
        maps[image][m > 0] = counters[image]
    return maps


def run(case, n, nc, size, targets, inputs, masks, overlap=True, check=True):
    from ultralytics.utils.loss import v8SegmentationLoss

    model = segmentation_model("n", nc)
    model.args.overlap_mask = overlap
    criterion = v8SegmentationLoss(model)
    criterion.assigner = recorder = Recorder(criterion.assigner)
    maps, coefficients, protos = inputs
    t = torch.tensor(targets, dtype=torch.float32).reshape(-1, 6)
    batch = {"batch_idx": t[:, 0], "cls": t[:, 1:2], "bboxes": t[:, 2:], "masks": masks.clone(), "img": torch.zeros(n, 3, *size)}
    total, items = criterion((maps, coefficients, protos), batch)
    total.sum().backward()
    doubtful = ambiguous(recorder.inputs)
    if check and doubtful:
        raise SystemExit(f"{case}: {doubtful} ground truths with an arbitrary top-k")
    _, boxes, scores, fg, gt_index = recorder.outputs
    zero_weight = int((fg.bool() & (scores.sum(-1) == 0)).sum())
    out = {
        "coefficients": coefficients.permute(0, 2, 1),
        "dcoefficients": coefficients.grad.permute(0, 2, 1),
        "prototypes": nhwc(protos),
        "dprototypes": nhwc(protos.grad),
        "masks": masks.to(torch.int32),
        "batch_idx": t[:, 0].int(),
        "cls": t[:, 1].int(),
        "bboxes": t[:, 2:],
        "items": items,
        "total": total.sum().reshape(1),
        "fg": fg.to(torch.uint8),
        "gt_index": gt_index.int() * fg.int(),
        "target_scores": scores,
    }
    for level, m in enumerate(maps):
        out[f"map{level}"], out[f"dmap{level}"] = nhwc(m), nhwc(m.grad)
    tensors.update({f"{case}.{key}": value for key, value in out.items()})
    norms = [m.grad.norm().item() for m in maps] + [coefficients.grad.norm().item(), protos.grad.norm().item()]
    cases[case] = {
        "n": n,
        "nc": nc,
        "height": size[0],
        "width": size[1],
        "overlap": overlap,
        "objects": len(targets),
        "items": items.tolist(),
        "total": total.sum().item(),
        "positives": int(fg.sum()),
        "zero_metric_positives": zero_weight,
        "arbitrary_topk": doubtful,
        "target_score_sum": scores.sum().item(),
        "gradient_norms": norms,
    }
    print(case, cases[case]["items"], cases[case]["positives"], zero_weight, doubtful)


def example():
    """The case of the specification's numeric examples."""
    targets = [[0, 1, 0.30, 0.35, 0.45, 0.50], [0, 0, 0.60, 0.55, 0.55, 0.60], [1, 1, 0.50, 0.45, 0.85, 0.70]]
    masks = torch.zeros(2, 16, 16)
    masks[0, 4:14, 5:14] = 2
    masks[0, 2:9, 2:8] = 1
    masks[1, 2:12, 2:14] = 1
    run("example", 2, 2, (64, 64), targets, make_inputs(2, 2, (64, 64), False, 0.0), masks, check=False)


def simple(case, n, nc, targets, size=(32, 32), mask_size=None, overlap=True, phase=0.0):
    masks = box_masks(targets, n, mask_size or (size[0] // 4, size[1] // 4), overlap)
    run(case, n, nc, size, targets, make_inputs(n, nc, size, True, phase), masks, overlap)


def decode():
    from ultralytics.utils.loss import v8SegmentationLoss
    from ultralytics.utils.tal import make_anchors

    criterion = v8SegmentationLoss(segmentation_model("n", 1))
    feats = [torch.zeros(1, 1, 8, 4), torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 2, 1)]
    anchors, strides = make_anchors(feats, torch.tensor([8.0, 16.0, 32.0]), 0.5)
    logits = sines(0.53, (2, anchors.shape[0], 64), 3.0)
    logits[0, :4] = 0
    for a in range(4):  # one-hot rows: known distances
        for side in range(4):
            logits[0, a, side * 16 + (a + 4 * side) % 16] = 60.0
    tensors.update(
        {
            "decode.logits": logits,
            "decode.anchors": anchors,
            "decode.strides": strides.reshape(-1),
            "decode.boxes": criterion.bbox_decode(anchors, logits),
        }
    )
    cases["decode"] = {"maps": [[8, 4], [4, 2], [2, 1]], "boxes": "xyxy, grid units"}


example()
simple(
    "mixed_counts",
    3,
    3,
    [[1, 2, 0.45, 0.52, 0.62, 0.58]] + [[2, k % 3, 0.27 + 0.16 * (k % 4), 0.33 + 0.31 * (k // 4), 0.41, 0.47] for k in range(8)],
)
simple("no_objects", 2, 2, [], phase=0.01)
simple("single_class", 2, 1, [[0, 0, 0.4, 0.4, 0.55, 0.6], [0, 0, 0.66, 0.58, 0.5, 0.7], [1, 0, 0.5, 0.5, 0.95, 0.9]], phase=0.02)
simple("corners", 1, 2, [[0, 0, 0.25, 0.2, 0.5, 0.4], [0, 1, 0.75, 0.8, 0.5, 0.4], [0, 1, 0.5, 0.5, 1.0, 1.0]], phase=0.03)
simple(
    "mask_size_differs",
    2,
    2,
    [[0, 0, 0.42, 0.45, 0.6, 0.5], [1, 1, 0.55, 0.5, 0.7, 0.8], [1, 0, 0.3, 0.4, 0.45, 0.5]],
    mask_size=(24, 24),
    phase=0.04,
)
simple(
    "separate_masks",
    2,
    2,
    [[0, 1, 0.4, 0.4, 0.55, 0.6], [0, 0, 0.6, 0.55, 0.5, 0.6], [1, 1, 0.5, 0.5, 0.8, 0.7]],
    overlap=False,
    phase=0.05,
)
simple("wide_image", 1, 4, [[0, 3, 0.3, 0.5, 0.4, 0.7], [0, 1, 0.7, 0.45, 0.35, 0.6]], size=(32, 96), phase=0.06)
simple(
    "degenerate_boxes", 2, 2, [[0, 0, 0.5, 0.5, 0.0, 0.0], [0, 1, 0.45, 0.5, 0.6, 0.6], [1, 0, 0.4, 0.6, 0.05, 0.05]], phase=0.07
)
simple("image_order", 2, 2, [[1, 0, 0.4, 0.5, 0.6, 0.6], [0, 1, 0.55, 0.45, 0.6, 0.55], [1, 1, 0.62, 0.55, 0.5, 0.6]], phase=0.08)
decode()
folder = output_folder(sys.argv)
save_tensors(folder / "loss.safetensors", tensors)
save_json(folder / "loss.json", {"cases": cases})
