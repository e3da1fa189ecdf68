"""A signature for a hub: what is in it, and that each part of it is signed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.resources.storage.hub_sas import PERMISSIONS, container_sas

credentials = pytest.importorskip("azure.core.credentials", reason="the extra with Azure's storage clients")
KEY = credentials.AzureNamedKeyCredential("acct", "a2V5a2V5a2V5a2V5")
EXPIRY = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def signed(**changes):
    given = {"key": KEY, "container": "uplink", "permissions": "rcw", "expiry": EXPIRY, **changes}
    return {name: value[0] for name, value in parse_qs(container_sas(**given)).items()}


def test_what_is_in_it():
    found = signed()
    assert found.pop("sig")
    assert found == {
        "sp": "rcw",
        "se": "2030-01-02T03:04:05Z",
        "spr": "https",
        "sv": "2019-07-07",
        "sr": "c",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"key": credentials.AzureNamedKeyCredential("other", "a2V5a2V5a2V5a2V5")},
        {"key": credentials.AzureNamedKeyCredential("acct", "b3RoZXJvdGhlcm90")},
        {"container": "other"},
        {"permissions": "rcwl"},
        {"expiry": EXPIRY + timedelta(seconds=1)},
        {"start": EXPIRY - timedelta(days=1)},
        {"https": False},
    ],
)
def test_each_part_is_signed(change):
    assert signed(**change)["sig"] != signed()["sig"]


def test_a_time_is_the_same_in_any_zone():
    assert signed(expiry=EXPIRY.astimezone(timezone(timedelta(hours=5)))) == signed()


@given(st.permutations(PERMISSIONS), st.integers(1, len(PERMISSIONS)))
def test_permissions_are_written_in_the_order_that_is_asked_for(letters, count):
    found = signed(permissions="".join(letters[:count]))["sp"]
    assert sorted(found) == sorted(letters[:count])
    assert [PERMISSIONS.index(letter) for letter in found] == sorted(PERMISSIONS.index(x) for x in found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"permissions": "rx"}, r"\['x'\] are unknown"),
        ({"permissions": ""}, "are empty"),
        ({"expiry": EXPIRY.replace(tzinfo=None)}, "expiry .* has no time zone"),
        ({"start": EXPIRY.replace(tzinfo=None)}, "start .* has no time zone"),
        ({"key": credentials.AzureNamedKeyCredential("acct", "no key!")}, "no base64"),
    ],
)
def test_what_cannot_be_signed_is_said(change, says):
    with pytest.raises(ValueError, match=says) as raised:
        signed(**change)
    assert "no key!" not in str(raised.value)
