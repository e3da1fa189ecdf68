"""What the account may answer to a mirror: busy is waited for, a little; the rest is one sentence.

The answers are a contract stub: those that no emulator can be made to give.
"""

from __future__ import annotations

import time

import pytest

from edge_ai_assets.resources.calling.patience import Patience
from edge_ai_assets.resources.mirror.blob_mirror import PATIENCE, BlobMirror, MirrorError
from edge_ai_assets.resources.storage.account import Account, Busy
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets_tests.integration.faults import Proxy

credentials = pytest.importorskip("azure.core.credentials", reason="the extra with Azure's storage clients")
SECRET = "c2lnbmF0dXJl"


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def __call__(self) -> float:
        return sum(self.slept)

    @property
    def patience(self) -> Patience:
        return Patience(PATIENCE.seconds, PATIENCE.first, PATIENCE.most, self.slept.append, self)


@pytest.fixture
def pushing(tmp_path):
    """Push one file to something that gives one answer to all; how long it was waited for."""
    (tmp_path / "lake/raw_telemetry").mkdir(parents=True)
    (tmp_path / "lake/raw_telemetry/a.parquet").write_bytes(b"x")

    def pushing(answer: str) -> Clock:
        clock = Clock()
        head, _, headers = answer.partition("|")
        reply = f"HTTP/1.1 {head}\r\n{headers}Content-Length: 0\r\n\r\n".encode()
        with Proxy(0, answer=reply) as proxy:
            account = Account(
                f"http://127.0.0.1:{proxy.port}/cloud",
                credentials.AzureSasCredential(f"sv=2021-12-02&sr=c&sig={SECRET}"),
                connect_seconds=1.0,
                read_seconds=20.0,
            )
            far = BlobMirror(account, "lake", tmp_path / "lake", tmp_path / "n", patience=clock.patience)
            pushing.clock, pushing.asked = clock, proxy.sent
            far.push(tmp_path / "lake")
        return clock

    return pushing


@pytest.mark.parametrize(
    ("answer", "slept"),
    [
        ("503 Server Busy|Retry-After: 7\r\n", [7.0, 7.0, 7.0]),
        ("429 Too Many Requests|Retry-After: 3600\r\n", [10.0, 10.0, 10.0]),
        ("500 Internal Error", []),
        ("503 Server Busy|Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n", []),
    ],
)
def test_a_busy_account_is_left_alone_as_it_asks_but_not_for_long(pushing, answer, slept):
    began = time.monotonic()
    with pytest.raises(LinkDown, match=r"sending raw_telemetry/a\.parquet: 127.* too busy or out of order"):
        pushing(answer)
    assert time.monotonic() - began < 20
    assert pushing.clock.slept[: len(slept)] == slept
    assert 10 < sum(pushing.clock.slept) <= PATIENCE.seconds


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        ("403 No|x-ms-error-code: AuthenticationFailed\r\n", MirrorError, "clock here is right"),
        ("401 Who", MirrorError, "refuses the credential"),
        ("404 No|x-ms-error-code: ContainerNotFound\r\n", MirrorError, "no such place"),
        ("400 No|x-ms-error-code: InvalidHeaderValue\r\n", MirrorError, "refuses"),
        ("200 OK", LinkDown, "something else than storage"),
        ("302 Found|Location: /\r\n", LinkDown, "something else|out of reach"),
    ],
)
def test_other_answers_are_one_sentence_at_once(pushing, answer, error, says):
    with pytest.raises(error, match=says) as raised:
        pushing(answer)
    assert pushing.clock.slept == [] and SECRET not in str(raised.value)


def test_busy_says_for_how_long():
    busy = Busy("x")
    assert busy.after is None and isinstance(busy, LinkDown)
