"""docs/cli.md is what the commands' own help says. After a change of a command:
python -m edge_ai_assets_tests.test_cli_docs > docs/cli.md
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer import rich_utils
from typer.testing import CliRunner

from edge_ai_assets import cli

PAGE = Path(__file__).parents[1] / "docs/cli.md"
REGENERATE = f"python -m {Path(__file__).parent.name}.{Path(__file__).stem} > docs/cli.md"
NAME = "edge-ai"
PLAIN = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
HEAD = f"""# Commands

What `{NAME} COMMAND --help` says. This page is generated: `{REGENERATE}`

{cli.__doc__.splitlines()[2]}
"""


def commands(group=None, path=()) -> Iterator[tuple[str, ...]]:
    """The words of every command, in the order in which the help lists them; () is the program itself."""
    yield path
    group = group or typer.main.get_command(cli.app)
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def help_of(path: tuple[str, ...]) -> str:
    """The help of a command as plain text, 100 columns wide wherever it runs."""
    # Both are read from the environment when the library is imported, which is too early to set them here.
    rich_utils.MAX_WIDTH, rich_utils.FORCE_TERMINAL = 100, False
    result = CliRunner().invoke(cli.app, [*path, "--help"], prog_name=NAME, env=PLAIN)
    assert result.exit_code == 0, result.output
    lines = click.unstyle(result.output).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def page() -> str:
    parts = [HEAD]
    for path in commands():
        parts.append(f"## {' '.join((NAME, *path))}\n\n```text\n{help_of(path)}\n```\n")
    return "\n".join(parts)


def test_the_page_is_up_to_date():
    assert page() == PAGE.read_text("utf-8"), f"the help of a command has changed; run: {REGENERATE}"


@pytest.mark.parametrize("path", list(commands()), ids=lambda path: " ".join(path) or NAME)
def test_a_command_is_described_and_fits_the_page(path):
    text = help_of(path)
    usage, said = text.split("\n\n")[:2]
    assert usage.strip().lower().startswith(f"usage: {' '.join((NAME, *path))} ")
    assert said.strip()[0].isalpha() and "." in said
    assert max(map(len, text.splitlines())) <= 100


def test_the_width_of_the_terminal_does_not_matter(monkeypatch):
    before = help_of(())
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERMINAL_WIDTH", "50")
    assert help_of(()) == before


if __name__ == "__main__":
    sys.stdout.write(page())
