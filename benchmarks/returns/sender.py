"""Sends packages over `BlobUplink`, at the site's end of a link; prints the seconds it took."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from edge_ai_assets.resources import blob_uplink
from edge_ai_assets.resources.account import Account
from edge_ai_assets.resources.blob_uplink import BlobUplink, block_id
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.returns.road.roads import Leaving

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

INIT_POOL = HTTPAdapter.init_poolmanager


class Prototype(BlobUplink):
    """So many blocks of so many bytes are under way at once, each in its own connection; what is no larger
    than a block is sent in one request that makes the blob."""

    in_flight, block = 16, 512 * 1024

    def send(self, path: Path, name: str, digest: str, leaving: Leaving) -> int:
        from azure.core.exceptions import ResourceExistsError

        if path.stat().st_size > self.block:
            return super().send(path, name, digest, leaving)
        data = path.read_bytes()
        leaving(0, len(data))
        metadata = {blob_uplink.DIGEST: digest}
        try:
            self._blob(name).upload_blob(data, length=len(data), overwrite=False, metadata=metadata)
        except ResourceExistsError:
            return super().send(path, name, digest, leaving)
        return len(data)

    def _stage(self, blob: BlobClient, path: Path, digest: str, leaving: Leaving) -> int:
        waiting, size, sent = blob_uplink._waiting(blob), path.stat().st_size, 0
        under_way: set[Future[object]] = set()
        with path.open("rb") as file, ThreadPoolExecutor(self.in_flight) as workers:
            for index, first in enumerate(range(0, size, self.block)):
                length = min(self.block, size - first)
                if waiting.get(block_id(index, digest)) == length:
                    continue
                if len(under_way) == self.in_flight:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for each in done:
                        each.result()
                file.seek(first)
                data = file.read(length)
                leaving(first, first + length)
                paced = blob_uplink._Paced(data, self._pace)
                options = {"transactional_content_md5": blob_uplink._md5(data), "read_timeout": 120}
                under_way.add(
                    workers.submit(blob.stage_block, block_id(index, digest), paced, length, **options)
                )
                sent += length
            for each in under_way:
                each.result()
        return sent


def pooled(
    adapter: HTTPAdapter, connections: int, maxsize: int, block: bool = False, **options: object
) -> None:
    """As many connections as blocks: of 10, the default, each further one is made anew and starts slowly."""
    INIT_POOL(adapter, connections, max(maxsize, 64), block, **options)


def main(
    endpoint: str, key: str, congestion: str, packages: int, size: int, in_flight: int, block: int
) -> None:
    """
    Args:
        congestion: TCP's congestion control: reno or bbr.
        packages: how many, one after the other; size: bytes of each.
        in_flight, block: of the prototype; 0 for `BlobUplink` as it is.
    """
    from azure.core.credentials import AzureNamedKeyCredential

    chosen = (socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    HTTPConnection.default_socket_options = [*HTTPConnection.default_socket_options, chosen]
    account = Account(endpoint, AzureNamedKeyCredential("cloud", key))
    if in_flight:
        HTTPAdapter.init_poolmanager = pooled  # type: ignore[method-assign]
        blob_uplink.BLOCK = block  # of the list that is committed
        Prototype.in_flight, Prototype.block = in_flight, block
    uplink = (Prototype if in_flight else BlobUplink)(account, "returns", "bergen")
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for number in range(packages):
            path = Path(folder) / f"{number}"
            path.write_bytes(os.urandom(size))
            made.append((path, hashlib.sha256(path.read_bytes()).hexdigest()))
        start = time.monotonic()
        for path, digest in made:
            while True:
                try:
                    uplink.send(path, f"{digest[:16]}.zip", digest, lambda first, last: None)
                    break
                except LinkDown:  # a connection that nobody answered in time: it goes on with what is missing
                    continue
        sys.stdout.write(f"{time.monotonic() - start}\n")


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:8]))
