"""`edge-ai link`: the link of each site, as far as it is here. What cutting one does is `returns.road.link`'s
matter."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.table import Table

from edge_ai_assets.commands import here
from edge_ai_assets.commands.here import NotHere
from edge_ai_assets.commands.show import console
from edge_ai_assets.returns.road.link import Link, LinkState
from edge_ai_assets.usecase import Road

links = typer.Typer(no_args_is_help=True, help="The link of each site: cut it, restore it, look at it.")

Site = Annotated[str | None, typer.Option("--site", help="Only this site; all when absent.")]
Json = Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")]
Action = Callable[[Link], LinkState]
NONE, UNKNOWN = "none", "unknown here"


@links.command()
def up(site: Site = None, as_json: Json = False) -> None:
    """Restore the link: the backlog of the site is uploaded by a sensor."""
    _answer(_each(site, Link.restore, changes=True), as_json)


@links.command()
def down(site: Site = None, as_json: Json = False) -> None:
    """Cut the link: scoring goes on, what may leave waits."""
    _answer(_each(site, Link.cut, changes=True), as_json)


@links.command()
def status(site: Site = None, as_json: Json = False) -> None:
    """Which links are up, and since when."""
    _answer(_each(site, lambda link: link.state, changes=False), as_json)


def _each(name: str | None, act: Action, *, changes: bool) -> dict[str, dict[str, Any]]:
    """The links after `act`, by site; of a site whose link is not to be found here, why.

    Raises:
        NotHere: that very site was to be changed, and has no link here.
    """
    from edge_ai_assets.stack_hub import connecting
    from edge_ai_assets.status import away

    home, usecase = here.home_and_usecase()
    found = {}
    for at in (
        [here.site(name)] if name is not None else map(here.site, (each.name for each in usecase.sites))
    ):
        site = usecase.at(at.name)
        missing = NONE if site.road is Road.MEDIA else UNKNOWN if away(home, site) else None
        if missing is None:
            state = act(Link(at.root))
            if act is Link.restore:
                connecting.hint(at)
            found[at.name] = {"state": state.state, "since": state.since or None, "changes": state.changes}
        elif changes and name is not None:
            raise NotHere(
                f"site {name!r} has no link: its packages are carried (road: media)"
                if missing == NONE
                else f"the link of site {name!r} is not here: run this in the site's own home"
            )
        else:
            found[at.name] = {"state": missing, "since": None, "changes": 0}
    return found


def _answer(found: dict[str, dict[str, Any]], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        return
    table = Table("site", "link", "since")
    for name, each in found.items():
        since = each["since"] or ("-" if each["state"] in (NONE, UNKNOWN) else "ever")
        table.add_row(name, each["state"], since)
    console().print(table)
