"""Appends requests of one row to an outbox until its standard input ends; prints how long they took, JSON."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import bench_outbox
import numpy as np

from edge_ai_assets.returns.outbox.outbox import Outbox

PAUSE_SECONDS = 0.002
"""Between two requests: a service that never rests would measure itself."""


def main(path: Path) -> None:
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    seconds = []
    with Outbox(path) as outbox:
        bench_outbox.append(outbox, 1)
        print("ready", flush=True)
        while not ended.is_set():
            start = time.perf_counter()
            bench_outbox.append(outbox, 1)
            seconds.append(time.perf_counter() - start)
            time.sleep(PAUSE_SECONDS)
    p50, p99, longest = np.quantile(seconds, [0.5, 0.99, 1])
    print(json.dumps({"requests": len(seconds), "p50": p50, "p99": p99, "longest": longest}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
