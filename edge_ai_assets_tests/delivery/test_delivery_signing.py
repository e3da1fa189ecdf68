from __future__ import annotations

import base64
import json
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.delivery import signing
from edge_ai_assets.delivery.errors import DeliveryError, KeyFileError, UntrustedError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = KEY.public_key()
TYPE = "application/x"


def test_a_pair_is_made_loaded_and_fits(tmp_path):
    path = signing.create(tmp_path / "keys", "azure")
    assert path == tmp_path / "keys" / "azure.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    key, public = signing.load_private(path), signing.load_public(signing.public_path(path))
    signing.verify(public, signing.sign(key, b"x"), b"x")
    assert len(signing.sign(key, b"x")) == 64


@pytest.mark.parametrize("there", ["azure.pem", "azure.pub.pem"])
def test_a_key_is_never_overwritten_and_no_half_pair_left(tmp_path, there):
    (tmp_path / there).write_text("precious")
    with pytest.raises(KeyFileError, match="not overwritten"):
        signing.create(tmp_path, "azure")
    assert [p.name for p in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "precious"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "a b", "x" * 65])
def test_a_bad_name_is_refused(tmp_path, name):
    with pytest.raises(KeyFileError, match="no name for a key"):
        signing.create(tmp_path, name)


def pem(key, password=None):
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def public_pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


EC = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    "content", [b"", b"no key", pem(EC), pem(KEY, b"secret"), public_pem(KEY), pem(KEY)[:60], b"x" * 70_000]
)
def test_what_is_no_private_key_is_refused_by_path(tmp_path, content):
    path = tmp_path / "k.pem"
    path.write_bytes(content)
    with pytest.raises(DeliveryError, match=str(path)):
        signing.load_private(path)


@pytest.mark.parametrize("content", [b"", b"no key", public_pem(EC), pem(KEY), public_pem(KEY)[:60]])
def test_what_is_no_public_key_is_refused_by_path(tmp_path, content):
    path = tmp_path / "k.pub.pem"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=str(path)):
        signing.load_public(path)


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(DeliveryError, match="nowhere"):
        signing.load_private(tmp_path / "nowhere.pem")


def test_key_id_is_of_the_raw_public_key():
    assert signing.key_id(PUBLIC) == "56475aa75463474c"


def test_the_envelope_is_dsse():
    found = json.loads(signing.envelope(b"hello world", "http://example.com/HelloWorld", KEY))
    assert base64.b64decode(found["payload"]) == b"hello world"
    assert found["payloadType"] == "http://example.com/HelloWorld"
    (signature,) = found["signatures"]
    assert signature["keyid"] == signing.key_id(PUBLIC)
    # The protocol's own test vector for what is signed.
    signed = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    PUBLIC.verify(base64.b64decode(signature["sig"]), signed)


@given(st.binary(max_size=200), st.text(max_size=20))
def test_what_is_sealed_opens_with_any_trusted_key_and_the_same_bytes_come_twice(payload, kind):
    data = signing.envelope(payload, kind, KEY)
    assert signing.open_envelope(data, kind, [OTHER.public_key(), PUBLIC]) == payload
    assert signing.envelope(payload, kind, KEY) == data


def test_the_url_safe_alphabet_is_read_too():
    payload = bytes(range(256))
    found = json.loads(signing.envelope(payload, TYPE, KEY))
    found["payload"] = base64.urlsafe_b64encode(payload).decode()
    assert signing.open_envelope(json.dumps(found).encode(), TYPE, [PUBLIC]) == payload


def test_the_key_id_is_only_a_hint():
    found = json.loads(signing.envelope(b"x", TYPE, OTHER))
    found["signatures"][0]["keyid"] = signing.key_id(PUBLIC)
    with pytest.raises(UntrustedError, match="no valid signature"):
        signing.open_envelope(json.dumps(found).encode(), TYPE, [PUBLIC])
    found = json.loads(signing.envelope(b"x", TYPE, KEY))
    found["signatures"][0]["keyid"] = "wrong"
    assert signing.open_envelope(json.dumps(found).encode(), TYPE, [PUBLIC]) == b"x"


def test_one_good_signature_among_others_is_enough_but_many_are_refused():
    found = json.loads(signing.envelope(b"x", TYPE, KEY))
    foreign = json.loads(signing.envelope(b"x", TYPE, OTHER))["signatures"]
    found["signatures"] = foreign + found["signatures"]
    assert signing.open_envelope(json.dumps(found).encode(), TYPE, [PUBLIC]) == b"x"
    found["signatures"] *= 9
    with pytest.raises(UntrustedError, match="at most 16"):
        signing.open_envelope(json.dumps(found).encode(), TYPE, [PUBLIC])


@pytest.mark.parametrize("keys", [[], [OTHER.public_key()]])
def test_without_a_trusted_key_nothing_opens(keys):
    with pytest.raises(UntrustedError, match="no valid signature"):
        signing.open_envelope(signing.envelope(b"x", TYPE, KEY), TYPE, keys)


def test_a_statement_of_another_type_is_refused_whoever_signed_it():
    with pytest.raises(UntrustedError, match="must be 'application/y'"):
        signing.open_envelope(signing.envelope(b"x", TYPE, KEY), "application/y", [PUBLIC])


def test_type_and_payload_cannot_be_shifted_into_each_other():
    found = json.loads(signing.envelope(b"payload", "ab", KEY))
    found["payloadType"], found["payload"] = "a", base64.b64encode(b"bpayload").decode()
    with pytest.raises(UntrustedError):
        signing.open_envelope(json.dumps(found).encode(), "a", [PUBLIC])


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b"null", b"\xff",
        b'{"payload": 1, "payloadType": "application/x", "signatures": []}',
        b'{"payload": "!", "payloadType": "application/x", "signatures": []}',
        b'{"payload": "", "payloadType": "application/x", "signatures": []}',
        b'{"payload": "", "payloadType": "application/x", "signatures": [{"keyid": "", "sig": "AA=="}]}',
        b'{"payload": "", "payloadType": "application/x", "signatures": [{"keyid": "", "sig": "\xc3\xa4"}]}',
    ],
)  # fmt: skip
def test_what_is_no_envelope_is_refused(data):
    with pytest.raises(DeliveryError):
        signing.open_envelope(data, TYPE, [PUBLIC])


def test_every_flipped_byte_is_refused_or_changes_nothing():
    good = signing.envelope(b"the payload", TYPE, KEY)
    for position in range(len(good)):
        for flip in (1, 0x20, 0x80):
            bad = bytearray(good)
            bad[position] ^= flip
            try:
                assert signing.open_envelope(bytes(bad), TYPE, [PUBLIC]) == b"the payload"
            except DeliveryError:
                continue


@given(st.binary(min_size=1, max_size=80), st.integers(0, 511))
def test_a_changed_payload_or_signature_does_not_verify(payload, bit):
    signature = bytearray(signing.sign(KEY, payload))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(UntrustedError):
        signing.verify(PUBLIC, bytes(signature), payload)
    with pytest.raises(UntrustedError):
        signing.verify(PUBLIC, signing.sign(KEY, payload), payload + b"x")


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_a_signature_of_the_wrong_length_is_refused(signature):
    with pytest.raises(UntrustedError):
        signing.verify(PUBLIC, signature, b"x")
