"""The web UI as a user's browser gets it: the whole graph is drawn, and nothing is asked of the internet."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect, sync_playwright

from edge_ai_assets import keys
from edge_ai_assets_tests.ports import free_port

PROJECT = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""A browser that opens no connection of its own accord."""
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
NETWORK = {"http", "https", "ws", "wss"}
DRAWN = [keys.RAW_TELEMETRY, keys.CHAMPION, keys.BUNDLE, keys.SITE_DEPLOYMENT, keys.SITE_UPLOAD, keys.REPORT]
"""Of both locations, one group of the lineage after another: the UI opens one at a time."""
SECONDS = 120


@pytest.fixture(scope="module")
def chromium() -> Path:
    if not CHROMIUM.exists():
        missing = f"no {CHROMIUM}: apt-get install --no-install-recommends chromium"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return CHROMIUM


@pytest.fixture(scope="module")
def webserver(chromium, tmp_path_factory) -> Iterator[str]:
    """The address of a webserver on both locations and an empty home; it stops with its code servers."""
    home = tmp_path_factory.mktemp("home")
    (home / "dagster").mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home / "dagster")
    environment = {
        **os.environ,
        "EDGE_AI_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "PYTHONPATH": str(PROJECT),
    }
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "dagster_webserver"]
    command += ["-w", str(PROJECT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
    with (home / "webserver.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/server_info", server, home / "webserver.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(server)


@pytest.mark.integration
def test_the_lineage_of_both_locations_is_drawn_and_nothing_leaves_the_machine(webserver, chromium, tmp_path):
    asked: list[str] = []
    with sync_playwright() as started:
        browser = started.chromium.launch_persistent_context(
            tmp_path, executable_path=chromium, args=QUIET, viewport={"width": 2400, "height": 1200}
        )
        browser.on("request", lambda request: asked.append(request.url))
        page = browser.new_page()
        page.on("websocket", lambda socket: asked.append(socket.url))
        for key in DRAWN:
            page.goto(f"{webserver}/asset-groups?expanded=global@global:{key.path[0]}")
            drawn = page.locator(f"foreignObject:not(.group):has-text('{key.path[-1]}')")
            expect(drawn).to_be_visible(timeout=SECONDS * 1000)
        browser.close()
    outside = [
        url for url in asked if urlsplit(url).scheme in NETWORK and urlsplit(url).hostname not in LOOPBACK
    ]
    assert len(asked) > 10 and outside == []


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(URLError, ConnectionError):
            urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    raise AssertionError(f"{url} did not answer in {SECONDS} s:\n{log.read_text()}")


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the webserver and the code servers that it started: they share its session."""
    server.send_signal(signal.SIGINT)
    try:
        server.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
