"""Sends packages over `BlobUplink` as `upload` does, at the site's end of a link; prints how long it took."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.resources.uplink import transport
from edge_ai_assets.resources.uplink.blob_uplink import BlobUplink
from edge_ai_assets.returns.outbox.outbox import PackageRow
from edge_ai_assets.returns.road import together
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.returns.road.roads import Leaving


def main(endpoint: str, key: str, congestion: str, packages: int, size: int) -> None:
    """
    Args:
        congestion: TCP's congestion control: reno or bbr.
        packages: how many; size: bytes of each.
    """
    from azure.core.credentials import AzureNamedKeyCredential

    transport.CONGESTION_CONTROL = congestion.encode()
    account = Account(endpoint, AzureNamedKeyCredential("cloud", key))
    with tempfile.TemporaryDirectory() as folder:
        waiting = {}
        for number in range(packages):
            path = Path(folder) / f"{number}"
            path.write_bytes(os.urandom(size))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            waiting[number] = PackageRow(number, f"{digest[:16]}.zip", digest, "", 0, 0, size, 0)
        start = time.monotonic()
        uplink = BlobUplink(account, "returns", "bergen")

        def send(package: PackageRow, in_turn: Callable[[Leaving], Leaving]) -> int:
            path = Path(folder) / f"{package.number}"
            return uplink.send(path, package.name, package.digest, in_turn(lambda first, last: None))

        while waiting:
            try:
                for package, _ in together.sent(list(waiting.values()), uplink.together, send):
                    del waiting[package.number]
            except LinkDown:  # it goes on with what is missing
                continue
        sys.stdout.write(f"{time.monotonic() - start}\n")


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]))
