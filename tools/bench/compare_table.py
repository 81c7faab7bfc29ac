# SPDX-License-Identifier: MIT
"""The samples of tools/bench/compare: their CSV, medians and ranges, ratios and shares, and tables of them.

One line of the CSV is one measured figure: time, round, file, engine, threads, test, value. What is not an engine's is the
probe's (engine "probe") or the file's (engine "file"). Lines that begin with # tell the machine and the command.
"""
import csv
import math
import os
import statistics

COLUMNS = ["time", "round", "file", "engine", "threads", "test", "value"]
WIDE = 0.2  # a range wider than this share of its median is marked: the machine was not at rest


class Samples:
    """All figures of a CSV; engines, files and threads in the order of their first line."""

    def __init__(self):
        self.lines, self.notes = [], []

    @staticmethod
    def load(path):
        s = Samples()
        if os.path.exists(path):
            with open(path, newline="", encoding="utf-8") as f:
                lines = f.read().splitlines()
            s.notes = [x[1:].strip() for x in lines if x.startswith("#")]
            for row in csv.DictReader(x for x in lines if x and not x.startswith("#")):
                if any(row.get(c) is None for c in COLUMNS):
                    raise ValueError(f"{path} is not a file of tools/bench/compare")
                s.lines.append(row)
        return s

    def save(self, path):
        """Through a temporary name, so that a run that is broken off leaves the rounds before it."""
        with open(path + ".part", "w", newline="", encoding="utf-8") as f:
            for note in self.notes:
                f.write(f"# {note}\n")
            w = csv.DictWriter(f, COLUMNS, lineterminator="\n")
            w.writeheader()
            w.writerows(self.lines)
        os.replace(path + ".part", path)

    def add(self, when, number, file, engine, threads, test, value):
        if value is not None:
            value = f"{value:.6g}" if isinstance(value, float) else value
            row = (when, number, file, engine, threads, test, value)
            self.lines.append(dict(zip(COLUMNS, map(str, row))))  # text, as from a file

    def of(self, column, **where):
        found = {}
        for row in self.lines:
            if all(str(row[k]) == str(v) for k, v in where.items()):
                found[row[column]] = True
        return list(found)

    def values(self, file, engine, threads, test):
        return [float(r["value"]) for r in self.lines
                if (r["file"], r["engine"], str(r["threads"]), r["test"]) == (file, engine, str(threads), test)]

    def median(self, file, engine, threads, test):
        v = self.values(file, engine, threads, test)
        return statistics.median(v) if v else math.nan

    def text(self, file, test):
        """What the file's own line says."""
        return next((r["value"] for r in self.lines if (r["file"], r["engine"], r["test"]) == (file, "file", test)), "")

    def number(self, file, test):
        t = self.text(file, test)
        return float(t) if t else math.nan

    def rounds(self, file):
        return max((int(r["round"]) for r in self.lines if r["file"] == file), default=0)

    def engines(self):
        return [e for e in self.of("engine") if e not in ("probe", "file")]


def share(s, file, engine, threads, test):
    """Of the read bandwidth (decode) or of the arithmetic peak (prefill), both by the probe of the same rounds."""
    speed = s.median(file, engine, threads, test)
    name, _, depth = test.partition("@")
    if name == "decode":
        read = s.number(file, "bytes_per_token")
        if depth:
            read += (float(depth) + s.number(file, "tokens") / 2) * s.number(file, "kv_bytes_per_token")
        return speed * read / s.median(file, "probe", threads, "bandwidth")
    if name == "prefill":
        peak = "f32_peak" if s.text(file, "weights") in ("F32", "F16", "BF16") else "int8_peak"
        return speed * 2 * s.number(file, "macs_per_token") / s.median(file, "probe", threads, peak)
    return math.nan


def percent(x):
    return "-" if math.isnan(x) else f"{100 * x:.0f} %"


def ranged(s, file, engine, threads, test, scale=1.0, digits=1):
    """median (least-most), ~ before it where the range is wide."""
    v = [scale * x for x in s.values(file, engine, threads, test)]
    if not v:
        return "-"
    m = statistics.median(v)
    wide = "~" if max(v) - min(v) > WIDE * m else ""
    return f"{wide}{m:.{digits}f} ({min(v):.{digits}f}-{max(v):.{digits}f})"


def ratio(s, file, threads, test, other):
    first = s.engines()[0]
    r = s.median(file, first, threads, test) / s.median(file, other, threads, test)
    return "-" if math.isnan(r) else f"{r:.2f} x"


def threads_of(s, file, test):
    return [t for t in s.of("threads", file=file, test=test) if t]


def speeds(s):
    """decode, decode@DEPTH …, prefill: those that were measured."""
    return sorted(t for t in s.of("test") if t.partition("@")[0] in ("decode", "prefill"))


def title(test):
    name, _, depth = test.partition("@")
    return name.capitalize() + (f" after {depth} tokens" if depth else "")


def speed_rows(s, test):
    """Decode or prefill: a row for each file and number of threads."""
    engines = s.engines()
    name = test.partition("@")[0]
    head = ["file", "threads", f"{engines[0]} t/s"]
    if name == "decode":
        head += ["GB/s", "of bandwidth"]
    else:
        head += ["of peak"]
    for e in engines[1:]:
        head += [f"{e} t/s", "share", "ratio"]
    rows = []
    for file in s.of("file", test=test):
        for t in threads_of(s, file, test):
            row = [file, t, ranged(s, file, engines[0], t, test)]
            part = share(s, file, engines[0], t, test)
            if name == "decode":
                row.append(f"{1e-9 * part * s.median(file, 'probe', t, 'bandwidth'):.1f}")
            row.append(percent(part))
            for e in engines[1:]:
                row += [ranged(s, file, e, t, test), percent(share(s, file, e, t, test)), ratio(s, file, t, test, e)]
            rows.append(row)
    return head, rows


def either(s, column, **where):
    """Of the lines about start or memory."""
    return list(dict.fromkeys(s.of(column, test="start_s", **where) + s.of(column, test="resident_bytes", **where)))


def memory_rows(s):
    engines = s.engines()
    rows = []
    for file in either(s, "file"):
        for t in either(s, "threads", file=file):
            row = [file, t]
            for e in engines:
                resident = s.median(file, e, t, "resident_bytes")
                held = s.number(file, "file_bytes") + sum(
                    x for x in (s.median(file, e, t, "kv_bytes"), s.median(file, e, t, "scratch_bytes")) if x == x)
                row += [ranged(s, file, e, t, "start_s", digits=2),
                        "-" if math.isnan(resident) else f"{resident / held:.2f}"]
            rows.append(row)
    head = ["file", "threads"]
    for e in engines:
        tells = s.of("file", engine=e, test="kv_bytes")
        head += [f"{e} start s", "resident / (file + KV + scratch)" if tells else "resident / file"]
    return head, rows


def company_rows(s):
    """Two processes at once, and one beside a process that is busy on one core: what is left of the speed alone."""
    rows = []
    for file in s.of("file"):
        for test, alone in (("decode+pair", "decode"), ("decode+busy", "decode"), ("prefill+busy", "prefill")):
            for t in threads_of(s, file, test):
                for e in s.engines():
                    kept = s.median(file, e, t, test) / s.median(file, e, t, alone)
                    if not math.isnan(kept):
                        rows.append([file, t, e, test, ranged(s, file, e, t, test), percent(kept)])
    return ["file", "threads", "engine", "test", "t/s", "of alone"], rows


def tables(s):
    """(title, head, rows) of everything that was measured."""
    found = []
    for test in speeds(s):
        found.append((title(test), *speed_rows(s, test)))
    if either(s, "file"):
        found.append(("Start and memory", *memory_rows(s)))
    company = company_rows(s)
    if company[1]:
        found.append(("In company", *company))
    return found


def plain(s):
    out = []
    for title, head, rows in tables(s):
        widths = [max(len(str(r[i])) for r in [head, *rows]) for i in range(len(head))]
        out.append(title)
        for row in [head, *rows]:
            out.append("  ".join(str(c).ljust(w) if i == 0 else str(c).rjust(w)
                                 for i, (c, w) in enumerate(zip(row, widths))).rstrip())
        out.append("")
    return "\n".join(out + [legend(s)])


def markdown(s):
    out = []
    for title, head, rows in tables(s):
        out += [f"{title}:", "", "| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
        out += ["| " + " | ".join(map(str, r)) + " |" for r in rows]
        out.append("")
    return "\n".join(out + [legend(s)])


def legend(s):
    """What the figures are, said once under the tables."""
    counts = [len(s.values(f, e, t, test)) for f in s.of("file") for e in s.engines()
              for test in ("decode", "prefill") for t in threads_of(s, f, test)]
    counts = [c for c in counts if c]
    n = f"{min(counts)} to {max(counts)}" if counts and min(counts) != max(counts) else str(max(counts, default=0))
    return (f"Medians of {n} interleaved samples (least-most); ~ marks a range wider than {percent(WIDE)} of its median: the "
            "machine was not at rest. GB/s: bytes read; bandwidth and peak are the outside probe's in the same rounds.")
