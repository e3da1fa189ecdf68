"""Features of many readings: DuckDB in one process beside Spark on the same cores, by the same SQL.

Each way runs in a process of its own, from Parquet files to Parquet files, and tells its seconds and the most
memory that it held; Spark's session is there before its clock starts. One machine is DuckDB's ground: it wins
in seconds and in memory at every size, and by more where windows are wide. Spark gains by the number of
machines; what it costs on one of them is shown, how it gains by more is not.

`--rows 100000000` for another number than 1 and 10 million.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import measure
import numpy as np
import pandas as pd

from edge_ai_assets.ml import duckdb_features, feature_plan, spark_features, training_set
from edge_ai_assets.usecase import BUNDLED, load

USECASE = load(BUNDLED / "pump-station.yaml")
FILE, RUN = 1_000_000, 5_000
"""Rows of a file, and of a run."""
CORES = str(min(4, os.cpu_count() or 1))


def land(raw: Path, rows: int) -> None:
    """Canonical readings, whole runs a file: numbers that wander, a category, a label."""
    raw.mkdir()
    for number in range(rows // FILE):
        rng = np.random.default_rng(number)
        place = np.arange(FILE)
        run = number * (FILE // RUN) + place // RUN
        frame = pd.DataFrame(
            {
                "_site": np.array(["bergen", "narvik", "tromso"], object)[run % 3],
                "_run": np.char.mod("shift %06d", run).astype(object),
                "_row": place % RUN,
                "_time": (run * 86_400_000_000 + place % RUN * 1_000_000).astype("datetime64[us]"),
            }
        )
        for feature in USECASE.numbers:
            low, high = feature.range or (0, 1)
            frame[feature.name] = (low + high) / 2 + rng.normal(0, (high - low) / 50, FILE).round(3)
        frame["Pump type"] = np.array(["centrifugal", "screw"], object)[run % 2]
        frame["_label"] = pd.array(rng.random(FILE) < 0.1, "boolean")
        frame.to_parquet(raw / f"{number:06d}.parquet", index=False)


def duckdb(raw: Path, out: Path) -> tuple[float, float]:
    began = time.perf_counter()
    duckdb_features.make(raw, USECASE, out)
    return time.perf_counter() - began, _peak(os.getpid())


def whole(raw: Path, out: Path) -> tuple[float, float]:
    """The whole training set: features, split, sorted, named by its content."""
    began = time.perf_counter()
    training_set.make(raw, out / "tables", USECASE, out)
    return time.perf_counter() - began, _peak(os.getpid())


def spark(raw: Path, out: Path) -> tuple[float, float]:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(f"local[{CORES}]").config("spark.ui.enabled", "false")
    session = builder.config("spark.driver.memory", "4g").config("spark.driver.host", "127.0.0.1")
    session = session.config("spark.local.dir", str(out.parent)).getOrCreate()
    session.range(10).count()
    plan = feature_plan.plan(USECASE, [file.name for file in raw.glob("*.parquet")], quote="`")
    began = time.perf_counter()
    spark_features.run(session, plan.text, str(raw), str(out))
    seconds = time.perf_counter() - began
    return seconds, _peak(session.sparkContext._gateway.proc.pid)  # type: ignore[union-attr]


WAYS = {"DuckDB": duckdb, "Spark": spark, "training set": whole}


def _peak(process: int) -> float:
    """MB that a process held at most."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(kilobytes) / 1024


def _alone(way: str, raw: Path, out: Path) -> tuple[float, float]:
    command = [sys.executable, __file__, "--way", way, "--raw", str(raw), "--out", str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def main(sizes: list[int]) -> None:
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    ways = list(WAYS)
    if not (find_spec("pyspark") and shutil.which("java")):
        ways.remove("Spark")
        sys.stderr.write("Spark is not installed, and not measured: pip install '.[spark]', and Java 17\n")
    for rows in sizes:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        with measure.scratch() as folder:
            land(folder / "raw", rows)
            for number in range(measure.ROUNDS if rows <= FILE else 1):
                for name in ways:
                    out = folder / f"{name} {number}".replace(" ", "-")
                    found[name].append(_alone(name, folder / "raw", out))
                    shutil.rmtree(out)
        size = f"{rows // FILE}M rows"
        seconds = {name: statistics.median(each for each, _ in all_) for name, all_ in found.items()}
        for name in ways:
            figures[f"{name}, {size}, s"] = seconds[name]
            figures[f"{name}, {size}, peak MB"] = statistics.median(each for _, each in found[name])
        if "Spark" in ways:
            ratios[f"Spark to DuckDB, {size}"] = seconds["Spark"] / seconds["DuckDB"]
    figures["cores"] = int(CORES)
    measure.tell("features, Parquet to Parquet", figures, ratios)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="*", default=[FILE, 10 * FILE])
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        sys.stdout.write(json.dumps(WAYS[given.way](given.raw, given.out)) + "\n")
    else:
        main(given.rows)
