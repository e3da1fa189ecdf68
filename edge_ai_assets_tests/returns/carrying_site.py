"""A site that exports to a medium and uploads, and an Azure that imports, in processes to be killed.

Started once by test_media_kills.py. For each line `folder seed life` on its input it forks a process, and
prints its id; when that ends, it prints the signal. The process is killed by itself, before the n-th thing it
asks the operating system for (n from the seed), so that a point is as likely as any other however short.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from edge_ai_assets.delivery import durable
from edge_ai_assets.returns.egress.ledger import Ledger
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.road import media, uplink
from edge_ai_assets.returns.road.link import Link

BLOCK = 512
CALLS = ("open", "fsync", "rename", "link", "unlink", "scandir")


def mortal(left: int) -> None:
    """Die before the call of the operating system that is so many from now."""
    count = [left]

    def dying(call: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            count[0] -= 1
            if count[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapped

    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))
    for kind, name in ((Ledger, "append"), (Outbox, "exported"), (Outbox, "uploaded")):
        setattr(kind, name, dying(getattr(kind, name)))


def export(folder: Path) -> None:
    with Outbox(folder / "outbox.db") as outbox:
        media.export(outbox, folder / "spool", Ledger(folder / "ledger.jsonl"), folder / "medium")


def import_(folder: Path) -> None:
    media.import_(folder / "medium", folder / "uplink", {"bergen"})


def upload(folder: Path) -> None:
    road = uplink.FolderUplink(folder / "uplink", "bergen", Link(folder))
    with Outbox(folder / "outbox.db") as outbox:
        uplink.upload(outbox, folder / "spool", road, Ledger(folder / "ledger.jsonl"))


if __name__ == "__main__":
    media.BLOCK = uplink.BLOCK = durable.CHUNK = BLOCK  # many points to be killed at
    for line in sys.stdin:
        where, number, life = line.split()
        process = os.fork()
        if process == 0:
            mortal(random.Random(int(number)).randrange(40))
            {"export": export, "import": import_, "upload": upload}[life](Path(where))
            os._exit(0)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
