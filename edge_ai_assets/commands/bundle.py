"""`edge-ai bundle`: releases that are carried by hand: build, verify, inspect, import.

What a bundle is, and why one is refused, is `delivery`'s.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_ai_assets.commands import here
from edge_ai_assets.commands.here import NotHere

if TYPE_CHECKING:
    from edge_ai_assets.delivery.trust import Trust, Trusted

bundle = typer.Typer(
    no_args_is_help=True, help="Releases on media: build a bundle, verify, inspect and import one."
)

File = Annotated[
    Path,
    typer.Argument(exists=True, dir_okay=False, help="NAME.bundle, or NAME.bundle.parts beside its parts."),
]
Site = Annotated[str | None, typer.Option("--site", help="The site's name.")]
Json = Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")]


@bundle.command()
def build(
    to: Annotated[Path, typer.Option("--to", file_okay=False, help="Folder for it: a medium.")],
    site: Annotated[
        str | None,
        typer.Option("--site", help="Leave out what this site said it has; for any site when absent."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="In parts of at most so much, such as 4GiB, for FAT32.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the newest release as a bundle, with what sites trust it by, signed anew if that is due."""
    from edge_ai_assets.azure import arrivals, outgoing
    from edge_ai_assets.delivery import pack
    from edge_ai_assets.delivery import split as parts

    home, usecase = here.home_and_usecase()
    if home.own_site:
        raise NotHere(f"{home.root} is the home of site {home.own_site!r}: bundles are built on Azure's side")
    size = _size(split)
    have, acks = frozenset[str](), arrivals.acks(home)
    if site is not None:
        here.site(site)
        have = outgoing.inventories(home).get(site, have)
        acks = {name: data for name, data in acks.items() if name == site}
    lease = usecase.delivery.lease
    path = pack.bundle(home.registry, home.keys, to, have=have, acks=acks, lease=lease)
    found: dict[str, Any] = {"bundle": str(path), **_contents(path)}
    if size is not None:
        found["bundle"] = str(parts.split(path, size))
    _answer(found, as_json)


@bundle.command()
def verify(file: File, site: Site = None, as_json: Json = False) -> None:
    """Check every byte, every signature and the age of a bundle, as a site would; nothing is written.

    With `--site` by what that site trusts and has accepted; else by the root metadata of this home.
    """
    from edge_ai_assets.delivery import bundle as bundles

    with tempfile.TemporaryDirectory() as scratch:
        path = _whole(file, Path(scratch))
        release = bundles.verify(path, _trust(site, Path(scratch)))
        _answer({"verified": True, "image": release.image, **_contents(path)}, as_json)


@bundle.command()
def inspect(file: File, as_json: Json = False) -> None:
    """Show what a bundle says that it holds. Nothing of it is verified."""
    with tempfile.TemporaryDirectory() as scratch:
        _answer({"verified": False, **_contents(_whole(file, Path(scratch)))}, as_json)


@bundle.command("import")
def import_(
    file: File, site: Annotated[str, typer.Option("--site", help="The site's name.")], as_json: Json = False
) -> None:
    """Install the release of a bundle at a site. Nothing connects anywhere.

    Interrupted, the same command goes on. The bundle is put into the site's folder `media`, where the site's
    Dagster finds and deploys it. One that is torn, foreign, older or out of date is refused, and changes
    nothing.
    """
    from edge_ai_assets.delivery import bundle as bundles
    from edge_ai_assets.delivery.errors import WithdrawnError
    from edge_ai_assets.returns import clock
    from edge_ai_assets.stack_hub import connecting, delivery, provision

    at = here.site(site)
    store, trust = delivery.store_of(at), provision.trust(at)
    with tempfile.TemporaryDirectory(dir=at.root) as scratch:
        path = _whole(file, Path(scratch))
        try:
            release = bundles.import_bundle(path, store.layout, trust, runs_images=store.runs_images)
        except WithdrawnError:  # it brings that word, and acknowledgements
            connecting.apply_acks_of(at, path, clock.now())
            raise
        acknowledged = connecting.apply_acks_of(at, path, clock.now())
        store.fetch(store.layout, trust)
        _keep(path, at.media)
    found = {
        "site": site,
        "release": release.version,
        "image": release.image,
        "acknowledged": acknowledged.packages if acknowledged else 0,
    }
    _answer(found, as_json)


def _trust(site: str | None, scratch: Path) -> Trust | Trusted:
    from edge_ai_assets.delivery import ceremony
    from edge_ai_assets.delivery.layout import Layout
    from edge_ai_assets.delivery.trust import Trust
    from edge_ai_assets.stack_hub import provision

    if site is not None:
        return provision.trust(here.site(site))
    home, _ = here.home_and_usecase()
    if home.own_site:
        return provision.trust(home.site(home.own_site))
    return Trust(ceremony.first_root(home.keys), Layout(scratch / "nothing"))


def _whole(file: Path, scratch: Path) -> Path:
    from edge_ai_assets.delivery import split as parts

    return parts.join(file, scratch) if file.name.endswith(parts.SUFFIX) else file


def _keep(path: Path, media: Path) -> None:
    """Put a bundle into a site's `media`, whole or not at all."""
    from edge_ai_assets.delivery import durable

    if path.parent.resolve() == media.resolve():
        return
    durable.make_folder(media)
    with (
        durable.locked(media / ".lock"),
        durable.open_regular(path) as file,
        durable.replacing(media / path.name) as out,
    ):
        out.writelines(durable.chunks_of(file))


def _contents(path: Path) -> dict[str, Any]:
    """What people ask of a bundle; `blobs` that are in it and that are left out, as bytes."""
    from edge_ai_assets.delivery import bundle as bundles

    said = bundles.inspect(path)
    blobs = said["blobs"]
    return {
        "format": said["format"],
        "usecase": said["usecase"],
        "version": said["version"],
        "bytes": said["bytes"],
        "included": sum(blob["size"] for blob in blobs if blob["included"]),
        "left_out": sum(blob["size"] for blob in blobs if not blob["included"]),
        "acknowledges": [ack["site"] for ack in said.get("acks", [])],
    }


def _size(split: str | None) -> int | None:
    from edge_ai_assets.delivery import split as parts

    try:
        return None if split is None else parts.bytes_of(split)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--split") from error


def _answer(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for name, value in found.items():
        shown = ", ".join(value) or "-" if isinstance(value, list) else value
        sys.stdout.write(f"{name:<12} {shown}\n")
