"""`edge-ai ledger`: check and show the record of what left a site.

What its lines are is in `returns.egress.ledger`, what they amount to in `returns.egress.coverage`.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import ExitStack
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from edge_ai_assets.commands import here
from edge_ai_assets.commands.here import NotHere
from edge_ai_assets.commands.show import console
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns import clock

FAILED = 1

ledger = typer.Typer(
    no_args_is_help=True, help="The egress ledger: what left a site, when, under which policy, to where."
)
say = Console(stderr=True)

Site = Annotated[str | None, typer.Option("--site", help="Only this site; all when absent.")]
Json = Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")]


@ledger.command()
def verify(site: Site = None, as_json: Json = False) -> None:
    """Check the ledger's chain, and that it covers every package that counts as sent or exported.

    The chain shows what was changed in the ledger, the packages what was cut off at its end. Exit code 1 if
    either does not hold.
    """
    found = {at.name: _verified(at) for at in here.sites(site)}
    if as_json:
        _answer(found)
    else:
        table = Table("site", "lines", "packages", "not covered", "holds")
        for name, each in found.items():
            table.add_row(
                name, *(str(each[part]) for part in ("lines", "packages", "uncovered")), _yes(each["holds"])
            )
        console().print(table)
        for name, each in found.items():
            if each["error"]:
                _say(f"{name}: {each['error']}")
            if each["uncovered"]:
                _say(f"{name}: left without being in the ledger: {', '.join(each['names'])}")
    if not all(each["holds"] for each in found.values()):
        sys.exit(FAILED)


@ledger.command()
def show(
    site: Site = None,
    package: Annotated[
        str | None, typer.Option(help="Only this package, line by line, such as bergen-00000001.zip.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="Show so many packages, the newest.")] = 20,
    as_json: Json = False,
) -> None:
    """Show what left, package by package, as far as the ledger's chain holds.

    `covered` counts the bytes of the package's file that left at least once, from its start; `bytes` also
    what was sent again. Exit code 1 if the chain breaks: what stands before that is shown.
    """
    from edge_ai_assets.returns.egress.coverage import Coverage
    from edge_ai_assets.returns.egress.ledger import Entry, LedgerError, of_package

    found: dict[str, Any] = {}
    broken: list[LedgerError] = []
    for at in here.sites(site):
        if package is None:
            with Coverage(at.ledger, as_far=True) as coverage:
                found[at.name] = [_left(msgspec.to_builtins(left)) for left in coverage.newest(last)]
                broken += [coverage.error] if coverage.error else []
            continue
        lines: list[Entry] = []
        try:
            lines.extend(of_package(at.ledger, package))
        except LedgerError as error:  # `lines` has those before it
            broken.append(error)
        if lines:
            found[at.name] = [{**msgspec.to_builtins(line), "time": clock.iso(line.time)} for line in lines]
    if package is not None and not found and not broken:
        raise NotHere(f"nothing of {package!r} left: `edge-ai ledger show` lists what did")
    if as_json:
        _answer(found)
    else:
        _table(found, package is not None)
    for each in broken:
        _say(str(each))
    if broken:
        sys.exit(FAILED)


def _table(found: dict[str, Any], by_line: bool) -> None:
    columns = (
        ("time", "first", "last", "policy", "destination", "hash")
        if by_line
        else ("package", "bytes", "covered", "lines", "began", "ended", "destinations")
    )
    table = Table("site", *columns)
    for name, rows in found.items():
        for row in rows:
            table.add_row(name, *(str(row[column]) for column in columns))
    console().print(table)


def _verified(at: SiteHome) -> dict[str, Any]:
    from edge_ai_assets.returns.egress.coverage import check
    from edge_ai_assets.returns.egress.ledger import LedgerError
    from edge_ai_assets.returns.outbox.outbox import Outbox, OutboxError

    found: dict[str, Any] = {"lines": 0, "packages": 0, "uncovered": 0, "names": []}
    error = None
    try:
        with ExitStack() as stack:
            outbox = stack.enter_context(Outbox(at.outbox, create=False)) if at.outbox.exists() else None
            found = msgspec.to_builtins(check(at.ledger, outbox))
    except (LedgerError, OutboxError, sqlite3.Error, OSError) as broken:
        error = str(broken)  # what is damaged at one site must not hide the others
    return {**found, "error": error, "holds": not found["uncovered"] and error is None}


def _left(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "began": clock.iso(found["began"]), "ended": clock.iso(found["ended"])}


def _yes(holds: bool) -> str:
    return "yes" if holds else "NO"


def _say(text: str) -> None:
    say.print(text, highlight=False, markup=False, soft_wrap=True)


def _answer(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
