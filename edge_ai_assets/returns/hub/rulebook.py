"""What may leave a site, as the site tells its function: use case and contracts, signed by the site.

The function may run where the site's disk cannot be reached. The signature keeps out rules that somebody else
laid beside the queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.hub.notes import Notes
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PAYLOAD_TYPE = "application/vnd.edge-ai.rulebook+json"


class RulebookError(RuntimeError):
    """There are no rules, or they are not this site's: nothing may leave by them."""


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    site: str
    usecase: str
    contracts: dict[str, Contract]


class Rulebook:
    """What may leave.

    Args:
        usecase: that came with the running release.
        contracts: by release.
    """

    def __init__(self, usecase: UseCase, contracts: Mapping[str, Contract]) -> None:
        self.usecase, self.contracts = usecase, contracts

    def policy(self, site_key: bytes) -> Policy:
        return Policy(self.usecase, site_key)


def publish(notes: Notes, site: str, rules: Rulebook, key: Ed25519PrivateKey) -> None:
    """Note the rules for the function, unless it has the same."""
    from edge_ai_assets import usecase as usecases
    from edge_ai_assets.delivery.signing import envelope

    contracts = dict(sorted(rules.contracts.items()))
    written = msgspec.json.encode(_Written(site, usecases.dumps(rules.usecase), contracts))
    data = envelope(written, PAYLOAD_TYPE, key)
    there = notes.read(_name(site))
    if there is None or there.data != data:
        notes.write(_name(site), data, there.tag if there else None)


def read(notes: Notes, site: str, key: Ed25519PrivateKey) -> Rulebook:
    """The rules as they stand now; the key is the site's, by which they were signed.

    Raises:
        RulebookError: there are none, or another key signed them.
        LinkDown: the notes are out of reach.
    """
    from edge_ai_assets import usecase as usecases
    from edge_ai_assets.delivery.errors import DeliveryError
    from edge_ai_assets.delivery.signing import open_envelope

    note = notes.read(_name(site))
    if note is None:
        raise RulebookError(f"site {site!r} has not said what may leave: start its Dagster, it does so first")
    try:
        payload = open_envelope(note.data, PAYLOAD_TYPE, [key.public_key()])
    except DeliveryError as error:
        raise RulebookError(f"the rules of site {site!r} are refused: {error}") from error
    found = msgspec.json.decode(payload, type=_Written)
    if found.site != site:
        raise RulebookError(f"these are rules of site {found.site!r}, not of {site!r}")
    return Rulebook(usecases.loads(found.usecase, "the rules' use case"), found.contracts)


def _name(site: str) -> str:
    return f"{site}/rules.dsse"
