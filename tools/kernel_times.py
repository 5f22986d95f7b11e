#!/usr/bin/env python3
"""Where the time of a step goes, kernel by kernel, from the counters of a device.

  ncu --clock-control none --cache-control none --launch-skip 1300 --launch-count 1000 --csv --log-file kernels.csv \\
      --metrics gpu__time_duration.sum,dram__bytes.sum,launch__registers_per_thread  tessera bench step --device cuda ...
  tools/kernel_times.py kernels.csv [--all]

Finds the launches that repeat, which are one step, and prints a row for each kernel: launches, microseconds, MB from and to memory;
--all: every launch in order. Kernels run one by one under ncu: what a step gains by running some beside others does not show.
"""

import collections
import csv
import re
import sys

SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "nsecond": 1e-9, "usecond": 1e-6, "msecond": 1e-3, "second": 1}
BYTES = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}


def launches(path):
    """(name, grid, block, microseconds, MB, registers) of each launch, in order."""
    with open(path) as lines:
        rows = csv.DictReader(line for line in lines if line.startswith('"'))
        found = collections.OrderedDict()
        for row in rows:
            launch = found.setdefault(int(row["ID"]), {"row": row})
            launch[row["Metric Name"]] = (float(row["Metric Value"].replace(",", "")), row["Metric Unit"])
    for launch in found.values():
        row = launch["row"]
        name = re.sub(r"^void |\(.*", "", row["Kernel Name"].replace("(anonymous namespace)::", "").replace("<unnamed>::", ""))
        time, time_unit = launch["gpu__time_duration.sum"]
        moved, moved_unit = launch["dram__bytes.sum"]
        registers = launch.get("launch__registers_per_thread", (0, ""))[0]
        yield (
            name.replace("unnamed>::", "").replace("tessera::cuda::", ""),
            row["Grid Size"],
            row["Block Size"],
            time * SECONDS[time_unit] * 1e6,
            moved * BYTES[moved_unit] / 1e6,
            int(registers),
        )


def period(found):
    """How many launches repeat; all of them where none do."""
    keys = [launch[:3] for launch in found]
    for length in range(50, len(keys) - 30):
        if all(keys[i] == keys[i + length] for i in range(len(keys) - length)):
            return length
    return len(keys)


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    found = list(launches(sys.argv[1]))
    step = found[: period(found)]
    if len(step) == len(found):
        print(f"no launches repeat among {len(found)}: all of them follow; ask ncu for more (--launch-count)")
    if "--all" in sys.argv:
        for name, grid, block, time, moved, registers in step:
            print(f"{time:8.1f} us {moved:8.1f} MB  {grid:>16} {block:>14} {registers:4} registers  {name}")
        return
    kernels = collections.defaultdict(list)
    for launch in step:
        kernels[re.split("<", launch[0])[0]].append(launch)
    print(f"{len(step)} launches, {sum(launch[3] for launch in step):.0f} us one by one")
    print(f"{'kernel':44} {'launches':>8} {'us':>9} {'median':>7} {'MB':>9}")
    for name, of in sorted(kernels.items(), key=lambda item: -sum(launch[3] for launch in item[1])):
        times = sorted(launch[3] for launch in of)
        print(f"{name[:44]:44} {len(of):8} {sum(times):9.1f} {times[len(times) // 2]:7.1f} {sum(launch[4] for launch in of):9.1f}")


main()
