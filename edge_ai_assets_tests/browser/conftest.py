"""A browser, a service, and the service's page in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from edge_ai_assets_tests.browser.scoring_page import SECONDS, Opener, Service, Watch

CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]


expect.set_options(timeout=SECONDS * 1000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        missing = f"no {CHROMIUM}: apt-get install --no-install-recommends chromium"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.stop()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opener]:
    """Opens the page of a service; at the end nothing may have happened on it that must not."""
    watches: list[Watch] = []
    contexts = []

    def open_page(
        service: Service, *, before: Callable[[Page], None] | None = None, **options: Any
    ) -> tuple[Page, Watch]:
        context = browser.new_context(reduced_motion="reduce", **options)
        context.set_default_timeout(SECONDS * 1000)
        contexts.append(context)
        page = context.new_page()
        watch = Watch(page, service.url)
        watches.append(watch)
        if before:
            before(page)
        page.goto(service.url)
        return page, watch

    yield open_page
    try:
        for watch in watches:
            watch.end()
    finally:
        for context in contexts:
            for page in context.pages:
                page.unroute_all(behavior="ignoreErrors")  # of a request that is under way now
            context.close()


@pytest.fixture
def at(service: Service, opened: Opener) -> tuple[Page, Watch]:
    return opened(service)


@pytest.fixture
def page(at: tuple[Page, Watch]) -> Page:
    return at[0]
