"""A file of readings on the page: sent in slices, with progress, and saved with its scores."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, Route, expect

from edge_ai_assets_tests.browser.scoring_page import (
    HEADER,
    Opener,
    Service,
    Watch,
    choose,
    downloaded,
    start,
    table,
)

pytestmark = pytest.mark.integration

ASKED = "performance.getEntriesByName(`${location.origin}/v1/score`).map((entry) => entry.startTime)"
"""When the page asked for scores, in milliseconds of its own clock."""


@pytest.mark.parametrize("secure", [True, False], ids=["digests", "no digests"])
def test_a_file_of_100000_rows_is_scored_with_progress_and_saved(
    service: Service, opened: Opener, secure: bool
):
    def before(page: Page) -> None:
        page.add_init_script(
            "window.seen = [];"
            "new MutationObserver(() => { const bar = document.querySelector('progress');"
            " if (bar) window.seen.push(bar.value); }).observe(document, {childList: true, subtree: true});"
        )
        if not secure:  # what a page from http://192.168.… has
            page.add_init_script("Object.defineProperty(Crypto.prototype, 'subtle', {get: () => undefined});")

    rows = 100_000
    page, _ = opened(service, before=before)
    keys: list[str] = []
    page.on(
        "request",
        lambda request: (
            keys.append(request.headers["idempotency-key"]) if request.url.endswith("/v1/score") else None
        ),
    )
    text, content = table(rows)
    choose(page, text)
    expect(page.locator("#plan")).to_contain_text("Kept, not sent")
    start(page)
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.locator("#outcome h3")).to_have_text("Done: readings.csv", timeout=300_000)
    expect(page.locator("#outcome .facts")).to_contain_text("Scored100,000")
    expect(page.locator("#outcome tbody tr")).to_have_count(200)
    seen = page.evaluate("window.seen")
    assert len(set(seen)) > 5 and seen == sorted(seen)
    assert len(keys) == len(set(keys)) == rows / 5000
    result = downloaded(page)
    assert [[row[name] for name in HEADER] for row in result] == content
    kept = service.rows()
    assert len(kept) == rows
    for saved, row in zip(result, kept, strict=True):
        assert saved["id"] == f"bergen/{row.sequence}" and float(saved["score"]) == row.score
        assert (saved["predicted"] == "true", saved["outside"] == "true") == (row.predicted, row.outside)
        assert saved["refused"] == ""
    reached = sum(bool(row.predicted) for row in kept)
    expect(page.locator("#outcome .facts")).to_contain_text(f"With fault{reached:,}")
    page.get_by_label("Show the").select_option("highest")
    highest = max(row.score for row in kept)
    expect(page.locator("#outcome tbody tr").first).to_contain_text(f"{highest:.3f}")


def test_the_same_file_again_is_scored_once(service: Service, page: Page):
    text, _ = table(6000)
    for _ in range(2):
        choose(page, text)
        start(page)
        expect(page.locator("#outcome h3")).to_have_text("Done: readings.csv")
        last = downloaded(page)
        page.wait_for_timeout(100)
    expect(page.locator("#outcome .facts")).to_contain_text("Scored before6,000")
    assert [row["id"] for row in last] == [f"bergen/{row.sequence}" for row in service.rows()]


def test_rows_that_cannot_be_scored_are_set_aside_with_the_reason(service: Service, at: tuple[Page, Watch]):
    page, watch = at
    watch.allowed = {422}
    lines = [
        "Pressure [bar],Temperature,Pump type,_row",
        "1,20,screw,0",
        "99,20,screw,1",
        "two,20,screw,2",
        "3,20",
        "4,,,3",
        "5,20,screw,x",
        "6,NaN,,5",
    ]
    choose(page, "\n".join(lines))
    start(page)
    expect(page.locator("#outcome .facts")).to_contain_text("Scored3")
    result = downloaded(page)
    assert [row["id"] for row in result] == ["bergen/1", "", "", "", "bergen/2", "", "bergen/3"]
    refused = [row["refused"] for row in result]
    assert "must be in the range 0 to 25 bar" in refused[1] and "must be a number" in refused[2]
    assert "2 cells, the header has 4" in refused[3] and "_row" in refused[5]
    assert [json.loads(row.record)["inputs"]["Pressure [bar]"] for row in service.rows()] == [1, 4, 6]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Temperature;Pressure [bar];Pump type\r\n20,5;2,25;screw\r\n", "utf-8-sig"),
        ("Temperature\tPressure [bar]\tPump type\n20.5\t2.25\tscrew", "utf-16"),
        ('"Temperature","Pressure [bar]","Pump type","Größe"\r20.5,2.25,screw,"a\r\nb"\r', "cp1252"),
    ],
)
def test_what_spreadsheets_write_is_read(service: Service, page: Page, text: str, encoding: str):
    choose(page, text.encode(encoding))
    start(page)
    expect(page.locator("#outcome h3")).to_have_text("Done: readings.csv")
    (row,) = service.rows()
    given = {"Temperature": 20.5, "Pressure [bar]": 2.25, "Pump type": "screw"}
    assert given.items() <= json.loads(row.record)["inputs"].items()


def test_a_file_without_a_needed_column_is_not_sent(page: Page):
    choose(page, "Temperature,Pump type\n1,screw\n")
    expect(page.locator("#plan .message")).to_contain_text("missing: “Pressure [bar]”")
    expect(page.get_by_role("button", name="Score this file")).to_be_disabled()


@pytest.mark.parametrize(
    ("content", "said"), [("", "is empty"), ('Temperature,"Pressure [bar]\n1,2\n', "a quote is opened")]
)
def test_what_is_no_csv_is_refused_in_words(page: Page, content: str, said: str):
    choose(page, content)
    expect(page.locator("#file-problem")).to_contain_text(said)


def test_a_file_chosen_before_it_is_known_what_the_model_takes_is_read_then(service: Service, opened: Opener):
    held: list[Route] = []
    page, _ = opened(
        service, before=lambda page: page.route("**/v1/contract", lambda route: held.append(route))
    )
    choose(page, table(3)[0])
    expect(page.locator("#file-problem")).to_contain_text("did not say yet")
    held[0].continue_()
    start(page)
    expect(page.locator("#outcome h3")).to_have_text("Done: readings.csv")
    expect(page.locator("#file-problem")).to_be_empty()


def test_a_file_can_be_dropped(page: Page):
    text, _ = table(3)
    data = page.evaluate_handle(
        "(text) => { const all = new DataTransfer();"
        " all.items.add(new File([text], 'dropped.csv')); return all; }",
        text,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    start(page)
    expect(page.locator("#outcome h3")).to_have_text("Done: dropped.csv")


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_when_it_says_so(service: Service, at: tuple[Page, Watch], status: int):
    page, watch = at
    watch.allowed = {status}
    tried: list[Route] = []

    def busy(route: Route) -> None:
        tried.append(route)
        if len(tried) == 1:
            route.fulfill(status=status, headers={"Retry-After": "1"}, json={"error": "the queue is full"})

    page.route("**/v1/score", busy)
    choose(page, table(10)[0])
    start(page)
    expect(page.locator("#run .message")).to_contain_text("the queue is full. Trying again in 1 s")
    while len(tried) < 2:
        page.wait_for_event("request")
    tried[1].continue_()
    expect(page.locator("#outcome h3")).to_have_text("Done: readings.csv")
    first, second = page.evaluate(ASKED)
    assert len(tried) == 2 and second - first >= 1000
    assert len(service.rows()) == 10


def test_a_file_survives_a_restart_of_the_service(service: Service, page: Page):
    text, content = table(20_000)
    seen: list[int] = []

    def slow(route: Route) -> None:
        if len(seen) == 2:
            service.stop()
        seen.append(1)
        route.continue_()

    page.route("**/v1/score", slow)
    choose(page, text)
    start(page)
    expect(page.locator("#run .message")).to_contain_text("cannot be reached")
    service.start()
    expect(page.locator("#outcome h3")).to_have_text("Done: readings.csv")
    assert [row["id"] for row in downloaded(page)] == [f"bergen/{row.sequence}" for row in service.rows()]
    assert len(service.rows()) == len(content)


def test_a_cancelled_file_keeps_what_was_scored_and_goes_on_from_there(service: Service, page: Page):
    text, content = table(15_000)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)
        if len(held) == 1:
            route.continue_()

    page.route("**/v1/score", hold)
    choose(page, text)
    start(page)
    expect(page.locator("#run .hint")).to_contain_text("5,000 rows")
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator("#outcome h3")).to_have_text("Cancelled: readings.csv")
    assert len(downloaded(page)) == 5000 == len(service.rows())
    page.unroute("**/v1/score")
    choose(page, text)
    start(page)
    expect(page.locator("#outcome h3")).to_have_text("Done: readings.csv")
    assert len(downloaded(page)) == len(content) == len(service.rows())
