"""Table of medians from the JSON lines that compare.sh gathers; the standard library only."""
import collections
import json
import statistics
import sys

rows = collections.defaultdict(list)
for line in open(sys.argv[1]):
    r = json.loads(line)
    what = "training step, batch 16" if "step" in r["what"] else "inference, batch 1"
    rows[what, r.get("peer", "Tessera")].append((r["images_per_s"], r.get("peak_rss_mib", r.get("peak_mib", 0)), r.get("bound_images_per_s")))
bounds = {what: statistics.median(x[2] for x in v) for (what, who), v in rows.items() if who == "Tessera"}
ours = {what: statistics.median(x[0] for x in v) for (what, who), v in rows.items() if who == "Tessera"}
print("| n, 640 px, fp32, 2 threads | who | images/s, median (rounds) | of the arithmetic bound | Tessera is | peak MiB |")
print("|---|---|---|---|---|---|")
for (what, who), v in sorted(rows.items()):
    rate = statistics.median(x[0] for x in v)
    each = ", ".join(f"{x[0]:.2f}" for x in v)
    print(f"| {what} | {who} | {rate:.2f} ({each}) | {100 * rate / bounds[what]:.0f} % | {ours[what] / rate:.2f} x | {statistics.median(x[1] for x in v):.0f} |")
