"""What a site needs before its first release: folders, its own keys, and what it trusts releases by.

Embedded default: both sides are in one home, so root metadata and public keys are copied. A site with a home
of its own got them by `enrolment`. The private ones never leave their side.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_ai_assets.delivery import ceremony, durable, pack, signing
from edge_ai_assets.delivery.errors import MissingError
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets.home import Home, SiteHome

SITE = "site"
PSEUDONYM_KEY = "pseudonym.key"


def provision(home: Home, name: str) -> SiteHome:
    """Provision a site if it is not; again changes nothing.

    Raises:
        MissingError: there is no release key to trust yet.
    """
    site = home.site(name)
    for folder in (site.readings, site.spool, site.media, site.keys):
        folder.mkdir(parents=True, exist_ok=True)
    with durable.locked(site.keys / ".lock"):
        if not private_key(site).exists():
            signing.create(site.keys, SITE)
        pseudonym = site.keys / PSEUDONYM_KEY
        if not pseudonym.exists():
            with durable.replacing(pseudonym) as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(secrets.token_bytes(32))
        if home.own_site is None:
            _pin(signing.public_path(private_key(site)), known_key(home, name))
            if (home.keys / ceremony.FILE).exists():
                _pin(home.keys / ceremony.FILE, root(site))
            else:
                _pin(signing.public_path(home.keys / f"{pack.KEY}.pem"), release_key(site))
    return site


def private_key(site: SiteHome) -> Path:
    """The key a site signs its return packages with."""
    return site.keys / f"{SITE}.pem"


def root(site: SiteHome) -> Path:
    """The root metadata a site trusts releases by."""
    return site.keys / ceremony.FILE


def trust(site: SiteHome) -> Trust | list[Ed25519PublicKey]:
    """By what a site believes releases. One that joined before there was root metadata has a key.

    Raises:
        MissingError: it has neither.
    """
    if root(site).exists():
        return Trust(durable.read_bounded(root(site), ceremony.MAX_ROOT), SiteStore(site.root).layout)
    return [signing.load_public(release_key(site))]


def azure_keys(site: SiteHome) -> list[Ed25519PublicKey]:
    """The keys by which a site believes Azure's acknowledgements; none before it trusts anybody."""
    if not root(site).exists() and not release_key(site).exists():
        return []
    found = trust(site)
    return list(found.held().online) if isinstance(found, Trust) else found


def release_key(site: SiteHome) -> Path:
    """The public key by which a site without root metadata trusts releases."""
    return site.keys / "trusted-release.pub.pem"


def known_key(home: Home, name: str) -> Path:
    """The public key by which Azure knows a site's return packages."""
    return home.keys / "sites" / f"{name}.pub.pem"


def elsewhere(home: Home, name: str) -> bool:
    """Whether a site was enrolled from a home of its own: its public key is here, its private one is not."""
    return known_key(home, name).exists() and not private_key(home.site(name)).exists()


def _pin(source: Path, target: Path) -> None:
    """Copy a public key or root metadata; what is already pinned stays."""
    if not target.exists():
        if not source.exists():
            raise MissingError(f"{source} is not there: materialize release/image first, which makes the key")
        target.parent.mkdir(parents=True, exist_ok=True)
        with durable.replacing(target) as file:
            file.write(source.read_bytes())
