"""The order of training images in the original's loader -> image_order.json.

The loader of ultralytics.data.build over a stand-in data set that gives its index, without workers: "cases" of n items in batches of
`batch`, four epochs, its iterator made anew before epoch `reset` as the trainer does when mosaic closes (-1: never). "orders" has
one list an epoch.
"""

import sys

from common import output_folder, save_json
from ultralytics.data.build import build_dataloader


class Indices:
    """Item i is i."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return i

    @staticmethod
    def collate_fn(items):
        return items


cases = []
for n, batch, reset in ((48, 16, 2), (48, 16, -1), (37, 8, 2), (5, 8, 1), (1, 1, -1)):
    loader = build_dataloader(Indices(n), batch, 0, shuffle=True, rank=-1)
    orders = []
    for epoch in range(4):
        if epoch == reset:
            loader.reset()
        orders.append([i for items in loader for i in items])
    cases.append({"n": n, "batch": batch, "reset": reset, "orders": orders})
save_json(output_folder(sys.argv) / "image_order.json", {"cases": cases})
