"""The document of the service as a page to read, at /docs: HTML and one style sheet, no script.

It says what the document says and nothing else; whatever comes from there is escaped. The document itself is
`openapi`'s, how a part of it is shown `docs_parts`'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from typing import Any

from edge_ai_assets.scoring import docs_parts
from edge_ai_assets.scoring.messages import Response
from edge_ai_assets.scoring.static import response

STYLE = "/static/docs.css"


def style() -> Response:
    """The page's style sheet, which belongs at STYLE."""
    return response(
        files(__package__).joinpath("page_docs/docs.css").read_bytes(), b"text/css; charset=utf-8"
    )


def page(document: dict[str, Any]) -> Response:
    """The page of an OpenAPI 3.1 document."""
    return response("\n".join(_page(document)).encode(), b"text/html; charset=utf-8")


def _page(document: dict[str, Any]) -> Iterator[str]:
    info, tags = document["info"], _by_tag(document)
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>{escape(info['title'])}</title>"
    yield '<link rel="icon" href="/static/icon.svg" type="image/svg+xml">'
    yield f'<link rel="stylesheet" href="{STYLE}">'
    yield '</head>\n<body>\n<a class="skip" href="#main">Skip to content</a>\n<div class="frame">'
    yield f"<header><h1>{escape(info['title'])}</h1>"
    yield f'<p class="quiet">{escape(info["summary"])}</p></header>'
    yield '<nav aria-label="Contents"><a href="/">Score on the page for users</a>'
    yield '<a href="/openapi.json">This document as OpenAPI 3.1</a>'
    for tag, operations in tags.items():
        yield f"<h2>{escape(tag.capitalize())}</h2><ul>"
        for _, path, operation in operations:
            name = escape(operation["operationId"])
            yield f'<li><a class="path" href="#{name}">{escape(path)}</a></li>'
        yield "</ul>"
    yield '<h2>Schemas</h2><ul class="schemas">'
    yield from (f"<li>{docs_parts.link(name)}</li>" for name in document["components"]["schemas"])
    yield '</ul></nav>\n<main id="main">'
    yield from (_text(paragraph) for paragraph in info["description"].split("\n\n"))
    yield "<p>In the examples, <code>$SERVICE</code> is the address of this service, such as "
    yield "<code>http://127.0.0.1:8080</code>.</p>"
    said = {tag["name"]: tag["description"] for tag in document["tags"]}
    for tag, operations in tags.items():
        yield f"<h2>{escape(tag.capitalize())}</h2>{_text(said[tag])}"
        for method, path, operation in operations:
            yield from docs_parts.operation(document, method, path, operation)
    yield "<h2>Schemas</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield from docs_parts.schema(name, schema)
    yield "</main>\n</div>\n</body>\n</html>\n"


def _by_tag(document: dict[str, Any]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """Method, path and operation of all there is, in the order of the tags."""
    found: dict[str, list[tuple[str, str, dict[str, Any]]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            found[operation["tags"][0]].append((method, path, operation))
    return found


def _text(said: str) -> str:
    """A paragraph; what is between backticks is code."""
    coded = re.sub("`([^`]*)`", r"<code>\1</code>", escape(said))
    return f"<p>{coded}</p>"
