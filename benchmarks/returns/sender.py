"""Sends packages over `BlobUplink`, at the site's end of a link; prints the seconds it took."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

from edge_ai_assets.resources import transport
from edge_ai_assets.resources.account import Account
from edge_ai_assets.resources.blob_uplink import BlobUplink
from edge_ai_assets.returns.road.link import LinkDown


def main(endpoint: str, key: str, congestion: str, packages: int, size: int, under_way: int) -> None:
    """
    Args:
        congestion: TCP's congestion control: reno or bbr.
        packages: how many, one after the other; size: bytes of each.
        under_way: bytes that may be on their way at once.
    """
    from azure.core.credentials import AzureNamedKeyCredential

    transport.CONGESTION_CONTROL = congestion.encode()
    account = Account(endpoint, AzureNamedKeyCredential("cloud", key))
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for number in range(packages):
            path = Path(folder) / f"{number}"
            path.write_bytes(os.urandom(size))
            made.append((path, hashlib.sha256(path.read_bytes()).hexdigest()))
        start = time.monotonic()
        uplink = BlobUplink(account, "returns", "bergen", under_way=under_way)
        for path, digest in made:
            while True:
                try:
                    uplink.send(path, f"{digest[:16]}.zip", digest, lambda first, last: None)
                    break
                except LinkDown:  # a connection that nobody answered in time: it goes on with what is missing
                    continue
        sys.stdout.write(f"{time.monotonic() - start}\n")


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:7]))
