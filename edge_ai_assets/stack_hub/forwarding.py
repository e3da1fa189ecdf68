"""The connected form at one site with nothing to install: queues in a file, the function called in process.

With an Azure Stack Hub the site sends and settles with the queues and notes of `resources`, and the function
of `deploy/functions` does what `function` does here.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec

from edge_ai_assets.delivery import signing
from edge_ai_assets.delivery.durable import make_folder
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.egress.ledger import Ledger
from edge_ai_assets.returns.hub import enqueuing, handling, rulebook, settling
from edge_ai_assets.returns.hub.enqueuing import Sent
from edge_ai_assets.returns.hub.forwarding import Forwarder
from edge_ai_assets.returns.hub.handling import Worked
from edge_ai_assets.returns.hub.letters import Letter, Receipt
from edge_ai_assets.returns.hub.notes import FolderNotes
from edge_ai_assets.returns.hub.queue import EmbeddedQueue
from edge_ai_assets.returns.hub.rulebook import Rulebook
from edge_ai_assets.returns.hub.settling import Settled
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.road.link import Link, LinkDown
from edge_ai_assets.returns.road.roads import Uplink
from edge_ai_assets.returns.road.uplink import FolderUplink, digest_of
from edge_ai_assets.scoring import contract as contracts
from edge_ai_assets.stack_hub import connecting
from edge_ai_assets.stack_hub.provision import PSEUDONYM_KEY, private_key
from edge_ai_assets.stack_hub.scoring import deployed_usecase

LETTERS, RECEIPTS, DEAD = "insights", "receipts", "insights-poison"
"""Queues. The host of Azure's functions moves what it gives up to the last one, whose name it makes."""


class FolderTarget(FolderUplink):
    """The embedded uplink, as the function needs it."""

    def digest_of(self, name: str) -> str | None:
        self.link.check()
        path = self.folder / name
        return digest_of(path) if path.exists() else None


def rules_of(site: SiteHome) -> Rulebook:
    """What may leave, as the running release says; contracts of all releases whose scores may still wait."""
    store = SiteStore(site.root)
    return Rulebook(
        deployed_usecase(site),
        {each.image: contracts.read(store.path(each) / "contract.json") for each in store.releases()},
    )


class Forwarded(msgspec.Struct, frozen=True):
    """What one call did at a site."""

    sent: Sent
    worked: Worked
    settled: Settled
    acknowledged: int = 0
    """Packages whose acknowledgement this call brought."""


def forward(site: SiteHome, uplink_root: Path) -> Forwarded:
    """Send what waits to the queue, forward what may leave, settle what became of it, and act upon Azure's
    acknowledgement: what it names may be pruned."""
    folder = site.root / "hub"
    make_folder(folder)
    notes = FolderNotes(folder / "notes")
    key = signing.load_private(private_key(site))
    with ExitStack() as opened:
        queue, receipts, dead = (
            opened.enter_context(EmbeddedQueue(folder / "queues.db", name))
            for name in (LETTERS, RECEIPTS, DEAD)
        )
        outbox = opened.enter_context(Outbox(site.outbox, create=False))
        rulebook.publish(notes, site.name, rules_of(site), key)
        sent = enqueuing.enqueue(outbox, site.name, queue, site.root)
        target = FolderTarget(uplink_root, site.name, Link(site.root))
        secret = (site.keys / PSEUDONYM_KEY).read_bytes()

        def function(letter: Letter) -> Receipt:
            rules = rulebook.read(notes, site.name, key)
            return Forwarder(target, notes, rules, secret, key).forward(letter)

        worked = handling.work(queue, receipts, dead, function)
        settled = settling.settle(
            outbox, receipts, notes, Ledger(site.ledger), site.spool, site=site.name, dead=dead
        )
        return Forwarded(sent, worked, settled, _acknowledge(site, outbox, target))


def _acknowledge(site: SiteHome, outbox: Outbox, target: Uplink) -> int:
    """Record what Azure acknowledged; how many packages were not known to be."""
    waiting, _ = outbox.unacknowledged()
    if not waiting:
        return 0
    try:
        data = target.acknowledgement()
    except LinkDown:
        return 0  # it comes with a later call
    return connecting.apply_ack(site, data, clock.now()).packages if data is not None else 0
