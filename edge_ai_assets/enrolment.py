"""How Azure and a site that share nothing but a medium come to know each other: invite, join, enrol.

Azure writes an invitation: the use case, and the root metadata that says whose keys sign releases. The site
joins with it: it makes its own keys and writes an enrolment, which holds the public one. Azure enrols the
site by that. Neither file is secret, and neither proves who made it: people compare the fingerprints that
both sides show, once, before they rely on them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_ai_assets import usecase as usecases
from edge_ai_assets.delivery import ceremony, durable, pack, signing
from edge_ai_assets.delivery.errors import DeliveryError
from edge_ai_assets.delivery.signed import root_of
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.stack_hub import provision
from edge_ai_assets.usecase import UseCase, UseCaseError

FORMAT = 2
"""Of an invitation."""
ENROLMENT = 1
MAX_BYTES = 4 * 1024 * 1024
"""Of either file: a use case has at most half of it, and JSON may double that."""


class EnrolmentError(ValueError):
    """An invitation or enrolment that cannot be used; the message says why and what to do."""


class Invitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`<site>.invitation.json`"""

    site: str
    usecase: str
    """YAML."""
    root: str
    """Root metadata (TUF), JSON."""
    format: int = FORMAT


class Enrolment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`<site>.enrolment.json`"""

    site: str
    key: str
    """PEM of the Ed25519 public key that the site signs its return packages with."""
    format: int = ENROLMENT


class _Format(msgspec.Struct):
    format: int


def invite(home: Home, usecase: UseCase, site: str, into: Path, *, far_registry: bool = False) -> Path:
    """Write the invitation of a site; its path.

    Args:
        far_registry: whether releases are published to a registry that a site can pull from.

    Raises:
        EnrolmentError: the site is not in the use case, has a link by it, or nothing was released yet.
    """
    if site not in {each.name for each in usecase.sites}:
        raise EnrolmentError(f"site {site!r} is not in use case {usecase.name!r}: add it there first")
    if usecase.at(site).road.pulls and not far_registry:
        raise EnrolmentError(
            f"site {site!r} has road 'link' in use case {usecase.name!r}, and from a home of its own nothing "
            "leads to this registry: write `road: media` there, or `road: diode`, or set [registry] in "
            "azure.toml"
        )
    if not (home.keys / ceremony.FILE).exists():
        raise EnrolmentError(
            f"{home.keys / ceremony.FILE} is not there: the first release makes it, or `edge-ai keys make`"
        )
    invitation = Invitation(site, usecases.dumps(usecase), pack.root(home.registry, home.keys).decode())
    return _write(into / f"{site}.invitation.json", msgspec.json.encode(invitation).decode())


def join(home: Home, invitation: Path, into: Path) -> Path:
    """Make of an empty home the home of the invited site, and write its enrolment; the enrolment's path.

    Done again it writes the same enrolment.

    Raises:
        EnrolmentError: the invitation is malformed, or the home is another site's, or Azure's.
    """
    found = _decoded(_read(invitation), Invitation, invitation)
    try:
        usecase = usecases.loads(found.usecase, f"the use case in {invitation}")
    except UseCaseError as error:
        raise EnrolmentError(str(error)) from error
    if found.site not in {each.name for each in usecase.sites}:
        raise EnrolmentError(f"{invitation}: site {found.site!r} is not in the use case that comes with it")
    root = _root(found.root, invitation)
    if (home.keys / f"{pack.KEY}.pem").exists() or home.registry.exists() or home.landing.exists():
        raise EnrolmentError(f"{home.root} is Azure's home: a site joins in a home of its own, EDGE_AI_HOME")
    if home.own_site not in (None, found.site):
        raise EnrolmentError(
            f"{home.root} is the home of site {home.own_site!r}: set EDGE_AI_HOME to another"
        )
    site = home.site(found.site)
    _may_trust(site, root)
    if not provision.root(site).exists():
        _write(provision.root(site), found.root)
    _write(home.usecase, usecases.dumps(usecase))
    _write(home.joined, found.site)
    provision.provision(home, found.site)
    # Not its file: the site may have been killed between the two halves.
    public = signing.load_private(provision.private_key(site)).public_key()
    enrolment = msgspec.json.encode(Enrolment(found.site, _pem(public))).decode()
    return _write(into / f"{found.site}.enrolment.json", enrolment)


def enrol(home: Home, usecase: UseCase, enrolment: Path) -> Enrolment:
    """Take a site's key as the one that its return packages must be signed with. Again changes nothing.

    Raises:
        EnrolmentError: the file is malformed, the site is not in the use case, or has another key here.
    """
    found = _decoded(_read(enrolment), Enrolment, enrolment)
    key = _public(found.key, enrolment)
    if found.site not in {each.name for each in usecase.sites}:
        raise EnrolmentError(f"{enrolment}: site {found.site!r} is not in use case {usecase.name!r}")
    known = provision.known_key(home, found.site)
    if known.exists() and signing.load_public(known) != key:
        other = fingerprint(signing.load_public(known))
        raise EnrolmentError(
            f"{enrolment}: site {found.site!r} has another key here, {other}; if the site was set up anew, "
            f"move {known} away: packages signed by it are refused then"
        )
    _write(known, found.key)
    return found


def _may_trust(site: SiteHome, root: bytes) -> None:
    """EnrolmentError when the site trusts something else than this root, or what it was followed by."""
    pinned, key = provision.root(site), provision.release_key(site)
    try:
        if pinned.exists():
            trusted = provision.trust(site)
            assert isinstance(trusted, Trust)
            if root not in (trusted.root, trusted.latest()):
                raise EnrolmentError(
                    f"{pinned} is another root than the invitation's: the site has joined elsewhere"
                )
        elif (
            key.exists()
            and signing.load_public(key) not in Trust(root, SiteStore(site.root).layout).held().online
        ):
            raise EnrolmentError(f"{key} is none of the invitation's keys: the site has joined elsewhere")
    except DeliveryError as error:
        raise EnrolmentError(str(error)) from error


def fingerprint(key: Ed25519PublicKey | bytes) -> str:
    """Half of the SHA-256 of a public key, or of root metadata, in groups of four hexadecimal digits, to be
    read out and compared."""
    data = key if isinstance(key, bytes) else key.public_bytes_raw()
    digest = hashlib.sha256(data).hexdigest()[:32]
    return " ".join(digest[start : start + 4] for start in range(0, len(digest), 4))


S = TypeVar("S", bound=msgspec.Struct)


def _decoded(data: bytes, kind: type[S], path: Path) -> S:
    what = kind.__name__.lower()
    try:
        version = msgspec.json.decode(data, type=_Format).format
        reads = FORMAT if kind is Invitation else ENROLMENT
        if version != reads:
            raise EnrolmentError(
                f"{path}: {what} format {version}, this version reads {reads}: use the same on both sides"
            )
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnrolmentError(f"{path}: this is no {what}: {error}") from error


def _root(text: str, path: Path) -> bytes:
    try:
        root_of(text.encode())
    except DeliveryError as error:
        raise EnrolmentError(f"{path}: the root metadata in it cannot be used: {error}") from error
    return text.encode()


def _public(pem: str, path: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise EnrolmentError(f"{path}: the key in it is no public key in PEM form: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise EnrolmentError(f"{path}: the key in it must be Ed25519")
    return key


def _pem(key: Ed25519PublicKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def _read(path: Path) -> bytes:
    try:
        return durable.read_bounded(path, MAX_BYTES)
    except DeliveryError as error:
        raise EnrolmentError(str(error)) from error
    except OSError as error:
        raise EnrolmentError(f"{path} cannot be read: {error.strerror}") from error


def _write(path: Path, text: str) -> Path:
    try:
        with durable.locked(path.parent / ".lock"), durable.replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise EnrolmentError(f"{path} cannot be written: {error.strerror}") from error
    return path
