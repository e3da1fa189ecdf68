"""The document of the service: valid, complete, with examples that score, and shown on a page."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from edge_ai_assets.scoring import docs_page, openapi, openapi_examples
from edge_ai_assets.scoring.app import App
from edge_ai_assets.scoring.bodies.csv_body import columns as csv_columns
from edge_ai_assets.scoring.bodies.json_body import JsonReader
from edge_ai_assets.scoring.contract import Contract, Input
from edge_ai_assets.scoring.metrics import Metrics
from edge_ai_assets.scoring.standing import Release
from edge_ai_assets.scoring.writer import Writer
from edge_ai_assets_tests.tiny_model import INPUTS

CONTRACT = Contract("tiny", INPUTS, 0.5, "fault")
NASTY = "<script>alert(1)</script>' onload='x' & $(rm -rf /) `id` [°C]"
NASTY_CONTRACT = Contract(
    'a/b "c',
    (
        Input(NASTY, "number", "<b>", NASTY, 0.0, 1.0, 0.2, 0.4),
        Input("it's", "category", "", "it's", categories=("</pre>'\\", 'x"y')),
    ),
    0.5,
    "</title>",
)


def document(contract: Contract = CONTRACT, *, tokens: bool = True) -> dict[str, Any]:
    found = openapi.document(contract, release="sha256:aa", version=3, tokens=tokens)
    return json.loads(json.dumps(found))  # what a client gets


def operations(found: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, each) for path, of in found["paths"].items() for method, each in of.items()]


def accepts(found: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    return Draft202012Validator({**schema, "components": found["components"]}).is_valid(value)


finite = st.floats(-1e30, 1e30)


@st.composite
def inputs(draw, name):
    if draw(st.booleans()):
        names = st.lists(
            st.text(min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=3, unique=True
        )
        return Input(name, "category", "", name, categories=tuple(draw(names)))
    low, a, b, high = sorted(draw(st.lists(finite, min_size=4, max_size=4)))
    bounds = {"low": low, "high": high} if draw(st.booleans()) else {}
    trained = {"trained_low": a, "trained_high": b} if draw(st.booleans()) else {}
    base = name if name == "in 0" or draw(st.booleans()) else "in 0"
    return Input(name, "number", "bar", base, **bounds, **trained)


@st.composite
def contracts(draw):
    number = draw(st.integers(1, 5))
    return Contract("made", tuple(draw(inputs(f"in {place}")) for place in range(number)), 0.5, "fault")


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("contract", [CONTRACT, NASTY_CONTRACT], ids=["tiny", "nasty"])
def test_it_is_valid_openapi(contract, tokens):
    validate(document(contract, tokens=tokens))


@given(contracts())
def test_it_is_valid_for_any_contract_and_its_example_scores_inside_the_trained_range(contract):
    found = document(contract)
    Draft202012Validator.check_schema(found["components"]["schemas"]["Record"])
    row = openapi_examples.record(contract)
    matrix = contract.encode({name: [value] for name, value in row.items()})
    assert matrix.shape == (1, len(contract.inputs)) and not np.isnan(matrix).any()
    assert not contract.beyond(matrix).any()
    assert accepts(found, {"$ref": "#/components/schemas/Record"}, row)


@pytest.mark.parametrize("contract", [CONTRACT, NASTY_CONTRACT], ids=["tiny", "nasty"])
def test_every_example_is_what_its_schema_says(contract):
    found, seen = document(contract), 0
    for _, _, each in operations(found):
        for content in each.get("requestBody", {}).get("content", {}).values():
            given = [case["value"] for case in content.get("examples", {}).values()]
            for value in [*given, *([content["example"]] if "example" in content else [])]:
                seen += 1
                assert accepts(found, content["schema"], value), value
    assert seen == 7


@pytest.mark.parametrize("contract", [CONTRACT, NASTY_CONTRACT], ids=["tiny", "nasty"])
def test_the_examples_of_a_score_are_read_by_the_service(contract):
    content = document(contract)["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    reader = JsonReader(contract)
    for case, rows in (("records", 1), ("columns", 2)):
        value = content["application/json"]["examples"][case]["value"]
        assert reader.read(json.dumps(value).encode()).number == rows
    columns, context = csv_columns(content["text/csv"]["example"].encode(), contract)
    assert contract.encode(columns).shape == (1, len(contract.inputs)) and not context


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"Pressure [bar]": None}, True),
        ({"Pump type": "never seen"}, True),
        ({"_time": "2026-01-31T13:45:00Z", "_run": "a", "_row": 5}, True),
        ({"Pressure [bar]": 25.1}, False),
        ({"Pressure [bar]": "2"}, False),
        ({"Pressure [bar]": True}, False),
        ({"Pump type": 3}, False),
        ({"made up": 1}, False),
        ({"_row": -1}, False),
        ({"_run": "x" * 201}, False),
    ],
    ids=str,
)
def test_the_schema_of_a_record_takes_what_the_service_takes(change, fits):
    found, row = document(), openapi_examples.record(CONTRACT) | change
    assert accepts(found, {"$ref": "#/components/schemas/Records"}, {"records": [row]}) == fits
    try:
        rows = JsonReader(CONTRACT).read(json.dumps({"records": [row]}).encode())
        CONTRACT.narrowed(np.asarray(rows.wide, np.float64))
    except ValueError:
        assert not fits
    else:
        assert fits


def test_only_derived_inputs_may_be_left_out():
    assert document()["components"]["schemas"]["Record"]["required"] == [item.name for item in INPUTS[:3]]


def test_every_route_of_the_service_is_in_it_and_nothing_else(model, tmp_path: Path):
    app = App(
        [Release(model, "sha256:aa", 3)],
        Writer(tmp_path / "outbox.db"),
        site="bergen",
        metrics=Metrics(None, model.contract),
        guarded=True,
    )
    found = document(model.contract)
    there = {
        (path, method.lower())
        for path, methods in app._routes.items()
        for method in methods
        if method != "HEAD"
        and not path.startswith("/static/")
        and path != "/v2/"  # as one client asks for /v2
    }
    assert {(path, method) for path, method, _ in operations(found)} == there
    for path, method, each in operations(found):
        route = app._routes[path][method.upper()]
        asked = {role for requirement in each.get("security", []) for role in requirement["token"]}
        assert asked == route.roles, path
        assert ("401" in each["responses"]) == ("403" in each["responses"]) == bool(route.roles), path
        if route.kinds:
            assert {kind.decode() for kind in route.kinds if kind} == set(each["requestBody"]["content"]), (
                path
            )


def test_without_tokens_nobody_is_asked_for_one():
    found = document(tokens=False)
    assert "securitySchemes" not in found["components"]
    for _, _, each in operations(found):
        assert "security" not in each and "401" not in each["responses"]


def test_the_outline_is_the_same_document_of_a_release_that_is_none():
    outline, found = openapi.outline(), document()
    validate(outline)
    identities = [[each["operationId"] for *_, each in operations(of)] for of in (outline, found)]
    assert identities[0] == identities[1]
    assert found["info"]["description"] in outline["info"]["description"]


@pytest.mark.parametrize(
    ("tensor", "fits"),
    [({}, True), ({"name": ""}, False), ({"datatype": ""}, False), ({"datatype": "FP23"}, False)],
    ids=str,
)
def test_a_tensor_has_a_name_and_a_datatype_that_there_is(tensor, fits):
    found = document()
    given = {"name": "Temperature", "shape": [1], "datatype": "FP32", "data": [1.0]} | tensor
    assert accepts(found, {"$ref": "#/components/schemas/InferenceRequest"}, {"inputs": [given]}) == fits


def test_every_reference_leads_somewhere_and_every_schema_is_used():
    found = document()
    refs = set(re.findall(r'"\$ref": "#/([^"]*)"', json.dumps(found)))
    for place in refs:
        part: Any = found
        for name in place.split("/"):
            part = part[name]
    for kind in ("schemas", "headers", "responses"):
        assert {f"components/{kind}/{name}" for name in found["components"][kind]} <= refs
    identities = [each["operationId"] for _, _, each in operations(found)]
    assert len(set(identities)) == len(identities)


class Page(HTMLParser):
    """Checks nesting, and keeps what is in the page."""

    VOID = ("meta", "link", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text: list[str] = []
        self.blocks: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "pre":
            self.blocks.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "pre":
            self.blocks[-1] += data


@pytest.mark.parametrize("contract", [CONTRACT, NASTY_CONTRACT], ids=["tiny", "nasty"])
def test_the_page_shows_the_document_and_runs_nothing(contract):
    found = document(contract)
    response = docs_page.page(found)
    assert response.status == 200 and response.content_type == b"text/html; charset=utf-8"
    page = Page(response.body.decode())
    assert set(page.tags) <= {
        *("html", "head", "meta", "title", "link", "body", "a", "div", "header", "nav", "main", "section"),
        *(
            "h1",
            "h2",
            "h3",
            "h4",
            "p",
            "ul",
            "li",
            "span",
            "strong",
            "code",
            "pre",
            "table",
            "thead",
            "tbody",
        ),
        *("tr", "th", "td", "details", "summary"),
    }
    names = {name for _, name, _ in page.attributes}
    assert names <= {
        *("lang", "charset", "name", "content", "rel", "href", "type", "class", "id", "scope", "tabindex"),
        *("aria-label", "aria-labelledby"),
    }
    links = [value or "" for _, name, value in page.attributes if name == "href"]
    places = [value for _, name, value in page.attributes if name in ("id",)]
    assert len(set(places)) == len(places)
    labels = {value for _, name, value in page.attributes if name == "aria-labelledby"}
    assert {link[1:] for link in links if link.startswith("#")} | labels <= set(places)
    assert {link for link in links if not link.startswith("#")} == {
        *("/", "/openapi.json", "/static/icon.svg", "/static/docs.css")
    }
    text = "".join(page.text)
    for path, _, each in operations(found):
        assert path in text and each["summary"] in text
    for item in contract.inputs:
        assert item.name in text


@pytest.mark.parametrize("contract", [CONTRACT, NASTY_CONTRACT], ids=["tiny", "nasty"])
def test_the_command_lines_on_the_page_send_the_examples(contract):
    found = document(contract)
    page = Page(docs_page.page(found).body.decode())
    sent = []
    for block in page.blocks:
        words = shlex.split(block)
        assert words[0] == "curl" and sum(word.startswith("$SERVICE/") for word in words) == 1
        if "--data-binary" in words:
            sent.append(words[words.index("--data-binary") + 1])
    assert len(page.blocks) == 16 + 7 and len(sent) == 7
    content = found["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    examples = content["application/json"]["examples"]
    assert json.loads(sent[0]) == examples["records"]["value"]
    assert json.loads(sent[1]) == examples["columns"]["value"]
    assert sent[2] == content["text/csv"]["example"]


def test_the_page_and_its_style_are_safe_to_show():
    page, style = docs_page.page(document()), docs_page.style()
    for asset in (page, style):
        headers = dict(asset.headers)
        policy = headers[b"content-security-policy"].decode()
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy
        assert headers[b"etag"].startswith(b'"') and headers[b"cache-control"] == b"no-cache"
    text = style.body.decode()
    assert "url(" not in text and "@import" not in text and "prefers-color-scheme: dark" in text
    assert docs_page.page(document()) == page  # the same document gives the same ETag
