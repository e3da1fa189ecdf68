"""The scoring service's HTTP server against two that others keep: one application behind each of them.

Our `asyncio.Protocol` as `edge-ai serve` runs it, uvicorn (httptools, uvloop, by ASGI) and, if it is
installed, granian (RSGI): the same `App`, model and outbox behind each, one worker each. They run at the
same time and wrk goes round them. Answers are compared with onnxruntime's first; in the end each outbox must
hold every row that was answered.

Why: a server of our own is ours to harden, so it has to be worth that where every score is on disk before it
is answered (docs/adr/0004): at least 1.5 times the requests of the others.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from measure import ROUNDS, scratch, tell
from scoring import bodies, candidates, release
from scoring.candidates import SERVERS, Candidate
from scoring.rounds import Asked, Cores, Pass
from scoring.server import ServerError, running

from edge_ai_assets.returns.outbox import Outbox
from edge_ai_assets.scoring.model import MODEL, Model

OURS = "protocol"
SECONDS = 3


def main() -> None:
    here = [str(core) for core in sorted(os.sched_getaffinity(0))]
    apart = len(here) >= 4 and shutil.which("taskset")  # else servers and wrk share the cores
    cores = Cores(",".join(here[:2]), ",".join(here[-2:])) if apart else Cores("", "")
    _say(f"the load average is {os.getloadavg()[0]:.1f} before the first server starts")
    with scratch() as folder, ExitStack() as stack:
        served = folder / "release"
        release.build(served)
        rows = release.rows(bodies.BATCHES * bodies.BATCH, seed=3)
        np.save(folder / "rows.npy", rows)
        scores = Model(served).score(rows.astype(np.float32))
        asked = []
        for front in _fronts(served, folder):
            given = bodies.write(front, rows, folder)
            assert given is not None
            server = stack.enter_context(running(front, given.first(), folder / front.name, cores.servers))
            bodies.check(server, given, scores)
            asked.append(Asked(server, given))
        rounds = Pass(asked, folder, SECONDS, cores, served / MODEL)
        rounds.warm_up()
        for number in range(ROUNDS):
            _say(f"round {number + 1} of {ROUNDS}")
            rounds.round()
        for name, answered in rounds.rows_answered.items():
            with Outbox(folder / f"{name}.db") as outbox:
                if (kept := outbox.counts().scored) < answered:
                    raise ServerError(f"{name} answered {answered} rows, its outbox holds {kept}")
        _tell(rounds)


def _fronts(served: Path, folder: Path) -> list[Candidate]:
    ours = candidates.ours(OURS, served, folder / f"{OURS}.db")
    fronts = [ours]
    for name in ("uvicorn", "granian"):
        if find_spec(name) is None:
            _say(f"{name} is not installed, so not compared (pip install {name})")
            continue
        script, outbox = SERVERS / f"behind_{name}.py", folder / f"{name}.db"
        command = [sys.executable, str(script), "{port}", str(served), str(outbox)]
        fronts.append(ours._replace(name=name, command=command))
    return fronts


def _tell(rounds: Pass) -> None:
    """Ratios of medians, ours / theirs; above 1 ours does more, or takes longer."""
    found = rounds.figures()
    names = {
        "requests": "requests/s",
        "cpu_us": "CPU µs/request",
        "p50_ms": "p50 ms, alone",
        "rows": "rows/s",
    }
    figures = {f"{name}: {names[f]}": getattr(found[name], f) for f in names for name in found}
    ratios = {
        f"{field}_to_{name}": getattr(found[OURS], field) / getattr(found[name], field)
        for field in names
        for name in found
        if name != OURS
    }
    tell("fronts", figures | rounds.limits(), ratios)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
