"""`edge-ai tokens`: make, list and revoke the tokens of a scoring service.

What a token is and how its file is kept is `scoring.tokens`' matter.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge_ai_assets.commands.show import console
from edge_ai_assets.scoring import tokens as module
from edge_ai_assets.scoring.tokens import Token, TokensError

tokens = typer.Typer(
    no_args_is_help=True, help="Tokens of a scoring service: who may score, give feedback, or operate."
)
say = Console(stderr=True)


class Role(StrEnum):
    SCORE = "score"
    FEEDBACK = "feedback"
    OPERATE = "operate"


File = Annotated[Path, typer.Option("--file", dir_okay=False, help="The file of tokens the service reads.")]
Json = Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")]


@tokens.command()
def add(
    name: Annotated[
        str, typer.Argument(help="Whose it is, such as 'line 3 panel'; it stands beside feedback.")
    ],
    file: File,
    role: Annotated[list[Role], typer.Option(help="What it is for; may be given several times.")],
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days it is valid; for ever when absent.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token. It is shown once, on standard output, and nowhere kept.

    The file is made if there is none, readable by this user only. A service that runs takes the token up
    within a second.
    """
    ends = None if days is None else datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    text = module.add(file, name, [each.value for each in role], ends)
    if as_json:
        _answer({"token": text, **_shown(module.listed(file)[-1])})
        return
    sys.stdout.write(text + "\n")
    say.print("this is shown once: keep it where the client reads it", highlight=False)


@tokens.command("list")
def list_(file: File, as_json: Json = False) -> None:
    """List the tokens of a file, without their secrets, which nobody has."""
    found = [_shown(token) for token in module.listed(file)]
    if as_json:
        _answer({"tokens": found})
        return
    table = Table("id", "name", "roles", "created", "expires")
    for each in found:
        ends = (each["expires"] or "never") + (" (expired)" if each["expired"] else "")
        table.add_row(each["id"], escape(each["name"]), ", ".join(each["roles"]), each["created"], ends)
    console().print(table)


@tokens.command()
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="Of the token, as `edge-ai tokens list` shows it.")],
    file: File,
    as_json: Json = False,
) -> None:
    """Revoke a token: services that run refuse it within a second."""
    revoked = module.revoke(file, id)
    if as_json:
        _answer({"revoked": _shown(revoked)})
    else:
        say.print(f"{revoked.id} of {revoked.name!r} is revoked", highlight=False, markup=False)


def main(arguments: list[str]) -> None:
    """Run a command; a known error is one line on standard error and exit code 2."""
    try:
        tokens(arguments, prog_name="edge-ai tokens")
    except TokensError as error:
        say.print(f"[red]edge-ai:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)


def _shown(token: Token) -> dict[str, Any]:
    ends = token.expires
    return {
        "id": token.id,
        "name": token.name,
        "roles": list(token.roles),
        "created": token.created.isoformat(),
        "expires": None if ends is None else ends.isoformat(),
        "expired": ends is not None and ends <= datetime.now(UTC),
    }


def _answer(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
