#!/usr/bin/env python3
"""watch.py COMMAND...: runs it and prints one JSON line: seconds by the clock, CPU seconds, and the peak memory of its whole tree of
processes (proportional set size, so that what they share counts once; looked at four times a second). Its own output goes to stderr."""

import json
import pathlib
import resource
import subprocess
import sys
import time


def tree(root):
    children = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left += children.get(pid, [])
    return found


def memory_mib(pids):
    total = 0
    for pid in pids:
        try:
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


start = time.monotonic()
child = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
peak = 0
while child.poll() is None:
    peak = max(peak, memory_mib(tree(child.pid)))
    time.sleep(0.25)
seconds = time.monotonic() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"seconds": round(seconds, 2), "cpu_seconds": round(used.ru_utime + used.ru_stime, 2), "peak_mib": round(peak)}))
sys.exit(child.returncode)
