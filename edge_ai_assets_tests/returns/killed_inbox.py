"""Azure's inbox in a process of its own, to be killed: receives what is there, a few packages at a time.

Started once by test_inbox_kills.py. For each line `folder limit step delay` on its input it forks an inbox,
and prints its exit code once it is gone. So many seconds after the inbox began to write its table number
`step` (the heads are one too) it is killed, wherever it is by then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import deltalake.query  # noqa: F401, TID253 - loaded once, before the forks
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401

from edge_ai_assets.delivery import signing  # noqa: F401
from edge_ai_assets.returns.inbox import checking, heads, merging  # noqa: F401
from edge_ai_assets.returns.package import lineage, packages, sketches  # noqa: F401
from edge_ai_assets_tests.sent import Arrivals


def live(folder: Path, limit: int, step: int, delay: float) -> None:
    written = [0]

    def die() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    def counting(write: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            written[0] += 1
            if written[0] == step:
                threading.Thread(target=die, daemon=True).start()
            return write(*arguments)

        return counted

    merging.merge, heads.write = counting(merging.merge), counting(heads.write)
    world = Arrivals(folder)
    while world.receive(limit=limit).packages:
        pass


if __name__ == "__main__":
    for line in sys.stdin:
        where, *numbers = line.split()
        inbox = os.fork()
        if inbox == 0:
            live(Path(where), int(numbers[0]), int(numbers[1]), float(numbers[2]))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(inbox, 0)[1]), flush=True)
