"""Opens the outbox of a site and begins to drain it; prints its most memory after each step, MB, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import bench_packages as site

from edge_ai_assets.returns.egress.ledger import Ledger
from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.package.packing import pack
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.returns.road.uplink import FolderUplink, upload

STEPS = 3
AT = 1_760_000_000_000_000


def main(folder: Path) -> None:
    found = {"imported": peak()}
    with Outbox(folder / "outbox.db", create=False) as outbox:
        outbox.counts(), outbox.tally(), outbox.complete_through(), outbox.oldest_pending()
        found["started"] = peak()
        road = FolderUplink(folder / "uplink", site.SITE, Link(folder))
        policy, ledger = Policy(site.USECASE, bytes(32)), Ledger(folder / "ledger.jsonl")
        for _ in range(STEPS):
            insights.derive(outbox)
            pack(outbox, site.SITE, policy, site.CONTRACTS, site.KEY, folder / "spool", at=AT)
            upload(outbox, folder / "spool", road, ledger)
    found["drained"] = peak()
    print(json.dumps(found))


def peak() -> float:
    """Most that the process had resident."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
