"""Columns of numbers in a JSON body, straight into arrays: no Python object is made for a value.

For the body that large requests mostly are: `{"columns": {…}}` and nothing else, only numbers that are there.
Any other is left to `json_body`, which also knows what is wrong with it; so are all where simdjson is not
installed: it has wheels for fewer versions of Python than we run on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

try:
    import simdjson
except ImportError:  # pragma: no cover: only where there is no wheel of it
    simdjson = None  # type: ignore[assignment]

MAX_BYTES = 4 * 1024 * 1024
"""A parser takes some ten times the body, for as long as there is one."""


class NumbersReader:
    """Reads such bodies, in any thread.

    Args:
        names: of the inputs.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._brackets = sum(1 + name.count("[") for name in names)

    def read(self, body: bytes) -> dict[str, np.ndarray] | None:
        """The columns of a body, float64, by name; None if it is another kind of body."""
        # Counted first: lists in lists, the costliest there is, are no body of this kind.
        if simdjson is None or len(body) > MAX_BYTES or (found := body.count(b"[")) > self._brackets:
            return None
        try:
            # A new one for each body: one that is kept is no faster, and keeps its memory in every thread.
            document: Any = simdjson.Parser().parse(body)
            columns = document["columns"]
            names = list(columns)
            # It takes a list of lists for one list: no bracket may be there but those of columns and names.
            brackets = len(names) + sum(name.count("[") for name in names)
            if len(document) != 1 or len(set(names)) != len(names) or found != brackets:
                return None
            return {name: np.frombuffer(columns[name].as_buffer(of_type="d")) for name in names}
        except (ValueError, TypeError, AttributeError, KeyError, RuntimeError):  # whatever simdjson refuses
            return None
