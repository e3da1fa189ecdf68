"""The scoring service's HTTP server against uvicorn and granian: one application behind each of them.

The same `App`, model and outbox, one worker each, side by side under wrk. Answers are compared with
onnxruntime's before, and each outbox must hold every row that was answered.

Why: a server of our own has to be hardened by us, so it must be worth that where every score is on disk
before it is answered (docs/adr/0004): at least 1.5 times the requests of the others.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from importlib.util import find_spec

import numpy as np
from measure import ROUNDS, scratch, tell
from scoring import bodies, candidates, release
from scoring.rounds import Asked, Cores, Pass
from scoring.server import ServerError, running

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.scoring.model import MODEL, Model

OURS, OTHERS = "protocol", ("uvicorn", "granian")
SECONDS = 3
FIGURES = {"requests": "requests/s", "cpu_us": "CPU µs", "p50_ms": "p50 ms, alone", "rows": "rows/s"}


def main() -> None:
    there = [name for name in OTHERS if find_spec(name)]
    for name in set(OTHERS) - set(there):
        _say(f"{name} is not installed, so not compared (pip install {name})")
    here = [str(core) for core in sorted(os.sched_getaffinity(0))]
    cores = Cores(",".join(here[:2]), ",".join(here[-2:])) if len(here) >= 4 else Cores("", "")
    _say(f"load average {os.getloadavg()[0]:.1f}; servers on cores {cores.servers or 'shared with wrk'}")
    with scratch() as folder, ExitStack() as stack:
        served, asked = folder / "release", []
        release.build(served)
        rows = release.rows(bodies.BATCHES * bodies.BATCH, seed=3)
        np.save(folder / "rows.npy", rows)
        scores = Model(served).score(rows.astype(np.float32))
        for name in (OURS, *there):
            outbox = folder / f"{name}.db"
            front = candidates.ours(name, served, outbox)
            if name != OURS:
                script = str(candidates.SERVERS / f"behind_{name}.py")
                front = front._replace(command=[sys.executable, script, "{port}", str(served), str(outbox)])
            given = bodies.write(front, rows, folder)
            assert given is not None
            server = stack.enter_context(running(front, given.first(), folder / name, cores.servers))
            bodies.check(server, given, scores)
            asked.append(Asked(server, given))
        rounds = Pass(asked, folder, SECONDS, cores, served / MODEL)
        rounds.warm_up()
        for _ in range(ROUNDS):
            rounds.round()
        for name, answered in rounds.rows_answered.items():
            with Outbox(folder / f"{name}.db") as kept:
                if kept.counts().scored < answered:
                    raise ServerError(f"{name} answered {answered} rows, its outbox holds {kept.counts()}")
        found = rounds.figures()
    figures = {
        f"{name}, {text}": getattr(found[name], key) for key, text in FIGURES.items() for name in found
    }
    ratios = {
        f"{key}_to_{name}": getattr(found[OURS], key) / getattr(found[name], key)
        for key in FIGURES
        for name in there
    }
    tell("fronts", figures | rounds.limits(), ratios)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
