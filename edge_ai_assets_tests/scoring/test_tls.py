"""TLS: what is spoken, what is refused with a reason, and a renewed certificate without a restart."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_ai_assets.scoring import tls
from edge_ai_assets.scoring.tls import TlsError, context

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Pair(NamedTuple):
    certificate: Path
    key: Path


def write(
    pair: Pair,
    name: str = "site",
    days: float = 90,
    since: float = -1,
    key: Key | None = None,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    password: bytes | None = None,
) -> Pair:
    """A certificate signed by itself, for localhost, valid from `since` to `days` days from now."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=min(since, days - 1)))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    pair.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return pair


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return write(Pair(tmp_path / "tls.crt", tmp_path / "tls.key"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(tls, "monotonic", lambda: now[0])
    return now


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


class Met(NamedTuple):
    name: str
    version: str | None
    alpn: str | None
    cipher: str


def meet(server: ssl.SSLContext, client: ssl.SSLContext, hostname: str | None = "localhost") -> Met:
    """A handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=hostname)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (ours, theirs) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    found = ours.getpeercert(binary_form=True)
    assert found is not None
    name = x509.load_der_x509_certificate(found).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    cipher = ours.cipher()
    assert cipher is not None
    return Met(str(name), ours.version(), ours.selected_alpn_protocol(), cipher[0])


def anything() -> ssl.SSLContext:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    return client


def test_a_client_that_trusts_the_certificate_gets_tls_1_3(pair):
    client = trusting(pair.certificate)
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert meet(context(*pair), client)[:3] == ("site", "TLSv1.3", "http/1.1")


def test_tls_1_2_is_spoken_with_forward_secrecy(pair):
    client = trusting(pair.certificate)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    met = meet(context(*pair), client)
    assert met.version == "TLSv1.2" and met.cipher.startswith("ECDHE") and "GCM" in met.cipher


@pytest.mark.filterwarnings("ignore:.*TLSv1")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_ones_are_not_spoken(pair, version):
    client = anything()
    client.minimum_version = client.maximum_version = version
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        meet(context(*pair), client)


@pytest.mark.parametrize(
    "cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"]
)
def test_weak_ciphers_are_not_spoken(pair, cipher):
    client = anything()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        meet(context(*pair), client)


def no_certificate(pair):
    pair.certificate.unlink()


def no_key(pair):
    pair.key.unlink()


def a_folder(pair):
    pair.key.unlink()
    pair.key.mkdir()


def empty(pair):
    pair.certificate.write_bytes(b"")


def no_pem(pair):
    pair.certificate.write_bytes(b"\x30\x82\x01")


def half(pair):
    pair.certificate.write_bytes(pair.certificate.read_bytes()[:-60])


def swapped(pair):
    a, b = pair.certificate.read_bytes(), pair.key.read_bytes()
    pair.certificate.write_bytes(b)
    pair.key.write_bytes(a)


def other_key(pair):
    write(Pair(pair.certificate.with_name("other.crt"), pair.key))


def encrypted(pair):
    write(pair, password=b"secret")


def for_clients(pair):
    write(pair, usage=ExtendedKeyUsageOID.CLIENT_AUTH)


def weak(pair):
    write(pair, key=rsa.generate_private_key(65537, 1024))


UNUSABLE: list[tuple[Callable[[Pair], None], str]] = [
    (no_certificate, "tls.crt cannot be read: No such file"),
    (no_key, "tls.key cannot be read: No such file"),
    (a_folder, "tls.key cannot be read: Is a directory"),
    (empty, "tls.crt and .*tls.key cannot be used"),
    (no_pem, "tls.crt and .*tls.key cannot be used"),
    (half, "tls.crt and .*tls.key cannot be used"),
    (swapped, "tls.crt and .*tls.key cannot be used"),
    (other_key, "tls.key is not the key of the first certificate in .*tls.crt"),
    (encrypted, "tls.key is encrypted"),
    (for_clients, "tls.crt would be refused by clients: unsuitable certificate purpose"),
    (weak, "EE_KEY_TOO_SMALL"),
]
IDS = [spoil.__name__ for spoil, _ in UNUSABLE]


@pytest.mark.parametrize(("spoil", "reason"), UNUSABLE, ids=IDS)
def test_files_that_cannot_be_used_are_refused_with_a_reason(pair, spoil, reason):
    spoil(pair)
    with pytest.raises(TlsError, match=reason):
        context(*pair)


@pytest.mark.parametrize(
    ("days", "since", "said"),
    [
        (-3, -90, "expired 3 days ago"),
        (5, -90, "expires in 5 days"),
        (90, -1, None),
        (90, 2, "not valid before 2 days"),
    ],
)
def test_the_end_of_a_certificate_is_announced_in_days(pair, days, since, said, caplog):
    write(pair, days=days, since=since)
    with caplog.at_level(logging.WARNING):
        assert meet(context(*pair), anything()).name == "site"  # it is for clients to refuse it
    assert (said in caplog.text) if said else not caplog.records


@pytest.mark.parametrize("hostname", ["localhost", None], ids=["named", "by address"])
def test_a_renewed_certificate_is_used_without_a_restart(pair, clock, hostname):
    server = context(*pair)
    assert meet(server, anything(), hostname).name == "site"
    write(pair, "renewed")
    assert meet(server, anything(), hostname).name == "site"  # the files are not looked at each time
    clock[0] += tls.CHECK_SECONDS + 1
    assert meet(server, anything(), hostname).name == "renewed"
    write(pair, "again")
    clock[0] += tls.CHECK_SECONDS + 1
    assert meet(server, anything(), hostname)[:3:2] == ("again", None)
    client = anything()
    client.set_alpn_protocols(["http/1.1"])
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    met = meet(server, client, hostname)
    assert (met.name, met.alpn) == ("again", "http/1.1") and met.cipher.startswith("ECDHE")


@pytest.mark.parametrize(("spoil", "reason"), UNUSABLE, ids=IDS)
def test_a_renewal_that_fails_changes_nothing_and_is_reported_once(pair, clock, spoil, reason, caplog):
    server = context(*pair)
    spoil(pair)
    for _ in range(3):
        clock[0] += tls.CHECK_SECONDS + 1
        assert meet(server, anything()).name == "site"
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1 and "stays as it was" in caplog.text
    if pair.key.is_dir():
        pair.key.rmdir()
    write(pair, "repaired")
    clock[0] += tls.CHECK_SECONDS + 1
    assert meet(server, anything()).name == "repaired"


def test_the_end_is_announced_again_every_day(pair, clock, monkeypatch, caplog):
    write(pair, days=5)
    server = context(*pair)
    now = tls.time()
    for hours in (1, 12, 25, 26, 47, 51):
        monkeypatch.setattr(tls, "time", lambda hours=hours: now + hours * 3600)
        clock[0] += tls.CHECK_SECONDS + 1
        meet(server, anything())
    assert [record.getMessage().rpartition(" in ")[2] for record in caplog.records] == [
        "5 days",
        "4 days",
        "3 days",
    ]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_connections_that_are_open_go_on_while_a_new_one_gets_the_new_certificate(pair, clock, loop):
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def run() -> list[str]:
        names = []
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context(*pair))
        port = server.sockets[0].getsockname()[1]
        pairs = []
        for name in ("site", "renewed", "renewed"):
            if name != "site":
                write(pair, "renewed")
                clock[0] += tls.CHECK_SECONDS + 1
            pairs.append(await asyncio.open_connection("127.0.0.1", port, ssl=anything()))
            found = pairs[-1][1].get_extra_info("ssl_object").getpeercert(binary_form=True)
            subject = x509.load_der_x509_certificate(found).subject
            names.append(str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value))
        for reader, writer in pairs:
            writer.write(b"still there\n")
            assert await asyncio.wait_for(reader.readline(), 5) == b"still there\n"
            writer.close()
        server.close()
        return names

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(run()) == ["site", "renewed", "renewed"]
