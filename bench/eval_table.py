"""Table and ratios from the JSON lines that eval.sh gathers; the standard library only."""
import json
import statistics
import sys

NAMES = ["map", "map50", "map75", "maps", "mapm", "mapl", "ar1", "ar10", "ar100", "ars", "arm", "arl"]
rows = [json.loads(line) for line in open(sys.argv[1])]
stats, seconds, cpu = {}, {}, {}
for r in rows:
    who = r["peer"]
    stats[who] = r["stats"] if "stats" in r else [r["result"]["mask"][n] for n in NAMES]
    seconds.setdefault(who, []).append(r["seconds"])
    cpu.setdefault(who, []).append(r["cpu_seconds"])
ours, our_cpu = statistics.median(seconds["Tessera"]), statistics.median(cpu["Tessera"])
print("| segm, reading included | seconds | CPU seconds | Tessera is (clock) | Tessera is (CPU) | mask AP | largest difference of the 12 figures |")
print("|---|---|---|---|---|---|---|")
for who in ("Tessera", "faster-coco-eval", "pycocotools"):
    s, c = statistics.median(seconds[who]), statistics.median(cpu[who])
    difference = max(abs(a - b) for a, b in zip(stats[who], stats["Tessera"]))
    print(f"| {who} | {s:.2f} | {c:.2f} | {s / ours:.1f} x | {c / our_cpu:.1f} x | {stats[who][0]:.6f} | {difference:.1e} |")
print("\nTessera's time includes the evaluation of the boxes from the same files.")
