"""What goes through the original's assigner, and whether its outcome was arbitrary."""

import torch


class Recorder(torch.nn.Module):
    """Keeps what goes through the assigner."""

    def __init__(self, assigner):
        super().__init__()
        self.assigner = assigner

    def forward(self, *inputs):
        self.inputs = inputs
        self.outputs = self.assigner(*inputs)
        return self.outputs


def ambiguous(inputs):
    """Number of ground truths whose top-k includes an arbitrary choice that matters."""
    from ultralytics.utils.metrics import bbox_iou

    scores, boxes, anchors, labels, gts, valid = inputs
    count = 0
    for n in range(gts.shape[0]):
        for g in range(gts.shape[1]):
            if not valid[n, g]:
                continue
            gt = gts[n, g]
            inside = torch.cat([anchors - gt[:2], gt[2:] - anchors], 1).amin(1) > 1e-9
            overlap = bbox_iou(gt[None], boxes[n], xywh=False, CIoU=True).reshape(-1).clamp(min=0)
            metric = torch.where(inside, scores[n, :, int(labels[n, g])].sqrt() * overlap**6, torch.zeros_like(overlap))
            if (metric > 0).sum() < 10 and (inside & (metric == 0)).any():
                count += 1
    return count
