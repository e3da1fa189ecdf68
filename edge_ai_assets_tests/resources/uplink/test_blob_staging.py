"""Blocks of packages under way to storage, some of which fail: what the others need comes back."""

from __future__ import annotations

import base64
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.resources.uplink.blob_uplink import BlobUplink
from edge_ai_assets.returns.road.link import LinkDown

SIZE = 3_000_000


class Cut:
    """A blob behind a link that is cut after so many blocks."""

    def __init__(self, through: int) -> None:
        self._left, self._lock = through, threading.Lock()

    def stage_block(self, block_id: str, data, **options) -> None:
        from azure.core.exceptions import ServiceRequestError

        while data.read(64 * 1024):
            pass
        with self._lock:
            self._left -= 1
            if self._left < 0:
                raise ServiceRequestError("cut")


@pytest.fixture
def uplink() -> BlobUplink:
    from azure.core.credentials import AzureNamedKeyCredential

    key = AzureNamedKeyCredential("acct", base64.b64encode(b"key").decode())
    return BlobUplink(Account("http://127.0.0.1:9/acct", key), "returns", "bergen")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "package.zip"
    path.write_bytes(bytes(SIZE))
    return path


def stage(uplink: BlobUplink, path, blob: Cut, size: int, leaving=lambda first, last: None) -> int:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return uplink._stage(blob, path, digest, size, {}, leaving)


@pytest.mark.parametrize("through", [0, 1, 5, 20])
@pytest.mark.parametrize("large", [False, True])
def test_packages_that_fail_leave_room_for_others(uplink, path, through, large):
    """Else those that still wait for room would wait for ever."""
    from azure.core.exceptions import ServiceRequestError

    size = uplink.large if large else uplink.small
    with ThreadPoolExecutor(8) as workers:
        blobs = [Cut(through) for _ in range(8)]
        sending = [workers.submit(stage, uplink, path, blob, size) for blob in blobs]
        for one in sending:
            assert isinstance(one.exception(20), ServiceRequestError)
    assert uplink._under_way.bytes == 0
    assert stage(uplink, path, Cut(SIZE), size) == SIZE


def test_a_package_that_is_told_to_stop_leaves_room_for_others(uplink, path):
    def leaving(first: int, last: int) -> None:
        if first > SIZE // 2:
            raise LinkDown("the sending has ended")

    with pytest.raises(LinkDown):
        stage(uplink, path, Cut(SIZE), uplink.small, leaving)
    assert uplink._under_way.bytes == 0
