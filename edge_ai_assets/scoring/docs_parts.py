"""Parts of an OpenAPI document as HTML: an operation with its examples, a schema. All text is escaped here.

What is on the page around them is `docs_page`'s.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from html import escape
from typing import Any

Part = dict[str, Any]


def operation(document: Part, method: str, path: str, found: Part) -> Iterator[str]:
    """One operation: what it is for, who may, what it takes, how to call it, what it answers."""
    name = escape(found["operationId"])
    yield f'<section class="card" id="{name}" aria-labelledby="{name}-title">'
    yield f'<div class="line"><span class="method {escape(method)}">{escape(method.upper())}</span>'
    yield f'<h3 class="path">{escape(path)}</h3></div>'
    said = escape(found.get("description", ""))
    yield f'<p id="{name}-title"><strong>{escape(found["summary"])}.</strong> {said}</p>'
    roles = [role for requirement in found.get("security", ()) for role in requirement["token"]]
    if roles:
        yield f'<p class="quiet">Needs a token with the role {escape(" or ".join(roles))}.</p>'
    if found.get("parameters"):
        yield from _table(
            "Parameters",
            ("Name", "In", "Type", "What"),
            (
                (_code(each["name"]), escape(each["in"]), kind(each["schema"]), escape(each["description"]))
                for each in found["parameters"]
            ),
        )
    taken: Part = found.get("requestBody", {}).get("content", {})
    if taken:
        yield from _table("Takes", ("Content-Type", "What"), _contents(taken))
    yield "<h4>Example</h4>"
    for title, line in _examples(method, path, taken, bool(roles)):
        yield f"<p>{escape(title)}</p>" if title else ""
        yield f'<pre tabindex="0" aria-label="Example">{escape(line)}</pre>'
    content = found["responses"]["200"]["content"]
    yield from _table("Answers", ("Content-Type", "What"), _contents(content))
    yield "<details><summary>All statuses</summary>"
    answers = ((status, _resolved(document, answer)) for status, answer in sorted(found["responses"].items()))
    rows = ((escape(status), escape(answer["description"])) for status, answer in answers)
    yield from _table("", ("Status", "When"), rows)
    yield "</details></section>"


def schema(name: str, found: Part) -> Iterator[str]:
    """One schema, with a line for each property."""
    yield f'<section class="card" id="schema-{escape(name)}"><h3>{escape(name)}</h3>'
    if "description" in found:
        yield f"<p>{escape(found['description'])}</p>"
    required = found.get("required", ())
    rows = (
        (
            _code(field) + ("" if field in required else ' <span class="quiet">optional</span>'),
            kind(each),
            escape(each.get("description", "")),
        )
        for field, each in found["properties"].items()
    )
    yield from _table("", ("Field", "Type", "What"), rows)
    yield "</section>"


def link(name: str) -> str:
    """To a schema."""
    return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'


def kind(found: Part) -> str:
    """What a value may be, in a few words; HTML."""
    if "$ref" in found:
        return link(found["$ref"].rpartition("/")[2])
    if "oneOf" in found:
        return " or ".join(map(kind, found["oneOf"]))
    if "enum" in found:
        return " or ".join(_code(json.dumps(value)) for value in found["enum"])
    if "const" in found:
        return _code(json.dumps(found["const"]))
    types = found.get("type", "any value")
    names = [types] if isinstance(types, str) else list(types)
    words = [_word(name, found) for name in names]
    if "minimum" in found and "maximum" in found:
        words[0] += f" from {found['minimum']:.6g} to {found['maximum']:.6g}"
    if "maxLength" in found:
        words[0] += f" of at most {found['maxLength']} characters"
    usual = f", {_code(json.dumps(found['default']))} when absent" if "default" in found else ""
    return " or ".join(words) + usual


def _word(name: str, found: Part) -> str:
    if name == "array":
        most = f"1 to {found['maxItems']} of " if "maxItems" in found else "list of "
        return most + kind(found.get("items", {}))
    if name == "object" and "properties" in found:
        return f"object with {', '.join(map(_code, found['properties']))}"
    return {
        "string": "time" if found.get("format") == "date-time" else "text",
        "integer": "whole number",
    }.get(name, name)


def _contents(content: Part) -> Iterator[tuple[str, ...]]:
    for media, found in content.items():
        said = found["schema"]
        what = "binary" if "contentMediaType" in said else kind(said)
        yield _code(media), what + (f": {escape(said['description'])}" if "description" in said else "")


def _examples(method: str, path: str, taken: Part, token: bool) -> Iterator[tuple[str, str]]:
    """A title and a command line for each example."""
    head = ["curl"] + (["-H 'Authorization: Bearer TOKEN'"] if token else [])
    if method == "get":
        yield "", f'{" ".join(head)} "$SERVICE"{path}'
    for media, found in taken.items():
        given = found.get("examples") or ({"": {"value": found["example"]}} if "example" in found else {})
        for each in given.values():
            value = each["value"]
            text = value if isinstance(value, str) else _indented(value)
            parts = [
                *head,
                f"-H 'Content-Type: {media}'",
                f'"$SERVICE"{path}',
                f"--data-binary {shlex.quote(text)}",
            ]
            yield each.get("summary", media), " \\\n  ".join(parts)


def _indented(value: Any) -> str:
    """JSON for people: lists of plain values are one line."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return re.sub(r"\[\n\s+([^][{}]*?)\n\s+\]", _one_line, text)


def _one_line(found: re.Match[str]) -> str:
    values = re.sub(r",\n\s+", ", ", found[1])
    return f"[{values}]"


def _table(title: str, head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """A table; titles are text, cells are HTML, the first of a row is what the row is about."""
    if title:
        yield f"<h4>{escape(title)}</h4>"
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    yield f'<div class="wide"><table><thead><tr>{columns}</tr></thead><tbody>'
    for first, *others in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in others)
        yield f'<tr><th scope="row">{first}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def _resolved(document: Part, answer: Part) -> Part:
    """What a reference to a response stands for."""
    if "$ref" not in answer:
        return answer
    found: Part = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return found


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"
