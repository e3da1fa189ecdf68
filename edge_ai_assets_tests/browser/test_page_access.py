"""The page for everyone: keyboard, screen reader, small screens, contrast. Against some: tokens, markup."""

from __future__ import annotations

import csv
import io
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from edge_ai_assets.scoring import tokens
from edge_ai_assets.scoring.contract import Input
from edge_ai_assets_tests.browser.scoring_page import (
    EVIL,
    READING,
    Opener,
    Service,
    choose,
    fill,
    score,
    start,
    table,
)

pytestmark = pytest.mark.integration
TABLET, PHONE = {"width": 768, "height": 1024}, {"width": 390, "height": 844}
SMALL = """() => {
  const targets = 'button, select, input:not([type=file], [type=checkbox]), .check, nav a, #derived summary';
  const seen = [...document.querySelectorAll(targets)].filter((element) => element.checkVisibility());
  return seen.filter((element) => {
    const box = element.getBoundingClientRect();
    return box.height < 43.9 || box.width < 43.9;
  }).map((element) => element.outerHTML.slice(0, 100));
}"""
CONTRAST = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ({ r, g, b }) =>
    0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.a === 1) return colour;
    }
    return { r: 255, g: 255, b: 255 };
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest('svg, :disabled, .unseen')) continue;
    seen += 1;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(`${element.className} ${element.textContent.slice(0, 40)} ${ratio.toFixed(2)}`);
  }
  return { seen, low };
}"""


def test_everything_can_be_done_with_the_keyboard(service: Service, page: Page):
    expect(page.get_by_role("button", name="Score", exact=True)).to_be_enabled()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Pressure", exact=True)).to_be_focused()
    for keys in ("7.5", "30"):
        page.keyboard.type(keys)
        page.keyboard.press("Tab")
    expect(page.get_by_label("Pump type")).to_be_focused()
    page.keyboard.type("screw")
    page.keyboard.press("Tab")
    expect(page.locator("#derived summary")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#result .verdict")).to_be_visible()
    for _ in range(20):
        if page.evaluate("document.activeElement.matches('#result .wrong')"):
            break
        page.keyboard.press("Tab")
    expect(page.locator("#result .wrong")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Note")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#result .wrong")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("leaking seal")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#result .wrong")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#result .wrong")).to_be_focused()
    assert service.feedback() == [(1, False, "leaking seal", "")]
    assert json.loads(service.rows()[0].record)["inputs"]["Pump type"] == "screw"


def test_a_judgement_asked_for_right_after_another_was_dismissed_is_sent(service: Service, page: Page):
    score(page)
    page.evaluate("""() => {
      const wrong = document.querySelector('#result .wrong');
      wrong.click();
      document.getElementById('judge').close();  // its event comes after the next press
      wrong.click();
    }""")
    page.get_by_label("Note").fill("leaking seal")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#result .wrong")).to_have_attribute("aria-pressed", "true")
    assert service.feedback() == [(1, False, "leaking seal", "")]


def test_a_token_is_asked_for_kept_for_the_tab_and_sent(tmp_path: Path, opened: Opener):
    file = tmp_path / "tokens.json"
    reader = tokens.add(file, "wall", ["feedback"])
    scorer = tokens.add(file, "tablet", ["score", "feedback"])
    service = Service(tmp_path, tokens=file)
    try:
        page, watch = opened(service)
        watch.allowed = {401, 403}
        token = page.get_by_label("Token", exact=True)
        expect(token).to_be_focused()
        expect(token).to_have_attribute("type", "password")
        token.fill("eai_00000000_wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#access-why")).to_contain_text("not accepted")
        token.fill(reader)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("tiny")
        expect(page.locator("#access")).to_be_hidden()
        fill(page, **READING)
        page.get_by_role("button", name="Score", exact=True).click()
        expect(page.locator("#form-problem")).to_contain_text("'wall' has not the role score")
        assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
        page.get_by_role("button", name="Forget token").click()
        token.fill(scorer)
        page.keyboard.press("Enter")
        score(page)
        page.locator("#result .wrong").click()
        expect(page.get_by_label("Your role")).to_be_hidden()
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert service.feedback() == [(1, False, None, "tablet")]
        tokens.revoke(file, scorer[4:12])
        expect(page.locator("#access-why")).to_contain_text("not accepted")
    finally:
        service.stop()


def test_a_late_refusal_of_no_token_says_nothing_of_the_one_that_was_given(tmp_path: Path, opened: Opener):
    file = tmp_path / "tokens.json"
    token = tokens.add(file, "tablet", ["score"])
    held: list[Route] = []

    def hold_first(route: Route) -> None:
        held.append(route)
        if len(held) > 1:
            route.continue_()

    service = Service(tmp_path, tokens=file)
    try:
        page, watch = opened(service, before=lambda page: page.route("**/v1/contract", hold_first))
        watch.allowed = {401}
        page.get_by_label("Token", exact=True).fill(token)
        page.keyboard.press("Enter")
        held[0].continue_()  # it was asked without one, and is refused now
        expect(page.get_by_role("heading", level=1)).to_have_text("tiny")
        expect(page.locator("#access")).to_be_hidden()
        score(page)
    finally:
        service.stop()


def test_what_looks_like_markup_is_only_text(tmp_path: Path, opened: Opener):
    inputs = [
        Input(f"P {EVIL}", "number", f"<b>{EVIL}</b>", f"P {EVIL}", 0.0, 9.0, 1.0, 2.0),
        Input("Kind", "category", "", "Kind", categories=(EVIL, "'\"><svg onload=hit=1>")),
    ]
    service = Service(tmp_path, inputs=inputs)
    try:
        page, watch = opened(service)
        watch.allowed = {422}
        page.locator("#fields input").fill("50")
        page.locator("#fields select").select_option(EVIL)
        page.get_by_role("button", name="Score", exact=True).click()
        expect(page.locator("#fields .problem").first).to_contain_text("between 0 and 9")
        page.locator("#fields input").fill("5")
        page.get_by_role("button", name="Score", exact=True).click()
        expect(page.locator("#result")).to_contain_text("Scored with")
        expect(page.locator("#recent-table .inputs")).to_contain_text(EVIL)
        header = io.StringIO()
        csv.writer(header).writerows([[f"P {EVIL}", "Kind", EVIL], ["1", EVIL, EVIL], [EVIL, EVIL, EVIL]])
        choose(page, header.getvalue(), name=f"{EVIL}.csv")
        start(page)
        expect(page.locator("#outcome h3")).to_contain_text("Done")
        expect(page.locator("#outcome tbody tr")).to_have_count(2)
        assert page.locator("main img, main script, main b, main i, dd i").count() == 0
    finally:
        service.stop()


@pytest.mark.parametrize(
    "viewport", [{"width": 1440, "height": 900}, TABLET, PHONE], ids=["desk", "tablet", "phone"]
)
def test_nothing_is_wider_than_the_screen_and_targets_are_large(
    service: Service, opened: Opener, viewport: Any
):
    page, _ = opened(service, viewport=viewport, has_touch=True)
    score(page, Pressure="24")
    choose(page, table(300)[0])
    start(page)
    expect(page.locator("#outcome h3")).to_contain_text("Done")
    expect(page.locator("#recent-table tbody tr")).to_have_count(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    scroll = page.locator("#recent .scroll")
    assert scroll.evaluate("(element) => element.scrollWidth - element.clientWidth") <= 0
    small = page.evaluate(SMALL)
    assert small == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast_enough(service: Service, opened: Opener, scheme: str):
    page, watch = opened(service, color_scheme=scheme)
    watch.allowed = {422}
    score(page, Pressure="24")
    page.locator("#result .wrong").click()
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    choose(page, "Pressure [bar],Temperature,Pump type\n24,50,screw\n77,1,\n")
    start(page)
    expect(page.locator("#outcome h3")).to_contain_text("Done")
    fill(page, Pressure="99")
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("#form-problem")).to_be_visible()
    found = page.evaluate(CONTRAST)
    assert found["low"] == [] and found["seen"] > 60


def test_every_control_has_a_name_and_every_table_its_heads(service: Service, page: Page):
    score(page)
    choose(page, table(3)[0])
    start(page)
    expect(page.locator("#outcome h3")).to_contain_text("Done")
    for role in ("button", "textbox", "combobox", "checkbox", "img", "region", "progressbar"):
        for element in page.get_by_role(role).all():
            expect(element).to_have_accessible_name(re.compile(r"\S"))
    assert page.locator("table").count() == page.locator("table thead").count() == 2
    assert page.locator("thead th:not([scope=col]), tbody th:not([scope=row])").count() == 0
    levels = [
        int(tag[1])
        for tag in page.evaluate("[...document.querySelectorAll('main h2, main h3')].map((e) => e.tagName)")
    ]
    assert levels[0] == 2 and all(after - before <= 1 for before, after in pairwise(levels))
