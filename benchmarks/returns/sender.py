"""Sends a package over `BlobUplink`, at the site's end of a link; prints the seconds it took as JSON."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from azure.core.credentials import AzureNamedKeyCredential

from edge_ai_assets.resources import blob_uplink
from edge_ai_assets.resources.account import Account
from edge_ai_assets.resources.blob_uplink import BlobUplink, block_id
from edge_ai_assets.returns.roads import Leaving

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient


class Parallel(BlobUplink):
    """The prototype: so many blocks of so many bytes are under way at once, each in a connection of its own."""

    in_flight, block = 8, 128 * 1024

    def _stage(self, blob: BlobClient, path: Path, digest: str, leaving: Leaving) -> int:
        waiting, size, sent = blob_uplink._waiting(blob), path.stat().st_size, 0
        under_way: deque[Future[object]] = deque()
        with path.open("rb") as file, ThreadPoolExecutor(self.in_flight) as workers:
            for index, first in enumerate(range(0, size, self.block)):
                length = min(self.block, size - first)
                if waiting.get(block_id(index, digest)) == length:
                    continue
                while len(under_way) >= self.in_flight:
                    under_way.popleft().result()
                file.seek(first)
                data = file.read(length)
                leaving(first, first + length)
                paced = blob_uplink._Paced(data, self._pace)
                options = {"transactional_content_md5": blob_uplink._md5(data), "read_timeout": 120}
                under_way.append(
                    workers.submit(blob.stage_block, block_id(index, digest), paced, length, **options)
                )
                sent += length
            for each in under_way:
                each.result()
        return sent


def main(endpoint: str, key: str, size: int, in_flight: int, block: int) -> None:
    account = Account(endpoint, AzureNamedKeyCredential("cloud", key))
    uplink = Parallel(account, "returns", "bergen")
    uplink.in_flight, uplink.block = in_flight, block
    if not in_flight:
        uplink = BlobUplink(account, "returns", "bergen")  # type: ignore[assignment]
    else:
        blob_uplink.BLOCK = block  # of the list that is committed
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "package"
        data = random.Random(time.time_ns()).randbytes(size)
        path.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        start = time.monotonic()
        uplink.send(path, f"{digest[:16]}.zip", digest, lambda first, last: None)
        print(json.dumps(time.monotonic() - start))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
