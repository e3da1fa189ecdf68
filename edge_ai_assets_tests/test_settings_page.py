"""docs/settings.md is what the settings' model says. After a change of it:
python -m edge_ai_assets_tests.test_settings_page > docs/settings.md
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from edge_ai_assets import profile_values
from edge_ai_assets.settings import PREFIX, PROFILES, Settings
from edge_ai_assets.settings_errors import kind_of_field, table_of

ROOT = Path(__file__).parents[1]
PAGE, EXAMPLES = ROOT / "docs/settings.md", ROOT / "docs/examples"
PACKAGE = ROOT / "edge_ai_assets"
REGENERATE = f"python -m {Path(__file__).parent.name}.{Path(__file__).stem} > docs/settings.md"
SHARED = ("Credential", "TokenCredential", "Entra", "AdFs", "Secret")
"""Tables that stand in several sections."""
HEAD = f"""# Settings

This page is generated: `{REGENERATE}`

Without any settings everything is embedded: nothing to install, no network. A service becomes real when
its section is there: `azure.toml` in the home is Azure's side, `stack_hub.toml` a site's. Each field can be
given by the environment instead, which comes first; levels are parted by `__`, as in
`EDGE_AI_AZURE__STORAGE__LAKE`. A value that is a table is JSON there.

A secret never stands in a file of settings, only where it is. It is fetched when it is used, and again after
five minutes, so a renewed one is taken up. `edge-ai doctor` asks each service that is configured once, and
says what is wrong and what to do.

`edge-ai link down` holds for a real `[uplink]` as for the embedded one. `[queue]` serves one site: it has a
home and a storage account of its own.
"""


def rows(model: type[BaseModel], variable: str, only: tuple[str, ...] = ()) -> Iterator[str]:
    yield "| field | environment | kind | default | what for |"
    yield "| --- | --- | --- | --- | --- |"
    for name, field in model.model_fields.items():
        if not only or name in only:
            cells = (
                f"`{name}`",
                f"`{variable}{name.upper()}`",
                kind(field),
                default(field),
                field.description,
            )
            yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def kind(field: FieldInfo) -> str:
    table = table_of(field.annotation)
    return f"[{table.__name__}](#{table.__name__.lower()})" if table else kind_of_field(field)


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    made = field.default if field.default is not PydanticUndefined else field.default_factory()
    if made is None or made == {}:
        return "–"
    return '`{ entra = "default" }`' if isinstance(made, BaseModel) else f"`{made}`"


def sections() -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Profile, section and the section's table."""
    for profile in PROFILES:
        model = table_of(Settings.model_fields[profile].annotation)
        for name, field in model.model_fields.items():
            yield profile, name, table_of(field.annotation)


def shared() -> Iterator[tuple[str, type[BaseModel]]]:
    for name in SHARED:
        yield name, getattr(profile_values, name)


def page() -> str:
    parts = [HEAD, "## Environment alone\n", *rows(Settings, PREFIX, ("home", "usecase")), ""]
    before = ""
    for profile, section, model in sections():
        if profile != before:
            text = (EXAMPLES / PROFILES[profile]).read_text("utf-8")
            parts += [f"## {PROFILES[profile]}\n", f"```toml\n{text}```\n"]
            before = profile
        said = " ".join((model.__doc__ or "").split())
        parts += [f"### [{section}]\n", f"{said}\n"]
        parts += [*rows(model, f"{PREFIX}{profile}__{section}__".upper()), ""]
    parts.append("## Tables within sections\n\nTheir variables begin with that of the field, here …\n")
    for name, model in shared():
        parts += [f"### {name}\n", " ".join((model.__doc__ or "").split()) + "\n", *rows(model, "…__"), ""]
    return "\n".join(parts).rstrip("\n") + "\n"


def test_the_page_is_up_to_date():
    assert page() == PAGE.read_text("utf-8"), f"the settings have changed; run: {REGENERATE}"


def fields() -> Iterator[tuple[str, str]]:
    for profile, section, model in sections():
        yield from ((f"{profile}.{section}", name) for name in model.model_fields)
    for part, model in shared():
        yield from ((part, name) for name in model.model_fields)


@pytest.fixture(scope="module")
def code() -> str:
    """The package without what declares settings, and what only looks whether they work."""
    own = {"profiles.py", "profile_values.py", "settings.py", "settings_errors.py"}
    files = [path for path in PACKAGE.rglob("*.py") if path.name not in own and "doctor" not in str(path)]
    return "\n".join(path.read_text("utf-8") for path in files)


@pytest.mark.parametrize(("of", "name"), list(fields()), ids=lambda given: str(given))
def test_every_field_is_used_and_described(of, name, code):
    model = dict(shared()).get(of) or {f"{a}.{b}": model for a, b, model in sections()}[of]
    field = model.model_fields[name]
    assert field.description and field.description.endswith("."), "it says what it is for"
    assert re.search(rf"\.{name}\b", code), f"nothing in the package uses {of} {name}"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_section_has_a_user_and_an_example(profile, tmp_path, monkeypatch, code):
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    shutil.copy(EXAMPLES / PROFILES[profile], tmp_path)
    found = getattr(Settings.load(home=tmp_path), profile)
    for section in type(found).model_fields:
        assert getattr(found, section) is not None, f"{PROFILES[profile]} shows no [{section}]"
        assert re.search(rf"\b(profile|settings|{profile})\.{section}\b", code), f"[{section}] has no user"


if __name__ == "__main__":
    sys.stdout.write(page())
