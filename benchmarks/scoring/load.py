"""Load on one server: what wrk counts, and what the server's processes use meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

SCRIPT = Path(__file__).with_name("rows.lua")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


class LoadError(RuntimeError):
    """A run that measured nothing: answers failed, or wrk did."""


class Run(NamedTuple):
    """One run of wrk."""

    requests: int
    per_second: float
    p50_ms: float
    cpu_us: float
    """CPU time of the server's processes, user and system, µs a request."""


def run(url: str, bodies: Path | None, *, connections: int, seconds: int, cores: str, server: int) -> Run:
    """Load `url` for a while.

    Args:
        url: loopback address; posts go there, or GETs without bodies.
        bodies: one JSON body a line, sent in turn.
        seconds: a whole number, wrk knows no other.
        cores: where wrk runs, as taskset takes it; "" for anywhere.
        server: process whose tree serves.

    Raises:
        LoadError: an answer was no 2xx, a connection failed, or wrk did.
    """
    threads = min(2, connections)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    command += ["-s", str(SCRIPT), url, *(["--", str(bodies)] if bodies else [])]
    before = cpu_seconds(server)
    done = subprocess.run([*pinned(cores), *command], capture_output=True, text=True, check=False)
    used = cpu_seconds(server) - before
    if done.returncode:
        raise LoadError(f"wrk failed on {url}: {done.stderr.strip() or done.stdout.strip()}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found["not_ok"] or found["broken"] or not found["requests"]:
        raise LoadError(
            f"{url}: of {found['requests']} answers {found['not_ok']} were no 2xx, "
            f"{found['broken']} connections failed"
        )
    requests: int = found["requests"]
    return Run(requests, requests / found["seconds"], found["p50_ms"], used / requests * 1e6)


def pinned(cores: str) -> list[str]:
    """What a command begins with to run on these cores."""
    return ["taskset", "-c", cores] if cores else []


def cpu_seconds(root: int) -> float:
    """User and system time of a process and all that descend from it."""
    return sum(int(fields[11]) + int(fields[12]) for fields in _tree(root).values()) / TICKS


def memory_mb(root: int) -> float:
    """Resident memory of a process and all that descend from it; what they share counts for each."""
    return sum(int(fields[21]) for fields in _tree(root).values()) * PAGE_MB


def processes(root: int) -> list[int]:
    """A process and all that descend from it, as far as they live."""
    return list(_tree(root))


def _tree(root: int) -> dict[int, list[str]]:
    """Fields of /proc/PID/stat from the third on, of a process and its descendants."""
    found: dict[int, list[str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                # The second field, the name in parentheses, may hold spaces.
                found[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
    tree: dict[int, list[str]] = {}
    waiting = [root]
    while waiting:
        process = waiting.pop()
        if process in found:
            tree[process] = found[process]
            waiting += [child for child, fields in found.items() if int(fields[1]) == process]
    return tree
