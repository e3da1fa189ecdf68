"""What is wrong with a JSON body, in words for its sender: of faults that the decoder cannot name."""

from __future__ import annotations

import re
from math import isinf

import msgspec

from edge_ai_assets.scoring.bodies.oip_tensors import STRING

LOOKED_AT = 1024 * 1024
"""Bytes of a body that are looked through for a number that is too large: a search must not take long."""
_PLACE = re.compile(r"\(byte ([0-9]+)\)")
_NO_NUMBER = re.compile(rb"NaN|Infinity")
_HUGE = re.compile(STRING + rb"|(-?[0-9]++(?:\.[0-9]++)?[eE]\+?[0-9]{3,}|-?[0-9]{309,})", re.DOTALL)
"""A string; or as the group a number that may be too large."""


def explained_fault(body: bytes, message: str) -> str:
    """The decoder's message, or a better one: for NaN and Infinity, and for numbers beyond float64."""
    if message.startswith("Number out of range"):
        return _out_of_range(body) or message
    place = _PLACE.search(message)
    word = None if place is None else _NO_NUMBER.match(body, int(place[1]))
    if word is None:
        return message
    field = _field(body, word.start())
    name = word[0].decode()
    missing = "a missing number is null" if name == "NaN" else "a number must be finite"
    return f"{f'field {field!r}: ' if field else ''}{name} (byte {word.start()}) is no JSON, {missing}"


def _out_of_range(body: bytes) -> str | None:
    for found in _HUGE.finditer(body, 0, LOOKED_AT):
        if found[1] is None or not isinf(float(found[1])):
            continue
        field = _field(body, found.start(1))
        where = f"field {field!r}" if field else f"byte {found.start(1)}"
        return f"{where}: a number must be finite and within float32, it is {found[1][:60].decode()!r}"
    return None


def _field(body: bytes, at: int) -> str | None:
    """The name before a number: of its record's field, or its column, if there is no other text between."""
    end = body.rfind(b'"', 0, at)
    begin = body.rfind(b'"', 0, max(end, 0))
    if begin < 0 or not body[end + 1 : end + 80].lstrip().startswith(b":"):
        return None
    try:
        return str(msgspec.json.decode(body[begin : end + 1], type=str))[:200]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # a name with a quote in it
