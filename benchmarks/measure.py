"""Timing several ways of doing one thing side by side, and telling the result.

What is compared, and why, is each benchmark's. Figures of one run compare; those of two runs, or of two
machines, do not.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROUNDS = 3
# Numeric libraries that start a thread a core would compare their threads, not their work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore", message=".*currently in beta")


def side_by_side(ways: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each way.

    A round runs all of them in turn, so that a slow moment of the machine meets each alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on a disk: /tmp may be memory, where being durable costs nothing."""
    with tempfile.TemporaryDirectory(prefix="edge-ai-bench-", dir="/var/tmp") as folder:
        yield Path(folder)


def tell(title: str, figures: Mapping[str, float], ratios: Mapping[str, float]) -> None:
    """A table for people on standard error; as the last line of standard output one JSON object."""
    table = Table("", "", title=title, title_justify="left", show_header=False)
    for name, value in {**figures, **ratios}.items():
        table.add_row(name, _short(value))
    Console(stderr=True).print(table)
    found = {
        part: {
            name: value if isinstance(value, int) else float(_short(value)) for name, value in values.items()
        }
        for part, values in (("ratios", ratios), ("figures", figures))
    }
    sys.stdout.write(json.dumps({"benchmark": title, **found}) + "\n")


def _short(value: float) -> str:
    """Three digits that count, more would claim too much; whole numbers as they are."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
