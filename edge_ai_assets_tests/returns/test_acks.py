"""Acknowledgements: what was signed is read back, anything else is refused with a sentence."""

from __future__ import annotations

import hashlib
import itertools
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.delivery.signing import envelope
from edge_ai_assets.returns.road import acks
from edge_ai_assets.returns.road.acks import Ack, AckError

KEY = Ed25519PrivateKey.from_private_bytes(b"release key of the tests, 32 b..")
STRANGER = Ed25519PrivateKey.from_private_bytes(b"x" * 32)
KEYS = [STRANGER.public_key(), KEY.public_key()]
DIGEST = "0123456789abcdef" * 4
GOOD = {"site": "bergen", "number": 7, "digest": DIGEST, "at": 1_760_000_000_000_000, "format": 1}
DATA = acks.make("bergen", 7, DIGEST, GOOD["at"], KEY)


def sealed(payload, kind=acks.PAYLOAD_TYPE, key=KEY):
    return envelope(payload if isinstance(payload, bytes) else json.dumps(payload).encode(), kind, key)


@given(st.integers(1, 2**63 - 1), st.binary(min_size=32, max_size=32), st.integers(-(2**62), 2**62))
def test_what_was_made_is_read(number, digest, at):
    data = acks.make("bergen", number, digest.hex(), at, KEY)
    assert acks.read(data, "bergen", KEYS) == Ack("bergen", number, digest.hex(), at)
    assert data == acks.make("bergen", number, digest.hex(), at, KEY)
    assert len(data) < 1_000


def test_the_bytes_of_format_1_stay_as_they_are():
    """Frozen: sites of older versions read them."""
    assert (
        hashlib.sha256(DATA).hexdigest() == "600c1375d8f4dde03bfa865553a323f75e1cf5361f15ac8d97473f7b3729773f"
    )


def test_another_writer_may_order_the_fields_as_it_likes():
    assert acks.read(sealed(dict(reversed(GOOD.items()))), "bergen", KEYS).number == 7


@pytest.mark.parametrize("keys", [[], KEYS[:1]])
def test_what_no_trusted_key_signed_is_refused(keys):
    with pytest.raises(AckError, match="no valid signature"):
        acks.read(DATA, "bergen", keys)


def test_an_acknowledgement_for_another_site_is_refused():
    with pytest.raises(AckError, match="is for site 'bergen', it was found at 'narvik'"):
        acks.read(DATA, "narvik", KEYS)


def test_a_return_package_s_manifest_is_none():
    with pytest.raises(AckError, match="of type"):
        acks.read(sealed(GOOD, "application/vnd.edge-ai.return-package+json"), "bergen", KEYS)


def test_it_is_bounded_before_it_is_looked_at():
    with pytest.raises(AckError, match=r"has 65,537 bytes, at most 65,536"):
        acks.read(b"{" * (acks.MAX_BYTES + 1), "bergen", KEYS)


def test_a_changed_bit_is_refused_or_says_the_same():
    """The key's id is a hint that nobody relies upon, and base64 has bits at its end that say nothing."""
    refused = 0
    for place, bit in itertools.product(range(len(DATA)), range(8)):
        changed = DATA[:place] + bytes([DATA[place] ^ 1 << bit]) + DATA[place + 1 :]
        try:
            assert acks.read(changed, "bergen", KEYS) == acks.read(DATA, "bergen", KEYS)
        except AckError:
            refused += 1
    assert refused > 0.9 * 8 * len(DATA)


@given(st.integers(0, len(DATA) - 1))
def test_a_truncated_one_is_refused(length):
    with pytest.raises(AckError):
        acks.read(DATA[:length], "bergen", KEYS)


@given(st.binary(max_size=200))
def test_whatever_is_signed_it_is_an_acknowledgement_or_refused(payload):
    with pytest.raises(AckError):
        acks.read(sealed(payload), "bergen", KEYS)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"format": "1"}, "format '1'"),
        ({"number": 0}, "number"),
        ({"number": -3}, "number"),
        ({"number": 1 << 63}, "number"),
        ({"number": 1.5}, "number"),
        ({"number": True}, "number"),
        ({"digest": "0" * 63}, "digest"),
        ({"digest": "g" * 64}, "digest"),
        ({"digest": DIGEST + "\n"}, "digest"),
        ({"site": None}, "site"),
        ({"at": "now"}, "at"),
        ({"more": 1}, "more"),
    ],
)
def test_a_signed_one_of_another_form_is_refused(changed, said):
    with pytest.raises(AckError, match=said):
        acks.read(sealed(GOOD | changed), "bergen", KEYS)


@pytest.mark.parametrize("missing", ["site", "number", "digest", "at", "format"])
def test_a_field_that_is_missing_is_named(missing):
    with pytest.raises(AckError, match=missing):
        acks.read(sealed({name: value for name, value in GOOD.items() if name != missing}), "bergen", KEYS)
