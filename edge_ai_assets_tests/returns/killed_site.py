"""A site in a process of its own, to be killed: scores, gives feedback, packs and uploads, over and over.

Started once by test_kills.py. For each line `folder seed` on its input it forks a site, so that a site starts
within milliseconds, and prints the site's process id; when that is killed, it prints the signal. The site
writes `A first rows` to `acknowledged` in its folder after each append, and `F id` after each feedback.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_ai_assets import usecase
from edge_ai_assets.returns import insights, packages, policy, store, uplink
from edge_ai_assets.returns.ledger import Ledger
from edge_ai_assets.returns.link import Link
from edge_ai_assets.returns.outbox import Batch, Feedback, Outbox
from edge_ai_assets.returns.packing import pack

USECASE = """
name: killed
runs: {column: run}
label: {column: fault, positive: [1]}
features: [{name: Flow}]
egress: {kinds: [anomaly, feedback], fields: [{name: Flow, leaves: as_is}]}
sites: [{name: bergen}]
"""
RECORD = b'{"inputs":{"Flow":1.5},"context":{"_run":"r"}}'


def warm_up() -> None:
    """Import and start once what each site would take its short life to."""
    key = Ed25519PrivateKey.generate()
    numbers = {"number": 1, "created_at": 1, "first": 1, "last": 1}
    parts: dict[str, list[Any]] = {"insights": [], "feedback": [], "histograms": []}
    packages.build(site="warm", previous="", policy="", key=key, **numbers, **parts)


def main(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    store.CHUNK, uplink.BLOCK = 3, 512  # many points to be killed at
    policy._counted = lambda values, reference: np.array([len(values)])
    rules = policy.Policy(usecase.loads(USECASE), b"k" * 32)
    key = Ed25519PrivateKey.from_private_bytes(b"0123456789abcdef0123456789abcdef")
    road = uplink.FolderUplink(folder / "uplink", "bergen", Link(folder))
    with (folder / "acknowledged").open("a", buffering=1) as log, Outbox(folder / "outbox.db") as outbox:
        while True:
            batches = []
            for _ in range(chance.randint(1, 3)):
                rows = chance.randint(1, 6)
                marks = [chance.random() < 0.6 for _ in range(rows)]
                name = f"{seed}/{chance.random()}"
                batches.append(
                    Batch(name, "r1", 1_760_000_000_000_000, [0.5] * rows, marks, marks, [RECORD] * rows)
                )
            for receipt in outbox.append(batches):
                print("A", receipt.first, receipt.rows, file=log)
            for number in outbox.add_feedback([Feedback(receipt.first, True, None, "operator", 5)]):
                print("F", number, file=log)
            insights.derive(outbox, limit=chance.randint(1, 40))
            if chance.random() < 0.5:
                pack(outbox, "bergen", rules, {}, key, folder / "spool", at=5, limit=chance.randint(1, 30))
            if chance.random() < 0.3:
                uplink.upload(outbox, folder / "spool", road, Ledger(folder / "ledger.jsonl"))


if __name__ == "__main__":
    warm_up()
    for line in sys.stdin:
        where, number = line.split()
        site = os.fork()
        if site == 0:
            main(Path(where), int(number))
        print(site, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(site, 0)[1]), flush=True)
