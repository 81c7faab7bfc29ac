# SPDX-License-Identifier: MIT
"""What tools/bench/compare measures: engines that run a GGUF file, the outside probe, a synthetic file's figures.

An engine is a class with `label` and measure(), one process per call; a process is pinned to the CPUs it is given and its
peak resident memory is the kernel's own count.
"""
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time


class Failed(Exception):
    """An engine that did not do what it was asked; the text is for people."""


def cores():
    """One hardware thread of every core that this process may use."""
    chosen, seen = [], set()
    for cpu in sorted(os.sched_getaffinity(0)):
        path = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        try:
            with open(path, encoding="ascii") as f:
                siblings = f.read().strip()
        except OSError:
            siblings = str(cpu)
        if siblings not in seen:
            seen.add(siblings)
            chosen.append(cpu)
    return chosen


class Process:
    """A pinned process that runs; finish() waits for it."""

    def __init__(self, command, cpus):
        self.command, self.begin = command, time.monotonic()
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        try:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err,
                                          preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        except OSError as e:
            raise Failed(f"{command[0]}: {e.strerror}") from e

    def first_byte(self):
        """Seconds from the start to the first byte on stdout, looked for every half millisecond."""
        while not os.fstat(self.out.fileno()).st_size and self.child.poll() is None:
            time.sleep(0.0005)
        return time.monotonic() - self.begin

    def finish(self):
        """(stdout, seconds of wall time, peak resident bytes)."""
        resident = 0
        if self.child.returncode is None:
            _, status, usage = os.wait4(self.child.pid, 0)
            self.child.returncode = os.waitstatus_to_exitcode(status)
            resident = 1024 * usage.ru_maxrss
        seconds = time.monotonic() - self.begin
        texts = []
        for f in (self.out, self.err):
            f.seek(0)
            texts.append(f.read().decode(errors="replace"))
            f.close()
        if self.child.returncode:
            lines = texts[1].strip().splitlines()
            raise Failed(f"{os.path.basename(self.command[0])}: {lines[-1] if lines else self.child.returncode}")
        return texts[0], seconds, resident


def run(command, cpus):
    return Process(command, cpus).finish()


def help_of(command):
    """What a program says of its flags, on whichever stream."""
    try:
        r = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    except OSError as e:
        raise Failed(f"{command[0]}: {e.strerror}") from e
    return r.stdout + r.stderr


class Hearth:
    """This engine: `hearth bench`, and `hearth run` for the time to the first token."""

    def __init__(self, label, command):
        self.label, self.command = label, shlex.split(command)
        known = help_of([self.command[0], "help", "bench"])
        self.quick = ["--quick"] if "--quick" in known else []
        self.has_depth = "--depth" in known

    def bench(self, path, threads, prompt, tokens, depth):
        if depth and not self.has_depth:
            raise Failed(f"{self.label} has no --depth")
        return [self.command[0], "bench", path, "-p", str(prompt), "-n", str(tokens), "-r", "1", "--threads", str(threads),
                "--json", "--quiet", *self.quick, *(["--depth", str(depth)] if depth else []), *self.command[1:]]

    @staticmethod
    def read(out):
        row = json.loads(out)[0]
        return {"prefill": row["prompt_tokens_per_s"], "decode": row["decode_tokens_per_s"],
                "bytes_per_token": row["weight_bytes_per_token"], "kv_bytes": row["kv_bytes"],
                "scratch_bytes": row.get("scratch_bytes")}

    def start(self, path, threads, cpus):
        p = Process([self.command[0], "run", path, "-p", "Hello", "-n", "1", "--temp", "0", "--threads", str(threads),
                     "--quiet", *self.command[1:]], cpus)
        seconds = p.first_byte()
        p.finish()
        return seconds


class LlamaBench:
    """llama-bench of llama.cpp and of those that grew from it."""

    def __init__(self, label, command):
        self.label, self.command = label, shlex.split(command)
        known = help_of([self.command[0], "--help"])
        self.depth = "-d" if "--n-depth" in known else "-gp" if "-gp" in known else None
        self.cold = ["--no-warmup"] if "--no-warmup" in known else ["-w", "0"]

    def bench(self, path, threads, prompt, tokens, depth):
        args = ["-p", str(prompt), "-n", str(tokens)]
        if depth and self.depth == "-d":
            args += ["-d", str(depth)]
        elif depth and self.depth:
            args = ["-p", "0", "-n", "0", "-gp", f"{depth},{tokens}"]
        elif depth:
            raise Failed(f"{self.label} has no flag for a depth")
        return [self.command[0], "-m", path, "-t", str(threads), "-r", "1", "-o", "json", *args, *self.command[1:]]

    @staticmethod
    def read(out):
        found = {}
        for row in json.loads(out[out.index("["):]):
            found["decode" if int(row["n_gen"]) else "prefill"] = row["avg_ts"]
        return found

    def start(self, path, threads, cpus):
        """The whole of a process that makes one token: nothing tells when its first one is there."""
        command = [self.command[0], "-m", path, "-t", str(threads), "-r", "1", "-o", "json", "-p", "0", "-n", "1",
                   *self.cold, *self.command[1:]]
        p = Process(command, cpus)
        return p.finish()[1]


# Run by another Python, one that has llama_cpp. A first token of each half warms it up, as the others are.
LLAMA_CPP_PYTHON = """
import json, sys, time
from llama_cpp import Llama
path, threads, prompt, tokens, depth = sys.argv[1], *map(int, sys.argv[2:6])
m = Llama(path, n_threads=threads, n_threads_batch=threads, n_ctx=max(prompt, depth + tokens + 1) + 8, n_batch=2048,
          verbose=False)
ids = [(1103515245 * i + 12345) % m.n_vocab() for i in range(max(prompt, depth, 1))]
found = {}
m.eval(ids[:1])
if prompt:
    m.reset()
    begin = time.perf_counter()
    m.eval(ids[:prompt])
    found['prefill'] = prompt / (time.perf_counter() - begin)
if tokens:
    m.reset()
    m.eval(ids[:max(depth, 1)])
    begin = time.perf_counter()
    for _ in range(tokens):
        m.eval([m.sample(temp=0)])
    found['decode'] = tokens / (time.perf_counter() - begin)
print(json.dumps(found))
"""


class LlamaCppPython:
    """The llama-cpp-python package, by a Python that can import it."""

    def __init__(self, label, command):
        self.label, self.command = label, shlex.split(command)
        if subprocess.run([*self.command, "-c", "import llama_cpp"], capture_output=True, check=False).returncode:
            raise Failed(f"{command} cannot import llama_cpp")

    def bench(self, path, threads, prompt, tokens, depth):
        return [*self.command, "-c", LLAMA_CPP_PYTHON, path, *map(str, (threads, prompt, tokens, depth))]

    @staticmethod
    def read(out):
        return json.loads(out)

    def start(self, path, threads, cpus):
        p = Process(self.bench(path, threads, 0, 1, 0), cpus)
        return p.finish()[1]


def sample(engine, path, threads, cpus, prompt, tokens, depth=0):
    """Figures of one process: prefill and decode in tokens/s, peak resident bytes, and what else the engine tells."""
    out, _, resident = run(engine.bench(path, threads, prompt, tokens, depth), cpus)
    try:
        found = engine.read(out)
    except (ValueError, KeyError, IndexError) as e:
        raise Failed(f"{engine.label}: its output was not understood ({e!r})") from e
    found["resident_bytes"] = resident
    return found


def pair(engine, path, threads, cpus, tokens):
    """Tokens/s of two processes that decode at the same time on the same CPUs, together."""
    both = []
    try:
        both += [Process(engine.bench(path, threads, 0, tokens, 0), cpus)]
        both += [Process(engine.bench(path, threads, 0, tokens, 0), cpus)]
        return sum(engine.read(p.finish()[0])["decode"] for p in both)
    finally:
        for p in both:
            if p.child.returncode is None:
                p.child.kill()
                p.child.wait()


def beside_busy(engine, path, threads, cpus, prompt, tokens):
    """As sample(), with a process that computes without end on the last of the CPUs."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"],
                            preexec_fn=lambda: os.sched_setaffinity(0, cpus[-1:]))
    try:
        return sample(engine, path, threads, cpus, prompt, tokens)
    finally:
        busy.kill()
        busy.wait()


def probe(program, threads, cpus, peaks, mib):
    """Bandwidth in bytes/s and peaks in operations/s for one number of threads, by hearth-probe."""
    command = [program, "--threads", str(threads), "--cpus", ",".join(map(str, cpus)), "--passes", "3", "--mib", str(mib)]
    out, _, _ = run(command + (["--peaks"] if peaks else []), cpus)
    row = json.loads(out)["threads"][0]
    found = {"bandwidth": row["sequential"]["bytes_per_s"]}
    for name in ("int8", "f32"):
        if name in row:
            found[name + "_peak"] = row[name]["ops_per_s"]
    return found


def file_figures(hearth, path):
    """What shares are made of, read from the file: its bytes, multiply-adds per token of a prompt, the type of its
    weights, bytes of keys and values (f16) per token."""
    listing = subprocess.run([hearth.command[0], "inspect", path, "--json", "--quiet"], capture_output=True, text=True,
                             check=False)
    if listing.returncode:
        raise Failed(f"{path}: {listing.stderr.strip()}")
    j = json.loads(listing.stdout)
    meta = {m["key"]: m.get("value") for m in j["metadata"]}
    arch = meta["general.architecture"]
    experts, used = meta.get(f"{arch}.expert_count") or 1, meta.get(f"{arch}.expert_used_count") or 1
    macs, by_type = 0, {}
    for t in j["tensors"]:
        if not t["name"].startswith("blk.") or len(t["shape"]) < 2:
            continue
        macs += t["elements"] * used / experts if "_exps" in t["name"] else t["elements"]
        by_type[t["type"]] = by_type.get(t["type"], 0) + t["bytes"]
    heads = meta.get(f"{arch}.attention.head_count") or 1
    kv_heads = meta.get(f"{arch}.attention.head_count_kv") or heads
    length = meta.get(f"{arch}.attention.key_length") or meta[f"{arch}.embedding_length"] // heads
    kv = 0 if isinstance(kv_heads, list) else 4 * meta[f"{arch}.block_count"] * kv_heads * length
    return {"file_bytes": j["bytes"], "macs_per_token": round(macs), "weights": max(by_type, key=by_type.get),
            "kv_bytes_per_token": kv}
