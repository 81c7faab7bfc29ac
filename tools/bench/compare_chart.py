# SPDX-License-Identifier: MIT
"""An SVG chart of what tools/bench/compare measured: a bar for each engine, its length the share of what the machine can do
(read bandwidth for decode, arithmetic peak for prefill). Readable on light and dark grounds, no script, no font of its own."""
import math
from xml.sax.saxutils import escape

from compare_table import share, speeds, threads_of, title

COLOURS = ["#d9480f", "#1c7ed6", "#2b8a3e", "#ae3ec9", "#868e96", "#e8a800"]
WIDTH, LEFT, RIGHT, BAR, GAP = 860, 250, 130, 13, 12
AIMS = {"decode": 0.88}


def panel(s, test, top, lines):
    """Appends one panel's elements; returns where the next may begin."""
    groups = [(f, t) for f in s.of("file", test=test) for t in threads_of(s, f, test)]
    bars = {(f, t, e): share(s, f, e, t, test) for f, t in groups for e in s.engines()}
    longest = max([1.0] + [v for v in bars.values() if not math.isnan(v)])
    scale = (WIDTH - LEFT - RIGHT) / longest
    name = test.partition("@")[0]
    what = "share of the read bandwidth" if name == "decode" else "share of the arithmetic peak"
    lines.append(f'<text x="8" y="{top + 16}" class="title">{escape(title(test))}: {what}</text>')
    y = first = top + 44
    body = []
    for f, t in groups:
        present = [e for e in s.engines() if not math.isnan(bars[f, t, e])]
        middle = y + BAR * len(present) / 2 + 4
        body.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" class="label">{escape(f)}, {t} thread{"s" * (t != "1")}</text>')
        for e in present:
            v, colour = bars[f, t, e], COLOURS[s.engines().index(e) % len(COLOURS)]
            body.append(f'<rect x="{LEFT}" y="{y}" width="{v * scale:.1f}" height="{BAR - 2}" fill="{colour}"/>')
            body.append(f'<text x="{LEFT + v * scale + 5:.1f}" y="{y + BAR - 3}" class="value">{100 * v:.0f} %, '
                        f'{s.median(f, e, t, test):.1f} t/s</text>')
            y += BAR
        y += GAP
    for tick in range(0, int(100 * longest) + 1, 20):
        x = LEFT + tick / 100 * scale
        lines.append(f'<line x1="{x:.1f}" y1="{first - 6}" x2="{x:.1f}" y2="{y - GAP + 4}" class="grid"/>')
        lines.append(f'<text x="{x:.1f}" y="{first - 10}" class="tick">{tick} %</text>')
    if name in AIMS:
        x = LEFT + AIMS[name] * scale
        lines.append(f'<line x1="{x:.1f}" y1="{first - 6}" x2="{x:.1f}" y2="{y - GAP + 4}" class="aim"/>')
    lines += body
    return y + 16


def svg(s):
    lines, top, x = [], 40, 8
    for i, e in enumerate(s.engines()):
        lines.append(f'<rect x="{x}" y="12" width="12" height="12" fill="{COLOURS[i % len(COLOURS)]}"/>')
        lines.append(f'<text x="{x + 17}" y="22">{escape(e)}</text>')
        x += 40 + 8 * len(e)
    for test in speeds(s):
        top = panel(s, test, top, lines)
    style = ("text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:14px;font-weight:600}.label{text-anchor:end}"
             ".tick{font-size:10px;text-anchor:middle}.value{font-size:10px}.grid{stroke:#8c959f;stroke-opacity:.3}"
             ".aim{stroke:#8c959f;stroke-dasharray:4 3}"
             "@media(prefers-color-scheme:dark){text{fill:#e6edf3}}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">\n'
            f'<style>{style}</style>\n' + "\n".join(lines) + "\n</svg>\n")
