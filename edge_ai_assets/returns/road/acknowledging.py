"""Acting upon an acknowledgement at a site, whatever brought it: the link, a bundle, a file on a medium.

Its form and signature are `acks`' matter, what it changes is the outbox's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.returns.outbox.outbox import Outbox, OutboxError
from edge_ai_assets.returns.road import acks

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

log = logging.getLogger(__name__)


class Acknowledged(msgspec.Struct, frozen=True):
    """What an acknowledgement changed."""

    number: int | None
    """Packages up to this one were merged by Azure; None when the acknowledgement is not acted upon."""
    packages: int
    """How many of them were not known to be; 0 when it is an old or repeated one."""
    refused: str | None
    """Why it is not acted upon; None when it is."""


def acknowledge(
    outbox: Outbox, data: bytes, site: str, keys: Sequence[Ed25519PublicKey], now: int
) -> Acknowledged:
    """Check an acknowledgement and record it in the site's outbox.

    One that is forged, damaged, another site's or about packages that this outbox never sealed is logged and
    changes nothing: it must not keep packages from leaving, so it is no exception.

    Args:
        keys: the release keys that the site trusts.
        now: µs since 1970, UTC.
    """
    try:
        found = acks.read(data, site, keys)
        fresh = outbox.acknowledge(found.number, found.digest, now)
    except (acks.AckError, OutboxError) as error:
        log.warning("site %s: an acknowledgement is ignored: %s", site, error)
        return Acknowledged(None, 0, str(error))
    return Acknowledged(found.number, fresh, None)
