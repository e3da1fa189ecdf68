"""What is wrong with settings, in words: a sentence for each mistake, with file or variable, section, field,
what it must be and of what kind it is. No value is ever shown: it might be a secret in the wrong place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from edge_ai_assets.profile_values import Kind

Loc = tuple[str, ...]
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (str, "text"),
    (int, "a whole number"),
    (float, "a number"),
    (dict, "a table"),
    (list, "a list"),
    (NoneType, "nothing"),
)


class SettingsError(ValueError):
    """Settings that cannot be used; each line of the message names file, section, field and bound."""


class Given:
    """Where settings came from, so that an error names the file, or the variable, that is to be changed.

    Args:
        model: the settings' class.
        files: profile to its file.
        prefix: of the variables' names.
        environment: the variables.
    """

    def __init__(
        self, model: type[BaseModel], files: Mapping[str, Path], prefix: str, environment: Mapping[str, str]
    ) -> None:
        self._model, self._files, self._prefix = model, files, prefix
        self._variables = {name.upper() for name, value in environment.items() if value}

    def refused(self, error: ValidationError) -> SettingsError:
        """A line for each thing that pydantic found."""
        return SettingsError("\n".join(self._sentence(each) for each in error.errors()))

    def unknown_variables(self) -> Iterator[str]:
        """A sentence for each variable with levels whose first word is no profile, or only begins with one:
        levels are parted by two underscores."""
        begins = tuple(f"{profile}_" for profile in self._files)
        for name in sorted(self._variables):
            first, levels, _ = name.removeprefix(self._prefix).lower().partition("__")
            strange = (levels and first not in self._files) or first.startswith(begins)
            if name.startswith(self._prefix) and strange:
                near = _near(first, list(self._files))
                yield f"environment variable {name} is no setting: {self._prefix}{near.upper()}__… maybe"

    def _sentence(self, detail: ErrorDetails) -> str:
        loc = tuple(str(part) for part in detail["loc"])
        kind = detail["type"]
        if kind == "extra_forbidden":
            return self._unknown(loc)
        field = _field(self._model, loc)
        if kind == "missing":
            return f"{self._where(loc)} is missing: it {_must(field)}"
        if kind == "value_error" and _kind(field) is None:
            return f"{self._where(loc)} {detail['ctx']['error']}"
        found = detail["input"]
        return f"{self._where(loc)} {_must(field)}; it is {_kind_of(found)}"

    def _unknown(self, loc: Loc) -> str:
        known = list(_model(self._model, loc[:-1]).model_fields)
        near = get_close_matches(loc[-1].lower(), known, 1, 0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        return f"{self._where(loc)} is not known: {hint}"

    def _where(self, loc: Loc) -> str:
        """The file and the field in it, or the variable."""
        if loc[0] not in self._files:
            return f"environment variable {self._variable(loc)}"
        for length in range(len(loc), 0, -1):
            if (name := self._variable(loc[:length])) in self._variables:
                inside = "." + ".".join(loc[length:]) if length < len(loc) else ""
                return f"environment variable {name}{inside}"
        deeper = [name for name in sorted(self._variables) if name.startswith(f"{self._variable(loc)}__")]
        if deeper:
            return f"environment variable {deeper[0]} and its like:"
        section = f" [{loc[1]}]" if len(loc) > 1 else ""
        path = f" {'.'.join(loc[2:])}" if len(loc) > 2 else ""
        return f"{self._files[loc[0]]}:{section}{path}"

    def _variable(self, loc: Loc) -> str:
        return self._prefix + "__".join(loc).upper()


def _near(name: str, known: list[str]) -> str:
    return (get_close_matches(name, known, 1, 0.0) or known)[0]


def _model(model: type[BaseModel], loc: Loc) -> type[BaseModel]:
    """The table at a place."""
    for name in loc:
        inner = table_of(model.model_fields[name].annotation)
        assert inner is not None
        model = inner
    return model


def _field(model: type[BaseModel], loc: Loc) -> FieldInfo | None:
    """The field at a place; None for what lies below one, say in a list."""
    try:
        return _model(model, loc[:-1]).model_fields.get(loc[-1])
    except (AssertionError, KeyError):
        return None


def table_of(annotation: Any) -> type[BaseModel] | None:
    """The table that a field takes, if it takes one."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def kind_of_field(field: FieldInfo) -> str:
    """What a field takes, as text for people."""
    if found := _kind(field):
        return found
    if table := table_of(field.annotation):
        return f"a table with {', '.join(table.model_fields)}"
    plain = [text for kind, text in _KINDS if kind in (field.annotation, get_origin(field.annotation))]
    return plain[0] if plain else "a path"


def _kind(field: FieldInfo | None) -> str | None:
    if field is None:
        return None
    inner = [piece for each in get_args(field.annotation) for piece in getattr(each, "__metadata__", ())]
    return next((piece.text for piece in (*field.metadata, *inner) if isinstance(piece, Kind)), None)


def _must(field: FieldInfo | None) -> str:
    return f"must be {kind_of_field(field)}" if field else "must be of another kind"


def _kind_of(found: Any) -> str:
    name = next((text for kind, text in _KINDS if isinstance(found, kind)), type(found).__name__)
    return f"{name} of {len(found)} characters" if isinstance(found, str) else name
