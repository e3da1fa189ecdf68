"""The page for everyone in a browser, from a file: sorted, filtered and read by pointer, keyboard and screen
reader; light, dark and narrow; harmless, and fast with a thousand sites."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, CDPSession, Page, expect

from edge_ai_assets.azure import page_html
from edge_ai_assets_tests.browser.test_page_access import CONTRAST
from edge_ai_assets_tests.fleet_report import EVIL, fleet

pytestmark = pytest.mark.integration


@pytest.fixture
def opened(browser: Browser, tmp_path: Path):
    """Opens the page of a report; nothing may be asked of a network, and nothing complained of."""
    contexts, asked, wrong = [], [], []

    def open_page(sites=40, days=60, names=None, before=lambda page: None, **options) -> Page:
        path = tmp_path / "index.html"
        path.write_text(page_html.render(fleet(sites, days, names)), "utf-8")
        context = browser.new_context(reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        before(page)
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == [] and {url.partition(":")[0] for url in asked} == {"file"}


def numbers(page: Page, where: str) -> list[int]:
    return [int(text.replace(",", "")) for text in page.locator(where).all_inner_texts()]


def names(page: Page) -> list[str]:
    return page.locator("#sites tbody tr:visible th").all_inner_texts()


def test_the_table_is_sorted_by_its_heads_with_the_keyboard(opened):
    page = opened()
    button = page.get_by_role("button", name="anomalies")
    button.focus()
    page.keyboard.press("Enter")
    head = page.locator("#sites thead th").last
    expect(head).to_have_attribute("aria-sort", "descending")
    told = [
        int(text.replace(",", "")) for text in page.locator("#sites tbody td:last-child").all_inner_texts()
    ]
    assert told == sorted(told, reverse=True) and len(set(told)) > 5
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="site", exact=True).click()
    assert names(page) == sorted(names(page)) and len(names(page)) == 40
    page.get_by_role("button", name="state").click()
    assert page.locator("#sites tbody tr").first.locator(".state").inner_text() in ("gap", "complete")


def test_filtering_filters_table_and_charts(opened):
    page = opened()
    before = page.locator("#said").inner_text()
    page.get_by_label("Filter").focus()
    page.keyboard.type("SITE-0006 stale")
    expect(page.locator("#shown")).to_have_text("1 of 40 sites")
    assert names(page) == ["site-0006"]
    assert page.locator("#said").inner_text() != before and "of 1 sites" in page.locator("#said").inner_text()
    page.get_by_label("Filter").fill("")
    page.get_by_label("Show").select_option("attention")
    expect(page.locator("#shown")).to_have_text("8 of 40 sites")
    assert "site-0000" not in names(page) and "site-0006" in names(page)


def test_a_day_is_read_by_pointer_and_by_keyboard(opened):
    page = opened()
    box = page.locator("#anomalies svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    expect(page.locator("#said")).to_have_text(re.compile(r"^2026-10-\d\d: [\d,]+ anomalies"))
    slider = page.get_by_label("Day", exact=True)
    slider.focus()
    page.keyboard.press("End")
    expect(page.locator("#said")).to_have_text(re.compile(r"^2026-11-20: .*release 8 at 40$"))
    page.keyboard.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^2026-11-19: "))


def test_what_is_drawn_can_be_read(opened):
    page = opened(days=365)
    expect(page.locator("#anomalies svg")).to_have_attribute(
        "aria-label",
        re.compile(r"^[\d,]+ anomalies from 2026-08-23 to 2026-11-20, most on 2026-\d\d-\d\d: \d"),
    )
    page.locator("#range").select_option("30")
    page.locator("summary").click()
    rows = page.locator("#by-day tbody tr")
    expect(rows).to_have_count(30)
    expect(rows.first.locator("th")).to_have_text("2026-11-20")
    expect(rows.first.locator("td").last).to_have_text("release 8: 40")
    # What the table says is what the bars show: the tallest is of the day with most anomalies.
    told = numbers(page, "#by-day td:nth-child(2)")
    tall = page.locator("#anomalies path").evaluate(
        "path => path.getAttribute('d').split('M').slice(1).map(d => Number(d.split('v')[1].split('h')[0]))"
    )
    assert tall.index(max(tall)) == len(told) - 1 - told.index(max(told))


def test_nothing_in_a_name_does_harm(opened):
    page = opened(names={0: EVIL})
    expect(page.locator("#sites tbody th").first).to_have_text(
        EVIL.replace("\u2028", " "), use_inner_text=True
    )
    page.get_by_label("Filter").fill("onerror")
    expect(page.locator("#shown")).to_have_text("1 of 40 sites")
    assert page.evaluate("typeof hit") == "undefined" and page.locator("main img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(opened, scheme):
    page = opened(color_scheme=scheme)
    found = page.evaluate(CONTRAST)
    assert found["seen"] > 100 and found["low"] == []


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_the_page_is_as_wide_as_the_screen(opened, width):
    page = opened(viewport={"width": width, "height": 900}, names={1: "x" * 64})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#anomalies svg").bounding_box()["width"] <= width


def test_without_its_script_all_but_the_charts_can_be_read(opened):
    page = opened(java_script_enabled=False)
    assert len(names(page)) == 40
    expect(page.get_by_label("Filter")).to_be_hidden()
    expect(page.get_by_text("The charts need JavaScript")).to_be_visible()


def test_a_fleet_of_which_nothing_came_yet(opened):
    page = opened(sites=1, days=1)
    expect(page.locator("#said")).to_contain_text("2026-11-20: 0 anomalies, insights of 0 of 1 sites")


def test_a_thousand_sites_and_a_year_open_fast(opened):
    asked: list[CDPSession] = []

    def count(page: Page) -> None:
        asked.append(page.context.new_cdp_session(page))
        asked[0].send("Performance.enable", {"timeDomain": "threadTicks"})

    page = opened(sites=1_000, days=365, before=count)
    expect(page.locator("#shown")).to_have_text("1,000 of 1,000 sites")
    took = {each["name"]: each["value"] for each in asked[0].send("Performance.getMetrics")["metrics"]}
    assert 0 < took["TaskDuration"] < 3, took  # seconds of a processor
