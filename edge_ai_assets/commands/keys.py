"""`edge-ai keys`: whose signatures count for releases. Make them, replace them, take them back, look at them.

What the steps do is `delivery.ceremony`'s.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from edge_ai_assets.home import Home
from edge_ai_assets.settings import Settings

keys = typer.Typer(
    no_args_is_help=True,
    help="Keys that releases are trusted by: make, rotate, revoke, list. A demo makes its own.",
)
say = Console(stderr=True)


class Role(StrEnum):
    ROOT = "root"
    TARGETS = "targets"
    SNAPSHOT = "snapshot"
    TIMESTAMP = "timestamp"


Json = Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")]
RootKeys = Annotated[
    list[Path] | None,
    typer.Option(
        "--root-keys",
        file_okay=False,
        help="Folder on a medium that is kept away, one key each; several times for several.",
    ),
]
AnyRole = Annotated[
    Role,
    typer.Option(
        help="root says whose keys count, targets lists releases, snapshot and timestamp what is current."
    ),
]
Old = Annotated[str, typer.Option(help="The key's name, or the beginning of its id.")]


@keys.command("make")
def make_(
    root_keys: RootKeys = None,
    threshold: Annotated[int, typer.Option(min=1, help="So many root keys must sign.")] = 1,
    targets: Annotated[
        list[str] | None,
        typer.Option(help="Name of a key that lists releases; the online key `release` when absent."),
    ] = None,
    targets_threshold: Annotated[int, typer.Option(min=1, help="So many of them must sign.")] = 1,
    vault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL",
            help="A key of --targets that is in an Azure Key Vault; URL names its version, too.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the keys of all roles, once, before the first release.

    Private root keys go into the folders given and nowhere else: carry them away, and bring them when keys
    are rotated or revoked. Give three folders and `--threshold 2`, and one of them may be lost or stolen.
    """
    from edge_ai_assets.delivery import ceremony

    home = _azure()
    vaulted = {}
    for each in vault or []:
        from edge_ai_assets.resources.identity.keyvault import public_pem

        name, _, address = each.partition("=")
        vaulted[name] = (address, public_pem(address))
    roles = ceremony.Roles(
        root=tuple(root_keys or ()),
        root_threshold=threshold,
        targets=tuple(dict.fromkeys([*(targets or ()), *vaulted])),
        targets_threshold=targets_threshold,
        vault=vaulted,
    )
    ceremony.make(home.keys, roles)
    _answer(ceremony.listed(home.keys, home.registry), as_json)
    where = ", ".join(map(str, root_keys or [])) or f"{home.keys}: fit for a demo, carry it away otherwise"
    say.print(f"private root keys: {where}", highlight=False, markup=False, soft_wrap=True)


@keys.command()
def rotate(
    old: Old,
    new: Annotated[str, typer.Option(help="Name of the key that takes its place; made if it is not there.")],
    role: AnyRole = Role.TARGETS,
    root_keys: RootKeys = None,
    as_json: Json = False,
) -> None:
    """Give a key's place in a role to another.

    Sites follow when they next hear from here, by link or bundle, however many such steps they missed. What
    is released is signed anew at once. A new root key is made in the last folder of `--root-keys`.
    """
    from edge_ai_assets.delivery import ceremony

    home = _azure()
    _answer(ceremony.rotate(home.keys, home.registry, role, old, new, tuple(root_keys or ())), as_json)


@keys.command()
def revoke(old: Old, role: AnyRole = Role.TARGETS, root_keys: RootKeys = None, as_json: Json = False) -> None:
    """Take a key out of a role. The keys left there must still be enough to sign.

    Until a site hears of it, it believes what the key signs: a lease bounds that time.
    """
    from edge_ai_assets.delivery import ceremony

    home = _azure()
    _answer(ceremony.revoke(home.keys, home.registry, role, old, tuple(root_keys or ())), as_json)


@keys.command("list")
def list_(as_json: Json = False) -> None:
    """Whose signatures count for what, how many of them are needed, and which private halves are here."""
    from edge_ai_assets.delivery import ceremony

    home = _azure()
    _answer(ceremony.listed(home.keys, home.registry), as_json)


def _azure() -> Home:
    from edge_ai_assets.enrolment import EnrolmentError

    home = Settings.load().folders()
    if home.own_site:
        raise EnrolmentError(
            f"{home.root} is the home of site {home.own_site!r}: set EDGE_AI_HOME to that of Azure's side"
        )
    return home


def _answer(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    sys.stdout.write(f"root {found['version']}, good until {found['expires'][:10]}\n")
    for role, of in found["roles"].items():
        names = ", ".join(
            f"{key['name'] or key['id'][:16]} ({key['scheme']}{', here' if key['here'] else ''})"
            for key in of["keys"]
        )
        sys.stdout.write(f"{role:<10} {of['threshold']} of {len(of['keys'])}: {names}\n")
