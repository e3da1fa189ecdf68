"""The page for everyone, as one file: the fleet, anomalies by day, releases. Nothing is loaded from anywhere,
and it reads in any browser, light or dark, on paper and aloud.

What it tells is `page_data`'s, how it tells it `page_html`'s.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from edge_ai_assets.azure import page_data, page_html
from edge_ai_assets.home import Home
from edge_ai_assets.usecase import UseCase


def publish(home: Home, usecase: UseCase) -> Path:
    """Write the page to the lake's `report/index.html`, atomically; its path."""
    text = page_html.render(page_data.collect(home, usecase, datetime.now(UTC)))
    path = home.report / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, "utf-8", newline="\n")
    os.replace(fresh, path)
    return path
