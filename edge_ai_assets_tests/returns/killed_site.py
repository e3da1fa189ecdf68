"""A site in a process of its own, to be killed: scores, gives feedback, packs, uploads, hears what came home,
removes that, and lets expire what is too much, over and over.

Started once by test_kills.py. For each line `folder seed life` on its input it forks a site, so that a site
starts within milliseconds, and prints the site's process id; when that is killed, it prints the signal. A
site that lives writes `A first rows score` to `acknowledged` in its folder after each append, `-` for the
score if it wrote a block that cannot be read, and `F id` after each feedback. One that unfolds does nothing
else.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_ai_assets import usecase
from edge_ai_assets.delivery.durable import locked
from edge_ai_assets.returns.egress import policy
from edge_ai_assets.returns.egress.ledger import Ledger
from edge_ai_assets.returns.outbox import insights, outbox, store
from edge_ai_assets.returns.outbox.outbox import Batch, Feedback, Outbox
from edge_ai_assets.returns.package.packing import pack
from edge_ai_assets.returns.road import uplink
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets_tests import blocks

USECASE = """
name: killed
runs: {column: run}
label: {column: fault, positive: [1]}
features: [{name: Flow}]
egress: {kinds: [anomaly, feedback], fields: [{name: Flow, leaves: as_is}]}
sites: [{name: bergen}]
"""
RECORD = {"inputs": {"Flow": 1.5}, "context": {"_run": "r"}}


def warm_up() -> None:
    """Import and start once what each site would take its short life to."""
    with TemporaryDirectory() as folder:
        live(Path(folder), 1, rounds=20)


def batch(chance: random.Random) -> Batch:
    """One to three blocks of one to six rows each; its key is the score of row 0, row i has i more."""
    parts, rows, score = [], 0, chance.random()
    for _ in range(chance.randint(1, 3)):
        size = chance.randint(1, 6)
        scores = [score + row for row in range(rows, rows + size)]
        parts.append(blocks.block([(RECORD, each, chance.random() < 0.6, False) for each in scores]))
        rows += size
    return Batch(str(score), "r1", 1_760_000_000_000_000, parts)


def torn(chance: random.Random) -> Batch:
    return Batch(str(chance.random()), "r1", 1_760_000_000_000_000, [(chance.randint(1, 6), blocks.TORN)])


def live(folder: Path, seed: int, rounds: int | None = None) -> None:
    """For ever, or some rounds."""
    chance = random.Random(seed)
    policy._counted = lambda values, reference: np.array([len(values)])
    rules = policy.Policy(usecase.loads(USECASE), b"k" * 32)
    key = Ed25519PrivateKey.from_private_bytes(b"0123456789abcdef0123456789abcdef")
    road = uplink.FolderUplink(folder / "uplink", "bergen", Link(folder))
    with (folder / "acknowledged").open("a", buffering=1) as log, Outbox(folder / "outbox.db") as outbox:
        for _ in count() if rounds is None else range(rounds):
            score(outbox, chance, log)
            if chance.random() < 0.7:  # sometimes more is scored than derived
                insights.derive(outbox, limit=chance.randint(1, 40))
            if chance.random() < 0.5:
                pack(outbox, "bergen", rules, {}, key, folder / "spool", at=5, limit=chance.randint(1, 30))
            if chance.random() < 0.3:
                uplink.upload(outbox, folder / "spool", road, Ledger(folder / "ledger.jsonl"))
            if chance.random() < 0.3:
                remove(outbox, folder, chance)


def score(outbox: Outbox, chance: random.Random, log: TextIO) -> None:
    batches = [batch(chance) for _ in range(chance.randint(1, 3))]
    *receipts, broken = outbox.append([*batches, torn(chance)])
    for receipt, made in zip(receipts, batches, strict=True):
        print("A", receipt.first, receipt.rows, made.key, file=log)
    print("A", broken.first, broken.rows, "-", file=log)
    for number in outbox.add_feedback([Feedback(receipts[-1].first, True, None, "operator", 5)]):
        print("F", number, file=log)


def remove(outbox: Outbox, folder: Path, chance: random.Random) -> None:
    """Azure merged what arrived; that goes, and some of what waits."""
    arrived = [package.name for package in (folder / "uplink" / "bergen").glob("*.zip")]
    if arrived:
        data = (folder / "uplink" / "bergen" / max(arrived)).read_bytes()
        number = int(max(arrived).removesuffix(".zip").rpartition("-")[2])
        outbox.acknowledge(number, hashlib.sha256(data).hexdigest(), 6)
    names = outbox.prune(chance.randint(0, 2) * 10**16).packages
    for name in names:
        (folder / "spool" / name).unlink(missing_ok=True)
    outbox.forget(names)
    if chance.random() < 0.5:
        with locked(folder / "spool/.packing.lock"):
            outbox.expire(chance.randint(1, 20_000), 7, "quota")


def unfold(folder: Path, seed: int) -> None:
    with Outbox(folder / "outbox.db") as outbox:
        while True:
            outbox.unfold(1 + seed % 40)


if __name__ == "__main__":
    store.CHUNK, outbox.UNFOLD, uplink.BLOCK = 3, 8, 512  # many points to be killed at
    store.PAUSE_SECONDS = outbox.PAUSE_SECONDS = 0  # and none of them asleep
    warm_up()
    for line in sys.stdin:
        where, number, life = line.split()
        site = os.fork()
        if site == 0:
            {"live": live, "unfold": unfold}[life](Path(where), int(number))
        print(site, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(site, 0)[1]), flush=True)
