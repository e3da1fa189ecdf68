"""What no server on this machine can beat, measured where the servers run: onnxruntime alone, and the disk.

`limits.py SECONDS FOLDER` prints JSON; the folder's disk is the one that is measured.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from session import Scorer

BLOCK = bytes(4096)


def main() -> None:
    seconds, folder = float(sys.argv[1]), Path(sys.argv[2])
    scorer = Scorer()
    rows = np.load(folder / "rows.npy").astype(np.float32)
    many = rows.reshape(-1, 1000, rows.shape[1])
    found = {
        "onnxruntime_1_row_us": 1e6 / rate(scorer, rows[:1000, np.newaxis], seconds),
        "onnxruntime_1000_rows_per_second": 1000 * rate(scorer, many, seconds),
        "fsync_ms": fsync_ms(folder / "fsync", seconds),
    }
    sys.stdout.write(json.dumps(found))


def rate(scorer: Scorer, inputs: np.ndarray, seconds: float) -> float:
    """Calls a second, over all inputs in turn."""
    for given in inputs[:10]:
        scorer(given)
    calls, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        for given in inputs[:100]:
            scorer(given)
        calls += len(inputs[:100])
    return calls / spent


def fsync_ms(path: Path, seconds: float) -> float:
    """Median of appending 4 KiB and having them on disk."""
    took = []
    with path.open("ab", buffering=0) as file:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            start = time.perf_counter()
            file.write(BLOCK)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - start)
    path.unlink()
    return statistics.median(took) * 1e3


if __name__ == "__main__":
    main()
