"""model_n.safetensors, model_s.safetensors, model_counts.json: outputs of the original's networks with formula weights, and
parameter counts.

nc = 80, eval mode, formula image 2 x 3 x 64 x 96 (common.formula_image), fp32. n: raw maps "map0..2" (N,h,w,144), "coefficients"
(N,126,32), "prototypes" (N,16,24,32), "decoded" (N,126,116: xywh, scores, coefficients) and "fused_decoded" (BN folded by the
original). s: prototypes, decoded and fused_decoded only. The weights are the formula's and are not stored; "weight_sum.<k>" in
the JSON are checks of it.
"""

import sys

import torch

from common import formula_image, nhwc, output_folder, save_json, save_tensors, segmentation_model


@torch.no_grad()
def outputs(scale, folder):
    model = segmentation_model(scale, 80).eval()
    image = formula_image(2, 64, 96)
    decoded, (maps, coefficients, protos) = model(image)
    fused, _ = model.fuse(verbose=False)(image)
    out = {"prototypes": nhwc(protos), "decoded": decoded.permute(0, 2, 1), "fused_decoded": fused.permute(0, 2, 1)}
    if scale == "n":
        out["coefficients"] = coefficients.permute(0, 2, 1)
        out.update({f"map{i}": nhwc(m) for i, m in enumerate(maps)})
    save_tensors(folder / f"model_{scale}.safetensors", out)
    print(
        scale, {k: (float(v.min()), float(v.max()), float(v.std())) for k, v in out.items()}, float((fused - decoded).abs().max())
    )


def counts():
    from ultralytics.nn.tasks import SegmentationModel

    table = {}
    for scale in "nsmlx":
        row = {}
        for nc in (80, 1):
            model = SegmentationModel(f"yolov8{scale}-seg.yaml", ch=3, nc=nc, verbose=False)
            row[f"nc{nc}"] = sum(p.numel() for p in model.parameters())
            if nc == 80:
                row["layers"] = [sum(p.numel() for p in layer.parameters()) for layer in model.model]
                row["state_entries"] = len(model.state_dict())
                fused = model.eval().fuse(verbose=False)
                row["fused"] = sum(p.numel() for p in fused.parameters())
                row["fused_state_entries"] = len(fused.state_dict())
        table[scale] = row
        print(scale, {k: v for k, v in row.items() if k != "layers"})
    return table


def weight_checks():
    """Sum and first values of a few formula tensors, in double."""
    state = segmentation_model("n", 80).state_dict()
    names = [
        "model.0.conv.weight",
        "model.0.bn.weight",
        "model.2.m.0.cv1.bn.running_var",
        "model.22.cv3.1.2.bias",
        "model.22.proto.upsample.weight",
        "model.22.proto.upsample.bias",
        "model.22.dfl.conv.weight",
        "model.22.cv4.2.2.weight",
        "model.9.cv2.bn.running_mean",
    ]
    table = {
        name: {
            "shape": list(state[name].shape),
            "sum": state[name].double().sum().item(),
            "first": state[name].flatten()[:3].tolist(),
        }
        for name in names
    }
    image = formula_image(2, 64, 96)
    table["image"] = {"shape": list(image.shape), "sum": image.double().sum().item(), "first": image.flatten()[:3].tolist()}
    return table


def state_names():
    return {name: list(t.shape) for name, t in segmentation_model("n", 80).state_dict().items()}


folder = output_folder(sys.argv)
outputs("n", folder)
outputs("s", folder)
save_json(
    folder / "model_counts.json", {"counts": counts(), "formula_checks": weight_checks(), "state_n_nc80": state_names()}, digits=17
)
