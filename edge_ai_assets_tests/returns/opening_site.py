"""A process that opens outboxes: for each path on its input it opens that file, scores a row, and prints the
row's sequence. Started by test_upgrade.py."""

from __future__ import annotations

import sys
from pathlib import Path

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets_tests import blocks

if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        with Outbox(Path(line.rstrip("\n")), create=False) as outbox:
            print(outbox.append([blocks.plain()])[0].first, flush=True)
