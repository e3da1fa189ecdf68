"""The files of the page as answers: complete, safe by their headers, and with nothing inline in them."""

from __future__ import annotations

import re
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edge_ai_assets.scoring import static

FOLDER = static.FOLDER
ASSETS = static.assets()
SCRIPTS = sorted(FOLDER.glob("*.js"))
NAMESPACE = "http://www.w3.org/2000/svg"
MARKUP = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|srcdoc|\.style\b"
)


class Markup(HTMLParser):
    """Everything an element of the page could ask for or run."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.inline: list[str] = []
        self.named: list[str] = []
        self._within: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._within.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("src", "href") and value]
        self.named += [
            word
            for name in ("for", "aria-labelledby", "aria-describedby")
            for word in (given.get(name) or "").split()
        ]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self.inline += ["style"] if tag == "style" else []

    def handle_data(self, data: str) -> None:
        if self._within and self._within[-1] == "script" and data.strip():
            self.inline.append(data)


@pytest.fixture(scope="module")
def markup() -> Markup:
    parser = Markup()
    parser.feed(ASSETS["/"].body.decode())
    return parser


def test_every_file_of_the_page_is_served_under_its_path():
    names = {f"/static/{file.name}" for file in FOLDER.iterdir()} - {"/static/index.html"}
    assert set(ASSETS) == {"/"} | names and len(names) > 5
    assert ASSETS["/static/csv.js"].body == (FOLDER / "csv.js").read_bytes()


@pytest.mark.parametrize("path", sorted(ASSETS))
def test_each_answer_has_the_headers_that_keep_it_safe(path: str):
    response = ASSETS[path]
    headers = dict(response.headers)
    assert response.status == 200 and response.body
    assert headers[b"content-security-policy"] == static.POLICY.encode()
    assert headers[b"referrer-policy"] == b"no-referrer" and headers[b"cache-control"] == b"no-cache"
    assert headers[b"etag"] == b'"%b"' % sha256(response.body).hexdigest()[:32].encode()
    assert all(name == name.lower() for name in headers), "HTTP/1.1 writes them as they are"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", b"text/html"),
        ("/static/page.js", b"text/javascript"),
        ("/static/page.css", b"text/css"),
        ("/static/icon.svg", b"image/svg+xml"),
    ],
)
def test_each_kind_of_file_has_its_type(path: str, kind: bytes):
    assert ASSETS[path].content_type.split(b";")[0] == kind


def test_the_policy_lets_in_nothing_but_the_service_itself():
    rules = dict(rule.strip().split(" ", 1) for rule in static.POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert {rules[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert {rules[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert "unsafe" not in static.POLICY and "http" not in static.POLICY and "*" not in static.POLICY


def test_a_file_of_an_unknown_kind_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(static.TYPES, ".svg")
    with pytest.raises(
        ValueError, match=r"page/icon\.svg: a file must be of one of the kinds \.css, \.html, \.js"
    ):
        static.assets()


def test_the_markup_has_nothing_inline(markup: Markup):
    assert markup.inline == []


def test_the_markup_links_only_to_this_service(markup: Markup):
    elsewhere = {link for link in markup.links if not link.startswith("#")} - set(ASSETS) - {"/docs"}
    assert elsewhere == set()
    assert {link[1:] for link in markup.links if link.startswith("#")} <= set(markup.ids)


def test_ids_are_unique_and_labels_point_at_them(markup: Markup):
    assert len(markup.ids) == len(set(markup.ids))
    assert set(markup.named) <= set(markup.ids)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_makes_no_markup_and_knows_no_other_host(script: Path):
    text = script.read_text("utf-8")
    assert re.findall(MARKUP, text) == []
    assert set(re.findall(r"\w+://[^\"'`\s]*", text)) <= {NAMESPACE}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_imports_what_is_there(script: Path):
    for names, file in re.findall(r'^import (.+?) from "\./(.+?)";', script.read_text("utf-8"), re.MULTILINE):
        exported = set(
            re.findall(
                r"^export (?:async )?(?:function|class|const)\*? (\w+)",
                (FOLDER / file).read_text("utf-8"),
                re.MULTILINE,
            )
        )
        if names.startswith("{"):
            assert {name.strip() for name in names.strip("{} ").split(",")} <= exported


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_uses_what_it_imports(script: Path):
    text = script.read_text("utf-8")
    for names in re.findall(r"^import (.+?) from", text, re.MULTILINE):
        for name in names.removeprefix("* as ").strip("{} ").split(","):
            assert len(re.findall(rf"\b{name.strip()}\b", text)) > 1, name


def test_elements_that_scripts_ask_for_are_in_the_markup(markup: Markup):
    asked = {
        name for script in SCRIPTS for name in re.findall(r'byId\("([\w-]+)"\)', script.read_text("utf-8"))
    }
    assert len(asked) > 20 and asked <= set(markup.ids)


def test_the_page_is_small_enough_for_a_slow_link():
    assert sum(len(response.body) for response in ASSETS.values()) < 100_000
