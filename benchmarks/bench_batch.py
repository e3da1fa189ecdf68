"""A large file through the service, as `edge-ai score` sends it, beside what the service scores at best.

The file is read, checked, turned into features, sent and moved; at best means prepared requests of the same
size, sent by as many threads. Both write every score to disk before it is answered.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import measure
import numpy as np
import pandas as pd
from scoring.release import NAMES, build, rows

from edge_ai_assets import usecase
from edge_ai_assets.home import SiteHome
from edge_ai_assets.scoring import batch, slices
from edge_ai_assets.scoring.client import Client

ROWS, SITE = 1_000_000, "bench"
USECASE = f"""
name: bench
description: Eight numbers, as the peers of the scoring benchmark get them.
runs: {{column: run}}
features: [{", ".join(f'{{name: "{name}"}}' for name in NAMES)}]
label: {{column: fault, positive: [1]}}
egress: {{kinds: []}}
sites: [{{name: {SITE}}}]
"""


@contextmanager
def serving(folder: Path) -> Iterator[Client]:
    build(folder / "release")
    command = [sys.executable, "-m", "edge_ai_assets.scoring.serve", "--site", SITE, "--port", "0"]
    command += ["--release", str(folder / "release"), "--outbox", str(folder / "outbox.db")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            host, port = json.loads(process.stderr.readline())["addresses"][0]
            with Client(f"http://{host}:{port}") as client:
                yield client  # it listens: a first request waits until it is ready
        finally:
            process.terminate()


def main() -> None:
    case, made = usecase.loads(USECASE), rows(ROWS, seed=5)
    frame = pd.DataFrame(made, columns=list(NAMES)).assign(run=np.arange(ROWS) // 10_000, fault="")
    numbers = count()
    with measure.scratch() as folder, serving(folder) as client:
        site = SiteHome(folder / SITE)
        context = frame.rename(columns={"run": "_run"}).astype({"_run": str})
        context = context.assign(_time=pd.NaT, _row=np.arange(ROWS))[[*NAMES, "_time", "_run", "_row"]]
        tables = [table for _, _, table in slices.tables(context, batch.CUT.slice)]

        def prepared() -> None:
            number = next(numbers)
            with ThreadPoolExecutor(batch.IN_FLIGHT) as threads:
                keys = (f"prepared/{number}/{place}" for place in range(len(tables)))
                done = threads.map(lambda table, key: client.score_table(table, key=key), tables, keys)
                assert sum(len(answer.scores) for answer in done) == ROWS

        def file(path: Path) -> None:
            scored = batch.score_file(path, usecase=case, site=site, client=client)
            assert scored.scored == ROWS

        ways = {
            "prepared requests": prepared,
            "CSV": lambda: file(site.readings / f"{number}.csv"),
            "Parquet": lambda: file(site.readings / f"{number}.parquet"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(measure.ROUNDS):
            site.readings.mkdir(parents=True, exist_ok=True)
            marked = frame.assign(fault=number)  # a file that was scored is not scored again
            marked.to_csv(site.readings / f"{number}.csv", index=False)
            marked.to_parquet(site.readings / f"{number}.parquet", index=False)
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - began)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    best = median["prepared requests"]
    measure.tell(
        f"{ROWS:,} rows through the service",
        {f"{name}, rows/s": ROWS / found for name, found in median.items()},
        {f"{name} to prepared requests": best / median[name] for name in ("CSV", "Parquet")},
    )


if __name__ == "__main__":
    main()
