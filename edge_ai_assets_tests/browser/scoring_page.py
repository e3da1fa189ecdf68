"""A real service for the page's tests, what must never happen on the page, and what a user does on it."""

from __future__ import annotations

import csv
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from playwright.sync_api import Page, expect

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets_tests.ports import free_port
from edge_ai_assets_tests.tiny_model import tiny_release

PROJECT = Path(__file__).resolve().parents[2]
DIGEST = "sha256:0123456789abcdef"
SECONDS = 60
"""What nothing here should take, on a busy machine either."""
RECORD = {"Pressure [bar]": 1, "Temperature": 2, "Pump type": None}
HEADER = ["shift", "Pressure [bar]", "Temperature", "Pump type", "remark"]
EVIL = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>"
REMARK = 'said "stop",\nthen left; ünder'
READING = {"Pressure": "2.5", "Temperature": "21"}


class Service:
    """A serving process on a port that stays the same when it is started again."""

    def __init__(
        self, folder: Path, site: str = "bergen", tokens: Path | None = None, **release: Any
    ) -> None:
        self.outbox = folder / "outbox.db"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "service.log"
        model = tiny_release(folder / "release", **release)
        self._command = [sys.executable, "-m", "edge_ai_assets.scoring.serve", "--site", site]
        self._command += ["--release", str(model), "--release-id", DIGEST, "--version", "7"]
        self._command += ["--outbox", str(self.outbox), "--port", str(self.port)]
        self._command += ["--tokens", str(tokens)] if tokens else []
        self.start()

    def start(self) -> None:
        path = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log
            )
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                urlopen(f"{self.url}/health/ready", timeout=5).close()
                return
            except (URLError, ConnectionError):
                time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the service did not start:\n{self._log.read_text()}")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def rows(self) -> list[Any]:
        with Outbox(self.outbox) as outbox:
            return outbox.rows(1, 10**9)

    def feedback(self) -> list[tuple[int, bool, str | None, str]]:
        with Outbox(self.outbox) as outbox:
            return [
                (item.sequence, bool(item.correct), item.note, item.role)
                for item in outbox.waiting_feedback(100)
            ]


class Watch:
    """What must never happen on the page; asked at the end of each test."""

    def __init__(self, page: Page, origin: str) -> None:
        self._page = page
        self._origin = origin
        self.allowed: set[int] = set()
        """Statuses that this test provokes."""
        self._wrong: list[str] = []
        page.add_init_script(
            "window.violations = []; addEventListener('securitypolicyviolation',"
            " (event) => violations.push(event.violatedDirective));"
        )
        page.on("pageerror", lambda error: self._wrong.append(f"exception: {error}"))
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("request", lambda request: self._asked(request.url))
        page.on("response", lambda response: self._answered(response.status, response.url))

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self._wrong.append(f"console: {text}")

    def _asked(self, url: str) -> None:
        if urlsplit(url).scheme not in ("blob", "data") and not url.startswith(self._origin + "/"):
            self._wrong.append(f"request: {url}")

    def _answered(self, status: int, url: str) -> None:
        if status >= 400 and status not in self.allowed:
            self._wrong.append(f"answer: {status} {url}")

    def end(self) -> None:
        assert self._page.evaluate("window.violations") == []
        assert self._page.evaluate("window.hit") is None
        assert self._wrong == []


Opener = Callable[..., tuple[Page, Watch]]
"""Opens the page of a service; see the fixture `opened`."""


def fill(page: Page, **values: str) -> None:
    for name, value in values.items():
        page.get_by_label(name, exact=True).fill(value)


def score(page: Page, **values: str) -> None:
    fill(page, **(READING | values))
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("#result .verdict")).to_be_visible()


def choose(page: Page, content: str | bytes, name: str = "readings.csv") -> None:
    data = content.encode() if isinstance(content, str) else content
    page.set_input_files("#chosen", {"name": name, "mimeType": "text/csv", "buffer": data})


def start(page: Page) -> None:
    page.get_by_role("button", name="Score this file").click()


def downloaded(page: Page) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the result").click()
    text = Path(download.value.path()).read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def table(rows: int, seed: int = 1) -> tuple[str, list[list[str]]]:
    """A CSV with cells that hold quotes, commas and line ends, and its rows."""
    chance = random.Random(seed)
    content = [
        [
            f"shift {row % 3}",
            f"{chance.uniform(1, 22):.3f}",
            f"{chance.uniform(0, 90):.2f}",
            chance.choice(["screw", ""]),
            REMARK if row % 5 == 0 else "ok",
        ]
        for row in range(rows)
    ]
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\r\n").writerows([HEADER, *content])
    return out.getvalue(), content
