"""One REST service: patience with outages, and what is said of answers. What is asked of services is tested
with each of them."""

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.resources.calling.control_plane import ControlPlane
from edge_ai_assets.resources.calling.patience import Patience, Refused, Unavailable
from edge_ai_assets_tests.contract.control_plane_stub import Reply, Time, Tokens, serving

WAITS = st.lists(st.one_of(st.none(), st.floats(0, 10_000)), max_size=60)


def patient(time, seconds=600.0):
    return Patience(seconds=seconds, sleep=time.sleep, clock=time.clock)


@given(WAITS, st.floats(0, 2_000))
def test_patience_ends_in_time_and_waits_as_it_was_asked(waits, seconds):
    """Whatever a service asks for: nobody waits longer than allowed, in all or at once."""
    time, left, tried = Time(), list(waits), []

    def attempt():
        tried.append(time.now)
        if left:
            raise Unavailable("later", wait=left.pop(0))
        return "done"

    try:
        assert patient(time, seconds).persist(attempt) == "done"
        assert len(tried) == len(waits) + 1
    except Unavailable:
        assert len(tried) <= len(waits)
    assert time.now <= seconds
    for slept, asked in zip(time.slept, waits, strict=False):
        assert slept <= 60 and (asked is None or slept >= min(asked, 60))


def test_pauses_double_up_to_a_bound():
    pauses = [pause for pause, _ in zip(Patience().pauses(), range(9), strict=False)]
    assert all(
        0.9 * wanted <= pause <= wanted
        for pause, wanted in zip(pauses, [2, 4, 8, 16, 32, 60, 60, 60, 60], strict=True)
    )


def test_a_refusal_is_not_tried_again():
    time, tried = Time(), []

    def attempt():
        tried.append(1)
        raise Refused("no")

    with pytest.raises(Refused):
        patient(time).persist(attempt)
    assert len(tried) == 1 and time.slept == []


@pytest.fixture
def stub(tmp_path):
    with serving(tmp_path) as made:
        made.route("GET", "/x", lambda asked, match: Reply(body={"x": 1}))
        yield made


@pytest.fixture
def plane(stub):
    return ControlPlane(stub.endpoint, Tokens(), "scope", stub.ca)


def date(seconds):
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [("17", 17, 17), (3_000, 2_900, 3_000), (-3_000, 0, 0), ("0", 0, 0)],
)
def test_retry_after_is_seconds_or_a_date(stub, plane, value, low, high):
    told = date(value) if isinstance(value, int) else value
    stub.fail("GET", Reply(503, None, {"Retry-After": told}))
    with pytest.raises(Unavailable) as told:
        plane.call("asking", "GET", "/x")
    assert low <= told.value.wait <= high


@pytest.mark.parametrize("value", ["soon", "-1", "1e9", "Mon, 99 Foo 2026", ""])
def test_a_retry_after_that_is_none_is_left_out(stub, plane, value):
    stub.fail("GET", Reply(429, None, {"Retry-After": value}))
    with pytest.raises(Unavailable) as told:
        plane.call("asking", "GET", "/x")
    assert told.value.wait is None or told.value.wait == 0


@pytest.mark.parametrize(
    ("status", "done"), [(408, False), (429, False), (503, False), (500, True), (504, True)]
)
def test_after_which_answers_it_may_have_been_done(stub, plane, status, done):
    stub.fail("GET", Reply(status))
    with pytest.raises(Unavailable) as told:
        plane.call("asking", "GET", "/x")
    assert told.value.done is done


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"7", b'"text"', b"\xff\xfe", b'{"error": 5}', b'{"error": {"code": null}}', b"<html>"],
)
def test_an_error_of_any_shape_is_a_sentence(stub, plane, body):
    stub.fail("GET", Reply(400, body))
    with pytest.raises(Refused, match=r"^asking: 127\.0\.0\.1:\d+ refuses \(400.*\): "):
        plane.call("asking", "GET", "/x")


def test_nobody_there_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    plane = ControlPlane(f"https://127.0.0.1:{port}", Tokens(), "scope")
    with pytest.raises(Unavailable, match="out of reach") as told:
        plane.call("asking", "GET", "/x")
    assert not told.value.done


def test_a_token_goes_over_tls_alone():
    credential = Tokens()
    with pytest.raises(Refused, match="no https:// address"):
        ControlPlane("http://127.0.0.1:1", credential, "scope").call("asking", "GET", "/x")
    assert credential.given == 0


def test_a_credential_is_not_shown(plane):
    assert "Tokens" not in repr(plane)


def test_a_body_that_is_not_as_documented_is_refused(stub, plane):
    assert plane.call("asking", "GET", "/x").read(dict[str, int]) == {"x": 1}
    with pytest.raises(Refused, match=r"asking: the answer is not as documented: Expected `str`"):
        plane.call("asking", "GET", "/x").read(dict[str, str])
