"""The page for end users, from a real service: a reading, recent scores, judgements, the strip at the top."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, Route, expect

from edge_ai_assets_tests.browser.scoring_page import EVIL, READING, RECORD, Service, Watch, fill, score
from edge_ai_assets_tests.tiny_model import INPUTS

pytestmark = pytest.mark.integration


def test_a_reading_is_scored_and_kept(service: Service, page: Page):
    expect(page.get_by_role("heading", level=1)).to_have_text("tiny")
    fill(page, **READING)
    page.get_by_label("Pump type").select_option("screw")
    page.get_by_role("button", name="Score", exact=True).click()
    result = page.locator("#result")
    expect(result).to_contain_text("no fault")
    (row,) = service.rows()
    given = {"Pressure [bar]": 2.5, "Temperature": 21.0, "Pump type": "screw"}
    assert given.items() <= json.loads(row.record)["inputs"].items()
    expect(result.locator(".big")).to_have_text(f"{row.score:.3f}")
    expect(result).to_contain_text("is below the threshold of 0.5")
    expect(page.locator("#recent-table tbody tr")).to_have_count(1)
    expect(page.locator("#recent-table tbody tr")).to_contain_text("bergen/1")


def test_the_label_reached_and_a_value_outside_the_trained_range_are_said_in_words(page: Page):
    score(page, Pressure="24", Temperature="80")
    result = page.locator("#result")
    expect(result).to_contain_text("Label reached: fault")
    expect(result).to_contain_text("Take this score with care")
    expect(result).to_contain_text("Pressure is 24, trained on 1 to 20 bar")
    expect(page.locator("#chart .anomaly")).to_have_count(1)
    expect(page.locator("#chart .ring")).to_have_count(1)


def test_empty_fields_are_not_measured_and_a_decimal_comma_is_read(service: Service, page: Page):
    score(page, Pressure="2,5", Temperature="")
    inputs = json.loads(service.rows()[0].record)["inputs"]
    assert (inputs["Pressure [bar]"], inputs["Temperature"], inputs["Pump type"]) == (2.5, None, None)


def test_a_refused_value_is_told_beside_its_field(service: Service, at: tuple[Page, Watch]):
    page, watch = at
    watch.allowed = {422}
    fill(page, Pressure="99", Temperature="20")
    page.get_by_role("button", name="Score", exact=True).click()
    field = page.get_by_label("Pressure", exact=True)
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("it must be between 0 and 25 bar"))
    expect(page.locator("#result")).to_be_empty()
    assert service.rows() == []
    fill(page, Pressure="9")
    expect(field).not_to_have_attribute("aria-invalid", "true")


def test_a_message_that_comes_up_does_not_move_the_button_from_under_the_pointer(page: Page):
    fill(page, Temperature="20")
    page.get_by_label("Pressure", exact=True).focus()
    page.keyboard.type("24")  # leaving the field shows a message above the button
    button = page.get_by_role("button", name="Score", exact=True)
    before = button.bounding_box()
    assert before is not None
    page.mouse.move(before["x"] + 20, before["y"] + 5)
    page.mouse.down()
    assert button.bounding_box() == before
    page.mouse.up()
    expect(page.locator("#result .verdict")).to_be_visible()
    expect(page.locator("#fields .problem").first).to_have_text("Outside the trained range.")


def test_what_is_no_number_is_told_without_asking_the_service(service: Service, page: Page):
    fill(page, Pressure="1.2.3", Temperature="20")
    page.get_by_role("button", name="Score", exact=True).click()
    field = page.get_by_label("Pressure", exact=True)
    expect(field).to_be_focused()
    expect(field).to_have_accessible_description(re.compile("Must be a number"))
    assert service.rows() == []


def test_a_reading_whose_answer_was_lost_is_not_scored_twice(service: Service, at: tuple[Page, Watch]):
    page = at[0]
    lost = []

    def lose(route: Route) -> None:
        if not lost:
            lost.append(route.fetch())  # the service has it, the browser never hears of it
            route.abort()
        else:
            route.continue_()

    page.route("**/v1/score", lose)
    score(page)
    assert len(service.rows()) == 1 and len(lost) == 1


def test_a_judgement_reaches_the_outbox_and_is_remembered(service: Service, page: Page):
    score(page)
    page.locator("#result").get_by_role("button", name="bergen/1 was wrong").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("You say: There was a fault.")
    note = f"{EVIL} it leaked"
    dialog.get_by_label("Note").fill(note)
    dialog.get_by_label("Your role").fill("operator")
    dialog.get_by_role("button", name="Send").click()
    expect(dialog).to_be_hidden()
    assert service.feedback() == [(1, False, note, "operator")]
    pressed = page.locator('[aria-pressed="true"][aria-label="bergen/1 was wrong"]')
    expect(pressed).to_have_count(2)
    expect(page.locator("#chart .cross")).to_have_count(1)
    page.reload()
    expect(pressed).to_have_count(1)
    expect(page.locator("#recent-table .note")).to_have_text(note)
    page.locator("#recent-table").get_by_role("button", name="bergen/1 was right").click()
    expect(dialog.get_by_label("Your role")).to_have_value("operator")
    dialog.get_by_role("button", name="Send").click()
    expect(page.locator('[aria-pressed="true"][aria-label="bergen/1 was right"]')).to_have_count(1)
    assert [item[1] for item in service.feedback()] == [False, True]


def test_a_note_has_at_most_500_characters(page: Page, service: Service):
    score(page)
    page.locator("#result .wrong").click()
    note = page.get_by_label("Note")
    note.click()
    page.keyboard.insert_text("é" * 600)
    expect(note).to_have_value("é" * 500)
    expect(note).to_have_accessible_description(re.compile("^0 characters left"))
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert service.feedback()[0][2] == "é" * 500


def test_a_row_keeps_the_focus_while_scores_come_in(service: Service, page: Page):
    score(page)
    button = page.locator("#recent-table").get_by_role("button", name="bergen/1 was right")
    button.focus()
    page.evaluate(
        "(body) => fetch('/v1/score', {method: 'POST', body, headers: {'Content-Type': 'application/json'}})",
        json.dumps({"records": [RECORD]}),
    )
    expect(page.locator("#recent-table tbody tr")).to_have_count(2)
    expect(page.locator("#recent-table tbody tr").first).to_contain_text("bergen/2")
    expect(button).to_be_focused()


def test_the_strip_says_site_release_link_and_backlog(service: Service, page: Page):
    (service.outbox.parent / "link.json").write_text(
        '{"state":"down","since":"2026-01-02T03:04:05+00:00","changes":1}'
    )
    score(page)
    expect(page.locator("#site")).to_have_text("bergen")
    expect(page.locator("#release")).to_have_text(re.compile(r"^7\s*01234567.* old$"))
    expect(page.locator("#service")).to_have_text("answering")
    expect(page.locator("#link")).to_contain_text("down since 2 Jan")
    expect(page.locator("#backlog summary")).to_have_text("1 waiting")


@pytest.mark.parametrize(
    ("until", "when_stale", "said", "means"),
    [
        ("2999-01-02T03:04:05Z", "keep", "currentuntil 2 Jan 2999", "scoring goes on then"),
        ("2020-01-02T03:04:05Z", "stop", "stalesince 2 Jan 2020", "scoring stops then"),
    ],
)
def test_the_strip_says_for_how_long_the_site_may_rely_on_it(
    service: Service, page: Page, until: str, when_stale: str, said: str, means: str
):
    trust = page.locator("#trust")
    expect(trust).to_have_text("not known")
    note = {"until": until, "when_stale": when_stale}
    (service.outbox.parent / "lease.json").write_text(json.dumps(note))
    expect(trust).to_contain_text(said)
    expect(trust.locator("[title]")).to_have_attribute("title", re.compile(means))


def test_a_service_out_of_reach_is_told_and_found_again(service: Service, page: Page):
    score(page)
    notice = page.locator("#notice")
    expect(notice).to_be_empty()
    service.stop()
    expect(notice).to_contain_text("cannot be reached")
    expect(notice).to_have_attribute("role", "alert")
    expect(page.locator("#service")).to_have_text("no answer")
    expect(page.locator("#recent-table tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Score", exact=True).click()
    service.start()
    expect(notice).to_be_empty()
    expect(page.locator("#service")).to_have_text("answering")
    expect(page.get_by_role("button", name="Score", exact=True)).to_be_enabled()


def test_another_release_renews_the_form_and_keeps_what_was_typed(service: Service, page: Page):
    fill(page, **READING)
    release = {"release": "sha256:ffffffffffff", "version": 8}

    def change(route: Route) -> None:
        answer = route.fetch().json() | release
        if "inputs" in answer:
            answer["inputs"] = [item for item in answer["inputs"] if item["name"] != "Pump type"]
        route.fulfill(json=answer)

    page.route(re.compile("/v1/(status|contract)$"), change)
    expect(page.get_by_label("Pump type")).to_have_count(0)
    expect(page.get_by_label("Pressure", exact=True)).to_have_value("2.5")
    expect(page.locator("#release")).to_contain_text("8")


def test_inputs_are_those_of_the_tiny_model(page: Page):
    labels = page.locator("#fields label")
    expect(labels).to_have_text(["Pressure", "Temperature", "Pump type"])
    expect(page.locator("#derived summary")).to_have_text("1 derived input")
    expect(page.locator("#derived-fields input")).to_have_count(len(INPUTS) - 3)
    expect(page.get_by_label("Pressure", exact=True)).to_have_accessible_description(
        "0 to 25 bar · trained 1 to 20"
    )
