"""Ed25519 keys as PEM files, signatures, and DSSE envelopes around signed statements.

What is stated is up to `release` and to the packages that come home. Which keys to trust is the caller's
decision. Source: https://github.com/secure-systems-lab/dsse (protocol and envelope, v1.0).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_ai_assets.delivery import durable
from edge_ai_assets.delivery.errors import KeyFileError, UntrustedError
from edge_ai_assets.delivery.manifest import decode

MAX_KEY_FILE = 1 << 16
MAX_SIGNATURES = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class _Signature(msgspec.Struct, frozen=True):
    keyid: str
    sig: str


class _Envelope(msgspec.Struct, frozen=True, rename={"payload_type": "payloadType"}):
    payload: str
    payload_type: str
    signatures: tuple[_Signature, ...]


def create(folder: Path, name: str) -> Path:
    """Make a key pair: `NAME.pem`, readable by its owner alone, and `NAME.pub.pem`, to be given away.

    Returns:
        The path of the private key.

    Raises:
        KeyFileError: a bad name, or one of the files exists: a key is never overwritten.
    """
    if not _NAME.fullmatch(name):
        raise KeyFileError(f"{name!r} is no name for a key: letters, digits, '.', '_' and '-', at most 64")
    private, public = folder / f"{name}.pem", public_path(folder / f"{name}.pem")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Ed25519PrivateKey.generate()
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_new(private, secret, 0o600)
    try:
        _write_new(
            public,
            key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo),
            0o644,
        )
    except BaseException:
        private.unlink()  # made just now and used by nobody
        raise
    durable.sync_folder(folder)
    return private


def public_path(private: Path) -> Path:
    """Where `create` puts the public half of a private key."""
    return private.with_name(f"{private.stem}.pub.pem")


def load_private(path: Path) -> Ed25519PrivateKey:
    """Read a private key; KeyFileError when it is none, or cannot be read."""
    try:
        key = serialization.load_pem_private_key(durable.read_bounded(path, MAX_KEY_FILE), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path} is no unencrypted private key in PEM form: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} is a private key of another kind, it must be Ed25519")
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """Read a public key; KeyFileError when it is none."""
    try:
        key = serialization.load_pem_public_key(durable.read_bounded(path, MAX_KEY_FILE))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path} is no public key in PEM form: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path} is a public key of another kind, it must be Ed25519")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the raw key: for people, never for a decision."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign(key: Ed25519PrivateKey, payload: bytes) -> bytes:
    """The signature, 64 bytes; the same key and payload give the same one."""
    return key.sign(payload)


def verify(key: Ed25519PublicKey, signature: bytes, payload: bytes) -> None:
    """Raise UntrustedError unless `key` signed exactly these bytes."""
    try:
        key.verify(signature, payload)
    except InvalidSignature:
        raise UntrustedError(f"the signature is not one of key {key_id(key)} over these bytes") from None


def envelope(payload: bytes, payload_type: str, key: Ed25519PrivateKey) -> bytes:
    """A DSSE envelope, as JSON: the payload, its type and one signature over both."""
    signature = _Signature(key_id(key.public_key()), _base64(sign(key, _pae(payload_type, payload))))
    return msgspec.json.encode(_Envelope(_base64(payload), payload_type, (signature,)))


def open_envelope(data: bytes, payload_type: str, keys: Sequence[Ed25519PublicKey]) -> bytes:
    """The payload of an envelope that at least one of `keys` signed.

    Raises:
        MalformedError: it is no envelope.
        UntrustedError: it is of another type, or no signature checks out against any of the keys. Key ids in
            it are hints from whoever made it and are not relied upon.
    """
    found = _of_type(data, payload_type)
    if len(found.signatures) > MAX_SIGNATURES:
        raise UntrustedError(
            f"{len(found.signatures)} signatures are refused, at most {MAX_SIGNATURES} are looked at"
        )
    payload = _unbase64(found.payload)
    signed = _pae(payload_type, payload)
    for signature in found.signatures:
        for key in keys:
            try:
                verify(key, _unbase64(signature.sig), signed)
            except UntrustedError:
                continue
            return payload
    trusted = ", ".join(key_id(key) for key in keys) or "none"
    claimed = ", ".join(repr(signature.keyid) for signature in found.signatures) or "nobody"
    raise UntrustedError(
        f"no valid signature of a trusted key (trusted: {trusted}; it claims to be signed by {claimed})"
    )


def payload_of(data: bytes, payload_type: str) -> bytes:
    """The payload of an envelope whose bytes are believed for another reason than its signatures.

    Raises:
        MalformedError: it is no envelope.
        UntrustedError: it is of another type.
    """
    return _unbase64(_of_type(data, payload_type).payload)


def _of_type(data: bytes, payload_type: str) -> _Envelope:
    found = decode(data, _Envelope, "envelope")
    if found.payload_type != payload_type:
        raise UntrustedError(
            f"a statement of type {found.payload_type!r} is refused here, it must be {payload_type!r}"
        )
    return found


def _pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: with it, type and payload cannot be shifted into each other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str) -> bytes:
    try:
        # The protocol lets the writer choose between the standard and the URL-safe alphabet.
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UntrustedError(f"an envelope is refused: a part of it is no base64 ({error})") from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise KeyFileError(
            f"{path} exists and is not overwritten; choose another name or move it away"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink()
        raise
