"""The connected form at one site. With nothing to install: queues in a file, the function called in process.

With an Azure Stack Hub the site only sends and settles, with the hub's queues and notes; the function of
`deploy/functions` then does what `_function` does here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_ai_assets.delivery import durable, signing
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.home import SiteHome
from edge_ai_assets.resources.configured import DEAD, LETTERS, RECEIPTS, Hub
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.egress.ledger import Ledger
from edge_ai_assets.returns.hub import enqueuing, handling, rulebook, settling
from edge_ai_assets.returns.hub.enqueuing import Sent
from edge_ai_assets.returns.hub.forwarding import Forwarder, Target
from edge_ai_assets.returns.hub.handling import Worked
from edge_ai_assets.returns.hub.letters import Letter, Receipt
from edge_ai_assets.returns.hub.notes import FolderNotes
from edge_ai_assets.returns.hub.queue import EmbeddedQueue
from edge_ai_assets.returns.hub.rulebook import Rulebook
from edge_ai_assets.returns.hub.settling import Settled
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.road.link import Link, LinkDown
from edge_ai_assets.returns.road.pace import Pace
from edge_ai_assets.returns.road.roads import Uplink, UplinkError
from edge_ai_assets.returns.road.uplink import LOCK, FolderUplink, digest_of
from edge_ai_assets.scoring import contract as contracts
from edge_ai_assets.stack_hub import connecting
from edge_ai_assets.stack_hub.far_ends import NOTHING_FAR, FarEnds, SwitchedUplink
from edge_ai_assets.stack_hub.provision import PSEUDONYM_KEY, private_key
from edge_ai_assets.stack_hub.scoring import deployed_usecase

log = logging.getLogger(__name__)


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


NOTHING = Forwarded(Sent(0, 0, 0, False), Worked(0, [], []), Settled(0, [], {}, 0))


def forward(site: SiteHome, uplink_root: Path, far: FarEnds = NOTHING_FAR) -> Forwarded:
    """Send what waits to the queue, forward what may leave, settle what became of it, and act upon Azure's
    acknowledgement: what it names may be pruned.

    Args:
        uplink_root: Azure's end of the links.
        far: what is there instead, if it is configured.

    Raises:
        LinkDown: the hub's queue is out of reach; nothing is lost.
        QueueError: it refuses.
    """
    with durable.if_unlocked(site.spool / LOCK) as idle:
        if not idle:  # packages leave on another road, for long perhaps: a tick of a sensor may not wait
            return NOTHING
    key, rules = signing.load_private(private_key(site)), rules_of(site)
    pace = Pace.of(rules.usecase.returns.kilobytes_per_second)
    with ExitStack() as opened:
        outbox = opened.enter_context(Outbox(site.outbox, create=False))
        real = far.hub()
        hub = real or embedded(site, opened)
        folder = None if real else FolderTarget(uplink_root, site.name, Link(site.root))
        target: FolderTarget | SwitchedUplink | None = far.uplink(site, pace) or folder
        rulebook.publish(hub.notes, site.name, rules, key)
        sent = enqueuing.enqueue(outbox, site.name, hub.letters, site.root)
        worked = Worked(0, [], [])
        if target and not real:  # a real hub has a function of its own
            worked = handling.work(hub.letters, hub.receipts, hub.dead, _function(site, target, hub, key))
        settled = settling.settle(
            outbox, hub.receipts, hub.notes, Ledger(site.ledger), site.spool, site=site.name, dead=hub.dead
        )
        return Forwarded(sent, worked, settled, _acknowledge(site, outbox, target) if target else 0)


def embedded(site: SiteHome, opened: ExitStack) -> Hub:
    """Queues and notes in the site's own folder, until `opened` is closed."""
    folder = site.root / "hub"
    durable.make_folder(folder)
    letters, receipts, dead = (
        opened.enter_context(EmbeddedQueue(folder / "queues.db", name)) for name in (LETTERS, RECEIPTS, DEAD)
    )
    return Hub(letters, receipts, dead, FolderNotes(folder / "notes"))


def _function(
    site: SiteHome, target: Target, hub: Hub, key: Ed25519PrivateKey
) -> Callable[[Letter], Receipt]:
    secret = (site.keys / PSEUDONYM_KEY).read_bytes()

    def function(letter: Letter) -> Receipt:
        rules = rulebook.read(hub.notes, site.name, key)
        return Forwarder(target, hub.notes, rules, secret, key).forward(letter)

    return function


def _acknowledge(site: SiteHome, outbox: Outbox, target: Uplink) -> int:
    """Record what Azure acknowledged; how many packages were not known to be."""
    waiting, _ = outbox.unacknowledged()
    if not waiting:
        return 0
    try:
        data = target.acknowledgement()
    except LinkDown:
        return 0  # it comes with a later call
    except UplinkError as error:
        # What was sent and settled is to be told all the same.
        log.warning("site %s: %s", site.name, error)
        return 0
    return connecting.apply_ack(site, data, clock.now()).packages if data is not None else 0
