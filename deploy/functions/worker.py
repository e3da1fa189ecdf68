"""The function without the host of Azure's functions, for the hub itself.

A hub's storage knows its API up to version 2019-07-07 and refuses a request of a newer one. Hosts that run
Python speak newer ones, and want Linux, which App Service on a hub does not have. So there this process takes
the letters from the queue: `python worker.py`, until SIGTERM. What becomes of a letter is the same, because
it is the same code, `returns.hub.handling`; settings are the function's, and HUB_QUEUES.
"""

# ruff: noqa: TID253 (nothing else loads this file)
import logging
import os
import signal
import threading

import function_app
from azure.core.credentials import AzureNamedKeyCredential

from edge_ai_assets.resources.storage.account import HUB_API_VERSION, Account
from edge_ai_assets.resources.storage.queue import StorageQueue
from edge_ai_assets.returns.hub.handling import work
from edge_ai_assets.returns.hub.queue import QueueError
from edge_ai_assets.returns.road.link import LinkDown

SETTINGS = (
    "HUB_ACCOUNT",
    "HUB_KEY",
    "HUB_BLOBS",
    "HUB_QUEUES",
    "CLOUD_BLOBS",
    "CLOUD_CONTAINER",
    "CLOUD_SAS",
    "EDGE_AI_SITE",
    "EDGE_AI_PSEUDONYM_KEY",
    "EDGE_AI_SIGNING_KEY",
)
"""What must be in the environment, see README.md."""
IDLE_SECONDS = 5.0
"""Between two looks at a queue that was empty."""
PAUSE_SECONDS = 30.0
"""After something failed. The letter itself comes back once it is no longer hidden."""
log = logging.getLogger("worker")


def queue(name: str) -> StorageQueue:
    credential = AzureNamedKeyCredential(os.environ["HUB_ACCOUNT"], os.environ["HUB_KEY"])
    return StorageQueue(Account(os.environ["HUB_QUEUES"], credential, HUB_API_VERSION), name)


def main() -> None:
    """Letter by letter: between two of them SIGTERM ends it; killed, its letter comes back."""
    if missing := [name for name in SETTINGS if not os.environ.get(name)]:
        raise SystemExit(f"not in the environment: {', '.join(missing)}; README.md says what they are")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    letters, receipts, dead = queue("insights"), queue("receipts"), queue("insights-poison")
    idle = 0.0
    while not ended.wait(idle):
        try:
            done = work(letters, receipts, dead, function_app.forward, most=1)
        except (LinkDown, QueueError) as error:
            log.warning("%s", error)
            idle = PAUSE_SECONDS
            continue
        for reason in (*done.failed, *done.dead):
            log.warning("%s", reason)
        idle = PAUSE_SECONDS if done.failed else 0.0 if done.receipts or done.dead else IDLE_SECONDS


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    main()
