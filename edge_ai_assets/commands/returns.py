"""`edge-ai returns`: packages that are carried by hand, and how far each is on its way home.

Thin: what a command does is in `returns.road.media` and `stack_hub.connecting`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table

from edge_ai_assets.commands import here
from edge_ai_assets.commands.show import console

FAILED = 1

returns = typer.Typer(
    no_args_is_help=True, help="Return packages: carry them by hand, see how far each is on its way home."
)
say = Console(stderr=True)

Site = Annotated[str, typer.Option("--site", help="The site's name.")]
Last = Annotated[int, typer.Option(min=1, help="Show so many packages, the newest.")]
Json = Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")]


@returns.command("export")
def export_(
    site: Site,
    to: Annotated[
        Path,
        typer.Option("--to", exists=True, file_okay=False, help="A folder of the medium, which is there."),
    ],
    only_new: Annotated[
        bool, typer.Option("--only-new", help="Leave out what was exported before, to whatever medium.")
    ] = False,
    megabytes: Annotated[
        float | None, typer.Option(min=0, help="Most that is copied; what fits when absent.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Names the medium in the ledger; the folder when absent.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a site's packages to a medium, oldest first.

    All of which no acknowledgement came, since media get lost. Again, or interrupted, the same command copies
    what is missing. Exit code 1 if packages were left because they do not fit, or because their file in the
    spool is lost or damaged.
    """
    from edge_ai_assets.returns.egress.ledger import Ledger
    from edge_ai_assets.returns.outbox.outbox import Outbox
    from edge_ai_assets.returns.road import media

    at = here.site(site)
    with Outbox(at.outbox, create=False) as outbox, _progress("packages copied") as progress:
        done = media.export(
            outbox,
            at.spool,
            Ledger(at.ledger),
            to,
            only_new=only_new,
            limit_bytes=None if megabytes is None else round(megabytes * 1e6),
            label=label,
            progress=progress,
        )
    if as_json:
        _answer({"site": site, **msgspec.to_builtins(done)})
    else:
        _say(f"{done.packages} packages, {done.bytes} bytes copied to {to}; {done.there} were there already")
    if done.left:
        _say(f"{done.left} packages did not fit: take another medium and add --only-new")
    for reason in done.lost.values():
        _say(reason)
    if done.left or done.lost:
        sys.exit(FAILED)


@returns.command("import")
def import_(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="A folder of the medium.")
    ],
    as_json: Json = False,
) -> None:
    """Copy packages from a medium to Azure's inbox, which checks them.

    Again, or interrupted, the same command copies what is missing. Exit code 1 if a file that looks like a
    package was not taken.
    """
    from edge_ai_assets.returns.package.packages import NAME
    from edge_ai_assets.returns.road import media
    from edge_ai_assets.stack_hub import provision

    home, usecase = here.azure()
    with _progress("packages copied") as progress:
        done = media.import_(folder, home.uplink, {each.name for each in usecase.sites}, progress=progress)
    senders = sorted({match["site"] for name in done.names if (match := NAME.fullmatch(name))})
    strangers = [site for site in senders if not provision.known_key(home, site).exists()]
    if as_json:
        _answer({**msgspec.to_builtins(done), "not_enrolled": strangers})
    else:
        _say(
            f"{done.packages} packages, {done.bytes} bytes taken from {folder}; "
            f"{done.there} were here already, {done.ignored} other files ignored"
        )
        for name, reason in done.rejected.items():
            _say(f"{name} was not taken: {reason}")
        for site in strangers:
            _say(
                f"no key of site {site!r} is known, so the inbox will refuse its packages: take up its "
                f"enrolment with `edge-ai site enrol {site}.enrolment.json`; once refused, import them again"
            )
    if done.rejected:
        sys.exit(FAILED)


@returns.command("list")
def list_(site: Site, last: Last = 100, as_json: Json = False) -> None:
    """List a site's packages, and how far each is on its way home.

    waiting, exported (put on a medium), uploaded (the link took it), acknowledged (Azure merged it). Packages
    that came home and were pruned are not listed.
    """
    from edge_ai_assets.explaining import aboard
    from edge_ai_assets.returns.outbox.outbox import Outbox

    at = here.site(site)
    totals: Counter[str] = Counter(dict.fromkeys(("waiting", "exported", "uploaded", "acknowledged"), 0))
    shown: list[dict[str, Any]] = []
    with Outbox(at.outbox, create=False) as outbox:
        after = 0
        while some := outbox.packages(after):
            rows = [aboard.described(row) for row in some]
            totals.update(row["state"] for row in rows)
            shown = [*shown, *rows][-last:]
            after = some[-1].number
    if as_json:
        _answer({"site": site, "totals": dict(totals), "packages": shown})
        return
    table = Table(Column("package", no_wrap=True), "state", "bytes", "scores", "feedback", "sealed")
    for row in shown:
        table.add_row(*(str(row[part]) for part in ("name", "state", "bytes", "rows", "feedback", "sealed")))
    console().print(table)
    _say(", ".join(f"{number} {state}" for state, number in totals.items()))


@returns.command()
def acknowledge(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="An acknowledgement, or a release bundle with some."
        ),
    ],
    site: Site,
    as_json: Json = False,
) -> None:
    """Tell a site which of its packages Azure merged, from a file that was carried there.

    It is believed only if it is signed by the release key that the site trusts. Exit code 1 if it is not, or
    is not about this site.
    """
    from edge_ai_assets.delivery import durable
    from edge_ai_assets.returns import clock
    from edge_ai_assets.returns.road import acks
    from edge_ai_assets.stack_hub import connecting

    at = here.site(site)
    if file.suffix == ".bundle":
        done = connecting.apply_acks_of(at, file, clock.now())
    else:
        done = connecting.apply_ack(at, durable.read_bounded(file, acks.MAX_BYTES), clock.now())
    refused = f"{file} holds no acknowledgement for site {site}" if done is None else done.refused
    found = {
        "site": site,
        "through": done.number if done else None,
        "packages": done.packages if done else 0,
        "refused": refused,
    }
    if as_json:
        _answer(found)
    else:
        _say(refused or f"packages 1 to {found['through']} are home; {found['packages']} of them is news")
    if refused:
        sys.exit(FAILED)


@returns.command()
def dead(
    site: Site,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try all of it again, when its cause was put right.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List what a site put aside: scores that cannot be read, letters that its function gave up, and why.

    None of it is deleted. Exit code 1 if something stays there after another try.
    """
    from edge_ai_assets.settings import Settings
    from edge_ai_assets.stack_hub import dead as letters
    from edge_ai_assets.stack_hub.far_ends import FarEnds
    from edge_ai_assets.usecase import Road

    at = here.site(site)
    queued = here.home_and_usecase()[1].at(site).road is Road.QUEUE
    far = FarEnds(Settings.load().stack_hub)
    again = letters.retry(at, queued, far) if retry else None
    found = letters.look(at, queued, far)
    if as_json:
        done = {"retried": msgspec.to_builtins(again)} if again else {}
        _answer({"site": site, **msgspec.to_builtins(found), **done})
    else:
        table = Table("put aside", "how many", "why")
        for reason, number in found.scores.items():
            table.add_row("scores", f"{number:,}", reason)
        for reason in found.reasons:
            table.add_row("letter", "1", reason)
        if found.scores or found.reasons:
            console().print(table)
        if again:
            _say(f"{again.scores:,} scores and {again.letters:,} letters are tried again")
            for reason in again.left:
                _say(f"left: {reason}")
        _say(f"{sum(found.scores.values()):,} scores and {found.letters:,} letters are put aside")
    if again and (found.scores or found.letters):
        sys.exit(FAILED)


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=say, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda size: progress.advance(task, size)


def _say(text: str) -> None:
    say.print(text, highlight=False, markup=False, soft_wrap=True)


def _answer(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
