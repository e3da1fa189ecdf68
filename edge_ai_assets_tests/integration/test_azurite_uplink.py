"""The uplink to Blob Storage against a real server: resumed, created once, cut, hung, refused."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from pathlib import Path

import pytest

from edge_ai_assets.resources.uplink import blob_uplink
from edge_ai_assets.resources.uplink.blob_uplink import (
    COST,
    LARGE,
    MOST,
    ONE_REQUEST,
    RANGE,
    UNDER_WAY,
    BlobUplink,
)
from edge_ai_assets.returns.road import acks
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.returns.road.pace import SLICE, Pace
from edge_ai_assets.returns.road.uplink import UplinkError
from edge_ai_assets_tests.integration.azurite import Azurite, azurite
from edge_ai_assets_tests.integration.faults import Proxy
from edge_ai_assets_tests.ports import free_port

pytestmark = pytest.mark.integration
__all__ = ["azurite"]
NAME = "bergen-00000001.zip"
BLOCK = UNDER_WAY // COST


@pytest.fixture(autouse=True)
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Azurite answers at once, and most of this is about the small blocks of a long link."""
    monkeypatch.setattr(blob_uplink, "LONG_SECONDS", 0.0)


@pytest.fixture
def container(azurite: Azurite, request: pytest.FixtureRequest) -> str:
    return azurite.container(f"c{random.randrange(10**12)}")


class Package:
    def __init__(self, folder: Path, size: int, seed: int = 0) -> None:
        data = random.Random(seed).randbytes(size)
        self.path, self.digest = folder / f"{seed}.zip", hashlib.sha256(data).hexdigest()
        self.path.write_bytes(data)
        self.left: list[tuple[int, int]] = []

    def through(self, uplink: BlobUplink) -> int:
        return uplink.send(self.path, NAME, self.digest, lambda first, last: self.left.append((first, last)))


def content(azurite: Azurite, container: str, name: str = NAME) -> bytes:
    blob = azurite.account("cloud").container(container).get_blob_client(f"bergen/{name}")
    data = blob.download_blob().readall()
    assert isinstance(data, bytes)
    return data


@pytest.mark.parametrize("size", [1, ONE_REQUEST, ONE_REQUEST + 1, RANGE * BLOCK, 3 * RANGE * BLOCK + 5])
def test_a_package_arrives_whole_and_is_sent_once(azurite, container, tmp_path, size):
    package = Package(tmp_path, size)
    uplink = BlobUplink(azurite.account("cloud"), container, "bergen")
    assert uplink.digest_of(NAME) is None
    assert package.through(uplink) == size
    assert content(azurite, container) == package.path.read_bytes()
    assert uplink.digest_of(NAME) == package.digest
    left = list(package.left)
    whole, rest = divmod(size, RANGE * BLOCK)
    assert [last - first for first, last in left] == [RANGE * BLOCK] * whole + [rest] * bool(rest)
    # What fits into one request is sent without asking, in half the time; it is made once all the same.
    assert package.through(uplink) == (0 if size > ONE_REQUEST else size)
    assert content(azurite, container) == package.path.read_bytes()


@pytest.mark.parametrize("under_way", [2**20, 8 * 2**20, 64 * 2**20])
@pytest.mark.parametrize("size", [1, SLICE, SLICE + 1, 8 * SLICE - 1, 8 * SLICE + 1])
def test_however_much_is_under_way(azurite, container, tmp_path, under_way, size):
    slept: list[float] = []
    pace = Pace(100_000, clock=lambda: sum(slept), sleep=slept.append)
    package = Package(tmp_path, size)
    uplink = BlobUplink(azurite.account("cloud"), container, "bergen", pace, under_way)
    assert package.through(uplink) == size
    assert content(azurite, container) == package.path.read_bytes()
    assert sum(slept) >= 0.99 * (size - SLICE) / 100_000, "the pace is kept whatever the size of a block"


def test_blocks_of_another_size_are_never_taken_for_one_s_own(azurite, container, tmp_path):
    """Two programs that send the same package, each with its own settings: the blob is whole all the same."""
    package = Package(tmp_path, 128 * BLOCK)
    large = BlobUplink(azurite.account("cloud"), container, "bergen", under_way=8 * UNDER_WAY)
    small = BlobUplink(azurite.account("cloud"), container, "bergen")

    def cut(first: int, last: int) -> None:
        if first:
            raise LinkDown("just now")

    def meanwhile(first: int, last: int) -> None:
        if first == 2 * RANGE * BLOCK:
            with pytest.raises(LinkDown):
                large.send(package.path, NAME, package.digest, cut)

    assert small.send(package.path, NAME, package.digest, meanwhile) == 128 * BLOCK
    assert content(azurite, container) == package.path.read_bytes()


class Interrupted(BaseException):
    """As Dagster interrupts a run that is terminated."""


@pytest.mark.parametrize("error", [Interrupted, LinkDown])
def test_whoever_ends_it_does_not_wait_for_the_blocks_under_way(azurite, container, tmp_path, error):
    package = Package(tmp_path, 40 * BLOCK)
    with Proxy(azurite.blobs) as proxy:
        account = azurite.account("cloud", endpoint=f"http://127.0.0.1:{proxy.port}/cloud")
        went_on, slept = threading.Event(), list[float]()

        def sleep(seconds: float) -> None:
            went_on.wait(60)
            slept.append(seconds)

        def leaving(first: int, last: int) -> None:
            package.left.append((first, last))
            if len(package.left) == 3:
                went_on.set()
                raise error("now")

        pace = Pace(10 * BLOCK, clock=lambda: 0.0, sleep=sleep)
        with pytest.raises(error, match="now"):
            BlobUplink(account, container, "bergen", pace).send(package.path, NAME, package.digest, leaving)
        assert len(slept) < 3, "the others stop where they are"
        assert len(proxy.sent) < sum(last - first for first, last in package.left), "no byte without a line"


def test_a_name_is_given_once(azurite, container, tmp_path):
    uplink = BlobUplink(azurite.account("cloud"), container, "bergen")
    first, second = Package(tmp_path, 10, 1), Package(tmp_path, 10, 2)
    first.through(uplink)
    with pytest.raises(UplinkError, match="another package"):
        second.through(uplink)
    assert content(azurite, container) == first.path.read_bytes()


def test_of_two_that_send_at_once_one_gets_the_name(azurite, container, tmp_path):
    uplink = BlobUplink(azurite.account("cloud"), container, "bergen")
    other, mine = Package(tmp_path, 6 * BLOCK, 1), Package(tmp_path, 6 * BLOCK, 2)

    def meanwhile(first: int, last: int) -> None:
        other.through(BlobUplink(azurite.account("cloud"), container, "bergen"))

    with pytest.raises(UplinkError, match="another package"):
        uplink.send(mine.path, NAME, mine.digest, meanwhile)
    assert content(azurite, container) == other.path.read_bytes()


@pytest.mark.parametrize("size", [100, ONE_REQUEST + 1])
def test_what_others_put_there_is_judged_by_its_bytes(azurite, container, tmp_path, size):
    package = Package(tmp_path, size)
    blob = azurite.account("cloud").container(container).get_blob_client(f"bergen/{NAME}")
    blob.upload_blob(package.path.read_bytes())
    sent = package.through(BlobUplink(azurite.account("cloud"), container, "bergen"))
    assert sent == (0 if size > ONE_REQUEST else size), "what is there is not sent, whoever put it there"
    other = Package(tmp_path, size, 2)
    with pytest.raises(UplinkError, match="another package"):
        other.through(BlobUplink(azurite.account("cloud"), container, "bergen"))
    assert content(azurite, container) == package.path.read_bytes()


def test_a_changed_file_does_not_leave(azurite, container, tmp_path):
    package = Package(tmp_path, 100)
    package.path.write_bytes(b"other")
    with pytest.raises(UplinkError, match="was sealed"):
        package.through(BlobUplink(azurite.account("cloud"), container, "bergen"))
    assert package.left == []


@pytest.mark.parametrize("cut", [0, 200, 2 * BLOCK + 70_000, 200 * BLOCK - 1, 280 * BLOCK])
def test_after_a_cut_no_more_is_sent_again_than_was_under_way(azurite, container, tmp_path, cut):
    size = 300 * BLOCK + 17
    package = Package(tmp_path, size)
    with Proxy(azurite.blobs, cut_after=cut) as proxy:
        uplink = BlobUplink(
            azurite.account("cloud", endpoint=f"http://127.0.0.1:{proxy.port}/cloud"), container, "bergen"
        )
        with pytest.raises(LinkDown, match=r"sending bergen-00000001\.zip: 127\.0\.0\.1"):
            package.through(uplink)
        before = sum(last - first for first, last in package.left)
        proxy.restore()
        sent = package.through(uplink)
    assert before + sent <= size + (MOST + RANGE) * BLOCK
    assert sum(last - first for first, last in package.left) == before + sent, "a line for each byte"
    assert content(azurite, container) == package.path.read_bytes()


@pytest.mark.parametrize("cut", [200, UNDER_WAY + 70_000, 3 * UNDER_WAY])
def test_over_a_short_link_blocks_are_large_and_a_cut_costs_no_more(
    azurite, container, tmp_path, monkeypatch, cut
):
    monkeypatch.setattr(blob_uplink, "LONG_SECONDS", 60.0)
    size = 4 * UNDER_WAY + 17
    package = Package(tmp_path, size)
    with Proxy(azurite.blobs, cut_after=cut) as proxy:
        account = azurite.account("cloud", endpoint=f"http://127.0.0.1:{proxy.port}/cloud")
        with pytest.raises(LinkDown):
            package.through(BlobUplink(account, container, "bergen"))
        before = sum(last - first for first, last in package.left)
        proxy.restore()
        # Longer by now: what waits there is taken as it is all the same.
        monkeypatch.setattr(blob_uplink, "LONG_SECONDS", 0.0 if before > 2 * UNDER_WAY else 60.0)
        sent = package.through(BlobUplink(account, container, "bergen"))
    assert before + sent <= size + UNDER_WAY + UNDER_WAY // LARGE
    assert max(last - first for first, last in package.left) == UNDER_WAY // LARGE
    assert content(azurite, container) == package.path.read_bytes()


def test_a_slow_link_is_no_cut(azurite, container, tmp_path):
    """A block takes longer than the time-outs, and comes through: they are about silence, not about size."""
    package = Package(tmp_path, 9 * BLOCK)
    with Proxy(azurite.blobs, pause=0.5) as proxy:
        slow = azurite.account(
            "cloud", endpoint=f"http://127.0.0.1:{proxy.port}/cloud", connect_seconds=1.5, read_seconds=1.5
        )
        began = time.monotonic()
        uplink = BlobUplink(slow, container, "bergen", under_way=3 * UNDER_WAY)
        assert package.through(uplink) == 9 * BLOCK
    assert time.monotonic() - began > 1.6


def test_each_block_carries_its_checksum(azurite, container, tmp_path):
    import base64

    package, small = Package(tmp_path, 6 * BLOCK), Package(tmp_path, 100, 2)
    with Proxy(azurite.blobs) as proxy:
        account = azurite.account("cloud", endpoint=f"http://127.0.0.1:{proxy.port}/cloud")
        package.through(BlobUplink(account, container, "bergen"))
        small.through(BlobUplink(account, container, "oslo"))
    data = package.path.read_bytes()
    for block in (data[:BLOCK], data[5 * BLOCK :], small.path.read_bytes()):
        assert b"Content-MD5: " + base64.b64encode(hashlib.md5(block).digest()) in proxy.sent


def test_a_pace_is_kept(azurite, container, tmp_path):
    slept: list[float] = []
    pace = Pace(100_000, clock=lambda: sum(slept), sleep=slept.append)
    size = 100 * BLOCK
    Package(tmp_path, size).through(BlobUplink(azurite.account("cloud"), container, "bergen", pace))
    assert sum(slept) == pytest.approx(size / 100_000, rel=0.1)


def test_the_link_is_asked_at_the_very_place(azurite, container):
    BlobUplink(azurite.account("cloud"), container, "bergen").probe()
    with pytest.raises(LinkDown, match="ContainerNotFound"):
        BlobUplink(azurite.account("cloud"), "elsewhere", "bergen").probe()


def test_an_acknowledgement_is_fetched_and_bounded(azurite, container):
    uplink = BlobUplink(azurite.account("cloud"), container, "bergen")
    blob = azurite.account("cloud").container(container).get_blob_client(f"bergen/{acks.NAME}")
    assert uplink.acknowledgement() is None
    for data in (b"", b"word", b"x" * (acks.MAX_BYTES + 1), b"x" * 5 * acks.MAX_BYTES):
        blob.upload_blob(data, overwrite=True)
        assert uplink.acknowledgement() == data[: acks.MAX_BYTES + 1]


def test_nobody_listens(container, azurite, tmp_path):
    port = free_port()
    uplink = BlobUplink(
        azurite.account("cloud", endpoint=f"http://127.0.0.1:{port}/cloud"), container, "bergen"
    )
    began = time.monotonic()
    with pytest.raises(LinkDown, match="out of reach"):
        Package(tmp_path, 10).through(uplink)
    with pytest.raises(LinkDown, match="out of reach"):
        uplink.probe()
    assert time.monotonic() - began < 20


def test_a_server_that_hangs(azurite, container, tmp_path):
    uplink = BlobUplink(azurite.account("cloud", read_seconds=1.0), container, "bergen")
    package = Package(tmp_path, 10)
    azurite.pause()
    try:
        began = time.monotonic()
        with pytest.raises(LinkDown, match="out of reach"):
            package.through(uplink)
        assert time.monotonic() - began < 30
    finally:
        azurite.resume()
    assert package.through(BlobUplink(azurite.account("cloud"), container, "bergen")) == 10


def test_a_wrong_key_is_no_cut(azurite, container, tmp_path):
    from azure.core.credentials import AzureNamedKeyCredential

    wrong = azurite.account("cloud", credential=AzureNamedKeyCredential("cloud", "d3Jvbmc="))
    with pytest.raises(UplinkError, match=r"refuses the credential.*check"):
        Package(tmp_path, 10).through(BlobUplink(wrong, container, "bergen"))


def test_a_container_that_is_not_there(azurite, tmp_path):
    with pytest.raises(UplinkError, match=r"no such place \(ContainerNotFound\): create it"):
        Package(tmp_path, 10).through(BlobUplink(azurite.account("cloud"), "elsewhere", "bergen"))


def signature(container: str, permission: str) -> str:
    from datetime import UTC, datetime, timedelta

    from azure.storage.blob import generate_container_sas

    from edge_ai_assets_tests.integration.azurite import KEYS

    expiry = datetime.now(UTC) + timedelta(hours=1)
    return generate_container_sas(
        "cloud", container, account_key=KEYS["cloud"], permission=permission, expiry=expiry
    )


def test_a_signature_for_this_container_is_enough(azurite, container, tmp_path):
    from azure.core.credentials import AzureSasCredential

    uplink = BlobUplink(
        azurite.account("cloud", credential=AzureSasCredential(signature(container, "rcw"))),
        container,
        "bergen",
    )
    uplink.probe()
    assert Package(tmp_path, ONE_REQUEST + 1).through(uplink) == ONE_REQUEST + 1
    readonly = azurite.account("cloud", credential=AzureSasCredential(signature(container, "r")))
    with pytest.raises(UplinkError, match="refuses the credential"):
        Package(tmp_path, 10, 7).through(BlobUplink(readonly, container, "oslo"))


def test_memory_while_sending_is_a_few_blocks(azurite, container, tmp_path):
    import tracemalloc

    size = 10 * UNDER_WAY
    package = Package(tmp_path, size)
    uplink = BlobUplink(azurite.account("cloud"), container, "bergen")
    tracemalloc.start()
    package.through(uplink)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * UNDER_WAY
    assert os.path.getsize(package.path) == size
