"""One pass: every server under every kind of load, round after round, with the limits in between."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scoring import load
from scoring.bodies import BATCH, Bodies
from scoring.candidates import SERVERS
from scoring.report import Figures
from scoring.server import Server

WARM_UP_SECONDS = 1
LIMIT_SECONDS = 0.5


class Cores(NamedTuple):
    """Where things run, as taskset takes it; "" for anywhere."""

    servers: str
    wrk: str


class Asked(NamedTuple):
    """A server and what it is posted; without bodies it gets GETs, in the first kind of load only."""

    server: Server
    bodies: Bodies | None


class Pass:
    """Runs of wrk on servers that are up.

    Args:
        folder: holds `rows.npy`, is on the disk whose fsync is measured.
        seconds: how long each run takes.
    """

    def __init__(self, asked: Sequence[Asked], folder: Path, seconds: int, cores: Cores, model: Path) -> None:
        self._asked, self._folder, self._seconds = asked, folder, seconds
        self._cores, self._model = cores, model
        self._runs: defaultdict[str, dict[str, list[load.Run]]] = defaultdict(lambda: defaultdict(list))
        self._limits: defaultdict[str, list[float]] = defaultdict(list)
        self.rows_answered: defaultdict[str, int] = defaultdict(int)
        """By server, in all runs; what was on its way when a run ended is not among them."""

    def warm_up(self) -> None:
        """A short run of each kind, which counts for nothing but `rows_answered`."""
        self._round(WARM_UP_SECONDS, keep=False)

    def round(self) -> None:
        """One run of each kind on each server, and the limits."""
        self._round(self._seconds, keep=True)

    def figures(self) -> dict[str, Figures]:
        """Medians over the rounds, by server."""
        return {asked.server.candidate.name: self._figures(asked) for asked in self._asked}

    def limits(self) -> dict[str, float]:
        """Medians over the rounds of what no server can beat."""
        return {name: statistics.median(values) for name, values in self._limits.items()}

    def _round(self, seconds: int, *, keep: bool) -> None:
        self._load("busy", seconds, connections=32, rows=1, keep=keep)
        self._load("batches", seconds, connections=8, rows=BATCH, keep=keep)
        if keep:
            self._measure_limits()  # between those two that are compared with them
        self._load("alone", seconds, connections=1, rows=1, keep=keep)

    def _load(self, kind: str, seconds: int, *, connections: int, rows: int, keep: bool) -> None:
        for server, bodies in self._asked:
            if bodies is None and kind != "busy":
                continue
            path = bodies and (bodies.one if rows == 1 else bodies.many)
            found = load.run(
                server.url,
                path,
                connections=connections,
                seconds=seconds,
                cores=self._cores.wrk,
                server=server.process,
            )
            name = server.candidate.name
            self.rows_answered[name] += found.requests * rows
            if keep:
                self._runs[name][kind].append(found)

    def _measure_limits(self) -> None:
        command = [sys.executable, str(SERVERS / "limits.py"), str(LIMIT_SECONDS), str(self._folder)]
        environment = {**os.environ, "BENCH_MODEL": str(self._model)}
        done = subprocess.run(
            load.pinned(self._cores.servers) + command, env=environment, stdout=subprocess.PIPE, check=True
        )
        found: Mapping[str, float] = json.loads(done.stdout)
        for name, value in found.items():
            self._limits[name].append(value)

    def _figures(self, asked: Asked) -> Figures:
        runs = self._runs[asked.server.candidate.name]
        busy = Figures(
            asked.server.candidate.kind,
            requests=statistics.median(run.per_second for run in runs["busy"]),
            cpu_us=statistics.median(run.cpu_us for run in runs["busy"]),
        )
        if asked.bodies is None:
            return busy
        return busy._replace(
            p50_ms=statistics.median(run.p50_ms for run in runs["alone"]),
            rows=statistics.median(run.per_second for run in runs["batches"]) * BATCH,
            memory_mb=load.memory_mb(asked.server.process),
        )
