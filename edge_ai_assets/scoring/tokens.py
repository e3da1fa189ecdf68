"""Tokens: who may ask the service for what. One file a site, made by `edge-ai tokens`, read by every worker.

A token is `eai_ID_SECRET`, with 256 random bits as its secret, shown once, when it is made; its SHA-256 is
kept. A slow, salted hash is for what people choose and others guess (OWASP, Password Storage Cheat Sheet). Of
secrets with 112 bits or more NIST SP 800-63B, 5.1.2.2, asks for an approved one-way function only, and a
service that checks every request needs a fast one. Which path needs which role is `app`'s.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Collection
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path
from time import monotonic, time
from typing import Annotated, Final, Literal, NamedTuple, get_args

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.delivery.errors import DeliveryError
from edge_ai_assets.scoring.logs import logger

Role = Literal["score", "feedback", "operate"]
ROLES: tuple[Role, ...] = get_args(Role)
FORMAT: Final = 1
MAX_NAME = 40
"""Characters; as many as the role of a feedback may have, which is the name of its token."""
MAX_BYTES = 1 << 20
CHECK_SECONDS = 0.5
"""How often the file is looked at: a revoked token is refused within this time, in every worker."""

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class TokensError(ValueError):
    """A file of tokens that cannot be used, or a token that cannot be made; the message says why."""


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token as it is kept."""

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8}$")]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    """Whose it is, for people. Two may have one name: that is how a token is changed without a gap."""
    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """Of the whole token, in hexadecimal."""
    created: _Moment
    expires: _Moment | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    format: Literal[1] = FORMAT
    tokens: list[Token]


class Caller(NamedTuple):
    """Who asks."""

    name: str
    roles: frozenset[str]


class _Known(NamedTuple):
    digest: bytes
    expires: float
    caller: Caller


_Version = tuple[int, ...]
_NOBODY = _Known(bytes(32), 0.0, Caller("", frozenset()))


class Tokens:
    """The tokens of a file, as it is now. Used by one thread.

    A file that can no longer be used (broken, open to others) is reported in the log and changes nothing: who
    was let in still is, what was revoked stays so, nobody new gets in; half an edit must not stop a site.
    Removing the file revokes all tokens.

    Args:
        path: the file; there may be no token in it yet.

    Raises:
        TokensError: there is no such file, or it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        tokens, self._version = _read(path)
        self._known = _known(tokens)
        self._look_at = monotonic() + CHECK_SECONDS

    def caller(self, authorization: bytes | None) -> Caller | None:
        """Who sends this Authorization header (RFC 6750, 2.1), None if that is nobody who is known.

        It takes the same time whether the id, the secret or both are wrong, however much of them is right.
        """
        if monotonic() > self._look_at:
            self._refresh()
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        token = authorization[7:].strip()
        known = self._known.get(token[4:12], _NOBODY)
        right = compare_digest(hashlib.sha256(token).digest(), known.digest)
        return known.caller if right and time() < known.expires else None

    def _refresh(self) -> None:
        self._look_at = monotonic() + CHECK_SECONDS
        try:
            version = _version(os.stat(self._path))
        except OSError as error:
            version = (error.errno or 0,)  # a state like another: it is reported once
        if version == self._version:
            return
        self._version = version
        try:
            tokens, self._version = _read(self._path)
        except TokensError as error:
            if version == (errno.ENOENT,):
                self._known = {}
                logger.error(f"no token is valid any more: {error}")
            else:
                logger.error(f"tokens stay as they were before: {error}")
        else:
            self._known = _known(tokens)
            logger.info("tokens were read again", extra={"fields": {"tokens": len(tokens)}})


def add(path: Path, name: str, roles: Collection[str], expires: datetime | None = None) -> str:
    """Make a token, and the file if there is none.

    Args:
        path: the file.
        name: whose it is, 1 to MAX_NAME printable characters.
        roles: at least one of ROLES.
        expires: when it ends, with a time zone; None never.

    Returns:
        The token. It is not kept: whoever loses it gets a new one.

    Raises:
        TokensError: an argument is not possible, or the file cannot be used.
    """
    if not 0 < len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
        raise TokensError(f"a name has 1 to {MAX_NAME} printable characters, no space around: not {name!r}")
    if not roles or (unknown := sorted(set(roles) - set(ROLES))):
        found = f"{unknown[0]!r} is none" if roles else "there is none"
        raise TokensError(f"a token has one or more of the roles {', '.join(ROLES)}: {found}")
    now = datetime.now(UTC).replace(microsecond=0)
    if expires is not None and (expires.tzinfo is None or expires <= now):
        raise TokensError(f"a token must end in the future, at a time with a time zone; {expires} is not")
    with durable.locked(path.with_name(f".{path.name}.lock")):
        tokens = _read(path)[0] if path.exists() else []
        taken = {token.id for token in tokens}
        identity = next(found for _ in range(100) if (found := secrets.token_hex(4)) not in taken)
        text = f"eai_{identity}_{secrets.token_urlsafe(32)}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        held: tuple[Role, ...] = tuple(role for role in ROLES if role in roles)
        _write(path, [*tokens, Token(identity, name, held, digest, now, expires)])
    return text


def revoke(path: Path, id: str) -> Token:
    """Remove a token; running services refuse it within CHECK_SECONDS.

    Returns:
        What it was.

    Raises:
        TokensError: there is none with this id, or the file cannot be used.
    """
    with durable.locked(path.with_name(f".{path.name}.lock")):
        tokens = _read(path)[0]
        revoked = next((token for token in tokens if token.id == id), None)
        if revoked is None:
            known = ", ".join(token.id for token in tokens) or "none at all"
            raise TokensError(f"{path} has no token with the id {id!r}, it has {known}")
        _write(path, [token for token in tokens if token.id != id])
    return revoked


def listed(path: Path) -> list[Token]:
    """All tokens of a file, the oldest first; those that have expired, too.

    Raises:
        TokensError: there is no such file, or it cannot be used.
    """
    return _read(path)[0]


def _known(tokens: list[Token]) -> dict[bytes, _Known]:
    return {
        token.id.encode(): _Known(
            bytes.fromhex(token.sha256),
            float("inf") if token.expires is None else token.expires.timestamp(),
            Caller(token.name, frozenset(token.roles)),
        )
        for token in tokens
    }


def _read(path: Path) -> tuple[list[Token], _Version]:
    try:
        with durable.open_regular(path) as file:
            found = os.fstat(file.fileno())
            _refuse_open(path, found)
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise TokensError(f"{path} has more than the {MAX_BYTES} bytes a file of tokens may have")
        tokens = msgspec.json.decode(data, type=_File).tokens
    except (OSError, DeliveryError) as error:
        raise TokensError(f"{path} cannot be read: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TokensError(f"{path} is no file of tokens: {error}") from error
    if len({token.id for token in tokens}) != len(tokens):
        raise TokensError(f"{path} is no file of tokens: two have the same id")
    return tokens, _version(found)


def _refuse_open(path: Path, found: os.stat_result) -> None:
    """Refuse a file that another user may have changed or read.

    As PostgreSQL with its key: the group may read a file of root's, as Kubernetes mounts a secret.
    """
    user = os.geteuid()
    if user and found.st_uid not in (0, user):
        raise TokensError(f"{path} belongs to user {found.st_uid}, it must be this user's ({user}) or root's")
    mode, allowed = stat.S_IMODE(found.st_mode), 0o640 if found.st_uid == 0 else 0o600
    if mode & ~0o700 & ~allowed:
        raise TokensError(f"{path} is open to other users (mode {mode:04o}): chmod {allowed:04o} {path}")


def _version(found: os.stat_result) -> _Version:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _write(path: Path, tokens: list[Token]) -> None:
    before = os.stat(path) if path.exists() else None
    with durable.replacing(path) as file:
        # Before anything is in it. Whose the file is stays: root may add a token for a service's own user.
        os.fchmod(file.fileno(), 0o600 if before is None else stat.S_IMODE(before.st_mode))
        if before is not None:
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
        file.write(msgspec.json.format(msgspec.json.encode(_File(tokens=tokens)), indent=1) + b"\n")
