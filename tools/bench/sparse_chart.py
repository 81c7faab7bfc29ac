# SPDX-License-Identifier: MIT
"""What tools/bench/sparse's surface looks like: a panel for each weight type, a line for each overlap, number of threads and
setting: speed over that of `--sparsity off`, by density. Readable on light and dark grounds, no script, no font of its own."""
import math
import statistics

COLOURS = ["#d9480f", "#1c7ed6", "#2b8a3e", "#ae3ec9", "#868e96", "#e8a800"]
WIDTH, HEIGHT, LEFT, TOP, ACROSS = 400, 250, 50, 40, 2


def ratios(samples):
    """{(type, overlap, threads, mode): {density in percent: median of speed over off's, round by round}}"""
    grid = {}
    for name in samples.of("file"):
        words = name.split(" ")
        if len(words) != 4:
            continue
        _, kind, density, overlap = words
        for threads in samples.of("threads", file=name):
            off = samples.values(name, "off", threads, "decode")
            for mode in samples.of("engine", file=name, threads=threads):
                v = samples.values(name, mode, threads, "decode")
                if mode != "off" and v and len(v) == len(off):
                    middle = statistics.median(a / b for a, b in zip(v, off))
                    grid.setdefault((kind, overlap, threads, mode), {})[float(density)] = middle
    return grid


def panel(kind, lines, x0, y0, most, out):
    def place(density, ratio):
        return (x0 + LEFT + density / 100 * (WIDTH - LEFT - 20),
                y0 + TOP + (1 - math.log(ratio / 0.8) / math.log(most / 0.8)) * (HEIGHT - TOP - 40))
    out.append(f'<text x="{x0 + LEFT}" y="{y0 + 24}" class="title">{kind}</text>')
    for ratio in [r for r in (0.8, 1, 1.5, 2, 3, 4, 6) if r <= most]:
        (a, y), (b, _) = place(0, ratio), place(100, ratio)
        out.append(f'<line x1="{a:.1f}" y1="{y:.1f}" x2="{b:.1f}" y2="{y:.1f}" class="{"one" if ratio == 1 else "grid"}"/>')
        out.append(f'<text x="{a - 6:.1f}" y="{y + 4:.1f}" class="left">{ratio:g}</text>')
    for density in range(0, 101, 20):
        x, y = place(density, 0.8)
        out.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" class="tick">{density} %</text>')
    for colour, row in lines:
        points = [place(d, min(max(v, 0.8), most)) for d, v in sorted(row.items())]
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="'
                   + " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + '"/>')


def svg(grid):
    kinds = list(dict.fromkeys(k[0] for k in grid))
    series = list(dict.fromkeys(k[1:] for k in grid))
    most = max([1.5] + [v for row in grid.values() for v in row.values()]) * 1.05
    out, x = [], 8
    for i, (overlap, threads, mode) in enumerate(series):
        text = f"{mode}, overlap {overlap} %, {threads} thread{'s' * (threads != '1')}"
        out.append(f'<rect x="{x}" y="12" width="12" height="12" fill="{COLOURS[i % len(COLOURS)]}"/>'
                   f'<text x="{x + 17}" y="22">{text}</text>')
        x += 40 + 6 * len(text)
    out.append('<text x="8" y="46">speed over that of computing every neuron, by share of neurons active (planted)</text>')
    for n, kind in enumerate(kinds):
        lines = [(COLOURS[series.index(k[1:]) % len(COLOURS)], row) for k, row in grid.items() if k[0] == kind]
        panel(kind, lines, n % ACROSS * WIDTH, 50 + n // ACROSS * HEIGHT, most, out)
    width, height = max(ACROSS * WIDTH, x), 50 + -(-len(kinds) // ACROSS) * HEIGHT
    style = ("text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:14px;font-weight:600}.left{text-anchor:end}"
             ".tick{font-size:10px;text-anchor:middle}.grid{stroke:#8c959f;stroke-opacity:.3}"
             ".one{stroke:#8c959f;stroke-dasharray:4 3}@media(prefers-color-scheme:dark){text{fill:#e6edf3}}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
            f'<style>{style}</style>\n' + "\n".join(out) + "\n</svg>\n")
