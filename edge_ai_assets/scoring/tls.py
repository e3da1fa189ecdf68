"""TLS for the service: a context from a certificate and its key, which takes up renewed ones by itself.

Who may ask is `tokens`' matter, on which addresses TLS is a must is `serve`'s.

Source: RFC 9325 (recommendations for TLS); Mozilla, Server Side TLS, "intermediate".
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from time import monotonic, time
from typing import NoReturn

from edge_ai_assets.scoring.logs import logger

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption only. Those of 1.3 all have both."""
CHECK_SECONDS = 10.0
"""How often, at most, the files are looked at; a handshake does it, so an idle service does not."""
REMIND_DAYS = 14
DAY = 86_400.0
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name


class TlsError(ValueError):
    """A certificate or key that cannot be used; the message says which and why."""


def context(certificate: Path, key: Path) -> ssl.SSLContext:
    """The context of a server that speaks HTTP/1.1 over TLS 1.2 or 1.3.

    When the files change, connections made from then on get the new certificate, within CHECK_SECONDS; those
    that are open keep the old one. New files that cannot be used are reported in the log and change nothing.
    A certificate that has ended, or will in REMIND_DAYS, is a warning in the log, every day.

    Args:
        certificate: PEM, the server's own first, then those between it and a root.
        key: PEM, not encrypted.

    Raises:
        TlsError: a file is missing or is something else, or the two do not belong together.
    """
    found = _load(certificate, key)
    found.sni_callback = _Renewal(certificate, key, found)
    return found


class _Renewal:
    """Called with every handshake, whether the client names a server or not.

    Another context takes the place of the first, instead of new files being loaded into it: between its
    certificate and its key a context is neither the old nor the new one, and stays so if they do not match.
    """

    def __init__(self, certificate: Path, key: Path, first: ssl.SSLContext) -> None:
        self._certificate, self._key = certificate, key
        self._current = first
        self._version = _version(certificate, key)
        self._look_at = monotonic() + CHECK_SECONDS
        self._remind_at = time() + DAY

    def __call__(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if monotonic() > self._look_at:
            self._look_at = monotonic() + CHECK_SECONDS
            self._refresh()
        connection.context = self._current

    def _refresh(self) -> None:
        version = _version(self._certificate, self._key)
        if version == self._version and time() < self._remind_at:
            return
        changed, self._version = version != self._version, version
        self._remind_at = time() + DAY
        try:
            self._current = _load(self._certificate, self._key)
        except TlsError as error:
            logger.error(f"the certificate stays as it was before: {error}")
        else:
            if changed:
                logger.info(f"a new certificate is used from now on: {self._certificate}")


def _load(certificate: Path, key: Path) -> ssl.SSLContext:
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise TlsError(f"{path} cannot be read: {error.strerror}") from error
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    found.set_ciphers(CIPHERS)
    found.set_alpn_protocols(["http/1.1"])
    found.options |= ssl.OP_NO_RENEGOTIATION

    def encrypted() -> NoReturn:  # otherwise it would be asked for on a terminal
        raise TlsError(f"{key} is encrypted; the service needs a key without a password, mode 0600")

    try:
        found.load_cert_chain(certificate, key, encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"{key} is not the key of the first certificate in {certificate}") from error
        reason = error.reason or "one of them is no PEM file"
        raise TlsError(f"{certificate} and {key} cannot be used: {reason}") from error
    _warn(certificate, *_validity(found, certificate))
    return found


def _validity(server: ssl.SSLContext, certificate: Path) -> tuple[float, float]:
    """When a server's certificate begins and ends, in seconds since 1970.

    By a handshake in memory: the standard library only reads the certificate of a peer, and it is seen
    whether one works that loads well, but is for something else or too weak.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(certificate)
    client.verify_flags = ssl.VerifyFlags(ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = client.wrap_bio(to_client, to_server)
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (peer, ours, peer, ours):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            raise TlsError(f"{certificate} would be refused by clients: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise TlsError(f"{certificate} cannot be used: {error.reason}") from error
    found = peer.getpeercert()
    assert found is not None
    begins, ends = (ssl.cert_time_to_seconds(str(found[name])) for name in ("notBefore", "notAfter"))
    return begins, ends


def _warn(certificate: Path, begins: float, ends: float) -> None:
    now = time()
    if ends < now:
        logger.warning(f"{certificate} expired {(now - ends) / DAY:.0f} days ago: clients refuse it")
    elif ends < now + REMIND_DAYS * DAY:
        logger.warning(f"{certificate} expires in {(ends - now) / DAY:.0f} days")
    if begins > now:
        logger.warning(f"{certificate} is not valid before {(begins - now) / DAY:.0f} days from now")


def _version(*paths: Path) -> list[tuple[int, ...]]:
    """Differs when a file is another one than before; a missing one is a version, too."""
    versions: list[tuple[int, ...]] = []
    for path in paths:
        try:
            found = os.stat(path)
            versions.append((found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
        except OSError as error:
            versions.append((error.errno or 0,))
    return versions
