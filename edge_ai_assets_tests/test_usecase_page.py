"""docs/usecase.md is what the use case's model says. After a change of it:
python -m edge_ai_assets_tests.test_usecase_page > docs/usecase.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from edge_ai_assets.usecase import BUNDLED, UseCase

PAGE = Path(__file__).parents[1] / "docs/usecase.md"
REGENERATE = f"python -m {Path(__file__).parent.name}.{Path(__file__).stem} > docs/usecase.md"
HEAD = f"""# The use case

This page is generated: `{REGENERATE}`

One YAML file says what is read, what is predicted, what may leave a site, and which sites there are.
`edge-ai usecase init readings.csv` drafts one, `edge-ai usecase check FILE` names each mistake with its
line. A word that is left out has the default below.
"""


def parts(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and what it is made of, each once, in the order in which they are named."""
    found = [model]
    for each in found:
        yield each
        for field in each.model_fields.values():
            found += [part for part in _models(field.annotation) if part not in found]


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in get_args(kind) if get_origin(kind) is not Literal else ():
        yield from _models(inner)


def said(kind: Any) -> str:
    """A kind of value, for people."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return said(inner[0]) + bounds(inner[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(said(one) for one in inner if one is not type(None))
    if origin is tuple and inner[-1] is Ellipsis:
        return f"list of {said(inner[0])}"
    if origin is tuple:
        return f"list of {len(inner)}: {', '.join(map(said, inner))}"
    if origin is dict:
        return f"table of {said(inner[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if isinstance(kind, type) and hasattr(kind, "__members__"):
        return ", ".join(f"`{value.value}`" for value in kind)  # type: ignore[attr-defined]
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(kind, str(kind))


def bounds(metadata: Any) -> str:
    found = []
    for item in metadata:
        for one in getattr(item, "metadata", [item]) or [item]:
            for kind, name, words in (
                *((Ge, "ge", "at least"), (Gt, "gt", "above"), (Le, "le", "at most"), (Lt, "lt", "below")),
            ):
                if isinstance(one, kind):
                    found.append(f"{words} {getattr(one, name):,}")
    return f" ({', '.join(found)})" if found else ""


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    made = field.default if field.default is not PydanticUndefined else field.default_factory()  # type: ignore[misc, call-arg]
    if made is None or made in ((), {}, "") or isinstance(made, BaseModel):
        return "–"
    return f"`{list(made) if isinstance(made, tuple) else getattr(made, 'value', made)}`"


def page() -> str:
    example = (BUNDLED / "pump-station.yaml").read_text("utf-8")
    lines = [HEAD, f"```yaml\n{example}```\n"]
    for model in parts(UseCase):
        lines += [f"## {model.__name__}\n", (model.__doc__ or "").replace("\n    ", "\n").strip() + "\n"]
        lines += ["| word | kind | default | what for |", "| --- | --- | --- | --- |"]
        for name, field in model.model_fields.items():
            kind = said(field.annotation) + bounds(field.metadata)
            cells = f"`{name}`", kind, default(field), field.description or ""
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def test_the_page_is_up_to_date():
    assert page() == PAGE.read_text("utf-8"), f"the use case has changed; run: {REGENERATE}"


if __name__ == "__main__":
    sys.stdout.write(page())
