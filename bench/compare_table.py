"""Table of medians, and a bar chart, from the lines that compare.sh gathers; the standard library only.

compare_table.py LINES BATCH [CHART.svg]     BATCH: of training; a line: scale, precision, JSON object
"""

import collections
import html
import json
import statistics
import sys

OURS = "Tessera"
COLOURS = {OURS: "#2a6fbb", "bound": "#d8d8d8"}


def gather(path, batch):
    """(scale, precision, what) -> who -> [JSON objects, one a round]"""
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in open(path):
        scale, precision, text = line.split(" ", 2)
        r = json.loads(text)
        what = f"training step, batch {batch}" if "step" in r["what"] else "inference, batch 1"
        groups[scale, precision, what][r.get("peer", OURS)].append(r)
    return groups


def median(rounds, *keys):
    """Median of the first of `keys` that the objects have; None without any."""
    values = [next((r[k] for k in keys if k in r), None) for r in rounds]
    return statistics.median(values) if values and None not in values else None


def correct_bounds(groups):
    """A peak that was measured while something else ran is too low: the best one of a precision counts for all its rows."""
    best = collections.defaultdict(float)
    ours = [(precision, r) for (_, precision, _), by_who in groups.items() for r in by_who.get(OURS, [])]
    for precision, r in ours:
        best[precision] = max(best[precision], r["peak_gflops"])
    for precision, r in ours:
        r["bound_images_per_s"] *= best[precision] / r["peak_gflops"]
    return best


def table(groups, peaks):
    yield "| 640 px, 2 threads | who | images/s, median (rounds) | of the bound | Tessera is | peak MiB |"
    yield "|---|---|---|---|---|---|"
    for (scale, precision, what), by_who in groups.items():
        ours = median(by_who.get(OURS, []), "images_per_s")
        bound = median(by_who.get(OURS, []), "bound_images_per_s")
        for who, rounds in by_who.items():
            rate = median(rounds, "images_per_s")
            each = ", ".join(f"{r['images_per_s']:.2f}" for r in rounds)
            share = f"{100 * rate / bound:.0f} %" if bound else ""
            ratio = f"{ours / rate:.2f} x" if ours and who != OURS else ""
            yield f"| {scale}, {precision}, {what} | {who} | {rate:.2f} ({each}) | {share} | {ratio} | {median(rounds, 'peak_rss_mib', 'peak_mib'):.0f} |"
    yield ""
    yield "Multiply-add peak measured beside it: " + ", ".join(f"{p} {v:.0f} GFLOP/s" for p, v in peaks.items()) + "."


def bar_chart(groups):
    """Bars of each program inside the bar of the bound, one block for each measurement."""
    left, width, bar, gap = 330, 420, 18, 14
    lines, y = [], gap
    for (scale, precision, what), by_who in groups.items():
        bound = median(by_who.get(OURS, []), "bound_images_per_s")
        most = max([bound or 0] + [median(r, "images_per_s") for r in by_who.values()])
        lines.append(f'<text x="8" y="{y + 13}" font-weight="bold">{html.escape(f"{scale}, {precision}, {what}")}</text>')
        y += bar + 2
        for who, rounds in by_who.items():
            rate = median(rounds, "images_per_s")
            if bound:
                lines.append(f'<rect x="{left}" y="{y}" width="{width * bound / most:.1f}" height="{bar - 3}" fill="{COLOURS["bound"]}"/>')
            lines.append(f'<rect x="{left}" y="{y}" width="{width * rate / most:.1f}" height="{bar - 3}" fill="{COLOURS.get(who, "#e08a3c")}"/>')
            lines.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{html.escape(who)}</text>')
            lines.append(f'<text x="{left + width + 8}" y="{y + 12}">{rate:.2f} images/s</text>')
            y += bar
        y += gap
    lines.append(f'<text x="8" y="{y + 12}" fill="#666">grey: operations of the plain sum over the multiply-add peak measured beside it; Winograd takes fewer</text>')
    size = f'width="{left + width + 130}" height="{y + 24}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n' + \
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(lines) + "\n</svg>\n"


def main():
    groups = gather(sys.argv[1], sys.argv[2])
    peaks = correct_bounds(groups)
    print("\n".join(table(groups, peaks)))
    if len(sys.argv) > 3:
        with open(sys.argv[3], "w") as f:
            f.write(bar_chart(groups))


main()
