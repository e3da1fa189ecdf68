"""`edge-ai`: the command line of the project. Thin: what a command does lives in the module it names.

Exit codes: 0 fine, 1 a check failed, 2 wrong usage, 3 a service is out of reach.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge_ai_assets import usecase as usecases
from edge_ai_assets.commands import here
from edge_ai_assets.commands.bundle import bundle
from edge_ai_assets.commands.doctor import doctor
from edge_ai_assets.commands.keys import keys
from edge_ai_assets.commands.ledger import ledger
from edge_ai_assets.commands.link import links
from edge_ai_assets.commands.release import release
from edge_ai_assets.commands.returns import returns
from edge_ai_assets.commands.rollout import rollout
from edge_ai_assets.commands.runtime import kubernetes, vm
from edge_ai_assets.commands.site import sites
from edge_ai_assets.commands.storage import storage
from edge_ai_assets.commands.tokens import tokens
from edge_ai_assets.commands.withdraw import withdraw
from edge_ai_assets.settings import Settings
from edge_ai_assets.usecase import UseCase, UseCaseError

if TYPE_CHECKING:
    from edge_ai_assets.demo.outcome import Outcome

FAILED, USAGE, UNREACHABLE = 1, 2, 3

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Train on Azure, score where the internet is not, and bring home what may leave.\n\n"
    "Everything local lies in one folder: `EDGE_AI_HOME`, by default `.edge-ai/`.",
)
cases = typer.Typer(
    no_args_is_help=True, help="Use cases: draft one from your own readings, check one you edited."
)
app.add_typer(links, name="link")
app.add_typer(cases, name="usecase")
app.add_typer(tokens, name="tokens")
app.add_typer(sites, name="site")
app.add_typer(returns, name="returns")
app.add_typer(ledger, name="ledger")
app.add_typer(vm, name="vm")
app.add_typer(keys, name="keys")
app.add_typer(bundle, name="bundle")
release.command()(withdraw)
app.add_typer(release, name="release")
app.add_typer(rollout, name="rollout")
app.add_typer(storage, name="storage")
app.add_typer(kubernetes, name="kubernetes")

say = Console(stderr=True)
"""Progress and errors. Answers go to standard output, so that `--json` can be piped."""
REASONS = 5
"""Most reasons that are told why rows of a file were rejected."""

Json = Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")]


def main() -> None:
    """Run a command; a known error is one line on standard error and an exit code."""
    try:
        app()
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        fail(code, error)


def exit_code(error: Exception) -> int | None:
    """The exit code of an error that a user can do something about; None for a defect of ours.

    What the system refuses is the user's, whatever command met it: a medium that cannot be written, a full
    disk.
    """
    from edge_ai_assets.delivery.errors import DeliveryError
    from edge_ai_assets.demo.world import DemoError
    from edge_ai_assets.enrolment import EnrolmentError
    from edge_ai_assets.explain import UnknownInsight
    from edge_ai_assets.readings.raw import ReadingsError
    from edge_ai_assets.resources.identity.secret import SecretError
    from edge_ai_assets.resources.ingestion.blob_landing import LandingError
    from edge_ai_assets.resources.mirror.blob_mirror import MirrorError
    from edge_ai_assets.resources.storage.noted import NotesError
    from edge_ai_assets.returns.egress.ledger import LedgerError
    from edge_ai_assets.returns.hub.queue import QueueError
    from edge_ai_assets.returns.outbox.outbox import OutboxError
    from edge_ai_assets.returns.road.link import LinkDown
    from edge_ai_assets.returns.road.media import MediaError
    from edge_ai_assets.returns.road.roads import UplinkError
    from edge_ai_assets.runtimes.choice import ChoiceError
    from edge_ai_assets.runtimes.cluster import ClusterError
    from edge_ai_assets.scoring.client import ServiceError
    from edge_ai_assets.scoring.tokens import TokensError
    from edge_ai_assets.settings_errors import SettingsError
    from edge_ai_assets.stack_hub.rollout.control import RolloutError
    from edge_ai_assets.stack_hub.scoring import NotServing

    if isinstance(error, UseCaseError | ReadingsError | UnknownInsight | TokensError | ChoiceError):
        return USAGE
    if isinstance(error, EnrolmentError | here.NotHere | RolloutError | SettingsError | SecretError):
        return USAGE
    if isinstance(error, NotServing | ServiceError | ClusterError | LinkDown):
        return UNREACHABLE
    if isinstance(error, DemoError | DeliveryError | OutboxError | LedgerError | MediaError):
        return FAILED
    if isinstance(error, UplinkError | QueueError | MirrorError | LandingError | NotesError):
        return FAILED
    return FAILED if isinstance(error, OSError) else None


def fail(code: int, error: object) -> NoReturn:
    """Say what is wrong and end with this exit code."""
    for line in str(error).splitlines():
        # Escaped: to rich, the unit in "Pressure [bar]" is a style.
        say.print(f"[red]edge-ai:[/] {escape(line)}", highlight=False, soft_wrap=True)
    sys.exit(code)


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(exists=True, help="Your own readings: a CSV or Parquet file, or a folder of them."),
    ] = None,
    usecase: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Use case for your readings; found or drafted when absent."
        ),
    ] = None,
    disconnected: Annotated[
        bool,
        typer.Option("--disconnected", help="The story of a ship: two homes that share only a medium."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Play the whole loop on this machine, in about two minutes.

    Train, release, deploy ring by ring, score, lose a link and get it back, bring insights home, see drift,
    retrain. Ends with a table, and with exit code 1 if a promise of the design was broken.

    With `--disconnected` there are two Dagster instances, Azure's and a ship's, and what goes between them is
    carried: a bundle out, return packages home, the acknowledgement with the next bundle.
    """
    from edge_ai_assets.demo import story, voyage

    home = Settings.load().folders()
    if disconnected:
        if data or usecase:
            fail(USAGE, "--disconnected plays the simulated plant: it takes neither --data nor --usecase")
        _end(voyage.run(home, say), as_json)
        return
    chosen = (
        _for_data(data, usecase) if data else usecases.load(usecase or usecases.BUNDLED / "pump-station.yaml")
    )
    usecases.check_egress(chosen)
    _end(story.run(home, chosen, data, say), as_json)


def _end(outcome: Outcome, as_json: bool) -> None:
    """Show what a demo showed; exit code 1 if it broke a promise."""
    from edge_ai_assets.commands import show

    if as_json:
        _answer(show.outcome_json(outcome))
    else:
        show.outcome(outcome, show.console())
    if not outcome.kept:
        sys.exit(FAILED)


@app.command()
def ui(
    host: Annotated[
        str, typer.Option(help="Address to listen on. The UI has no login: keep it on loopback.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 3000,
) -> None:
    """Open Dagster's web UI on this home, with the daemon: sensors and the schedule go on working."""
    from edge_ai_assets import local

    say.print(
        f"Dagster's web UI: http://{host}:{port}/asset-groups   (Ctrl-C ends it)",
        highlight=False,
        markup=False,
    )
    sys.exit(local.web_ui(Settings.load().folders(), host, port))


@app.command("status")
def status_(as_json: Json = False) -> None:
    """What became of every score, at each site and on Azure.

    At each site scored = uploaded + withheld + quarantined + expired + pending; exit code 1 if that does not
    hold.
    """
    from edge_ai_assets.commands import show
    from edge_ai_assets.status import conserved, status

    home, usecase = here.home_and_usecase()
    now = status(home, usecase)
    if as_json:
        _answer(now)
    else:
        show.status(now, show.console())
    if not all(conserved(site) for site in now["sites"].values()) or now["global"]["duplicates"]:
        sys.exit(FAILED)


@app.command()
def score(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="Readings as the use case describes them.")
    ],
    site: Annotated[str, typer.Option(help="The site whose service scores them.")],
    as_json: Json = False,
) -> None:
    """Score a file of readings at a site, through its scoring service.

    Each score is durable in the site's outbox. Interrupted, the same command goes on where it stopped; a
    file that was scored is not scored again.
    """
    from rich.progress import Progress

    from edge_ai_assets.commands import show
    from edge_ai_assets.readings.raw import ReadingsError
    from edge_ai_assets.scoring import batch
    from edge_ai_assets.scoring.client import Client
    from edge_ai_assets.stack_hub import scoring

    at = here.site(site)
    service = scoring.running(at)
    copy = batch.hidden_copy(file, at)
    try:
        with Progress(console=say, transient=True) as progress, Client(service.url or "") as client:
            task = progress.add_task("rows scored", total=None)
            done = batch.score_file(
                copy,
                usecase=scoring.deployed_usecase(at),
                site=at,
                client=client,
                progress=lambda rows: progress.advance(task, rows),
            )
    except ReadingsError as error:
        copy.unlink()  # it will never be scored; after any other error the same command goes on with it
        raise ReadingsError(str(error).replace(str(copy), str(file))) from error
    found = {
        "site": site,
        "release": service.version,
        "scored": done.scored,
        "anomalies": done.anomalies,
        "outside_trained_range": done.outside,
        "rejected": done.rejected,
        "baseline": done.baseline,
    }
    if as_json:
        _answer(found)
    else:
        table = Table(*found)
        table.add_row(*(str(value) for value in found.values()))
        show.console().print(table)
        for reason, rows in batch.why_rejected(copy, at).most_common(REASONS) if done.rejected else ():
            say.print(f"{rows} rows rejected: {reason}", highlight=False, markup=False, soft_wrap=True)
        if not (done.scored or done.rejected or done.baseline):
            say.print(f"{file}: scored before, nothing of it was scored again", highlight=False, markup=False)


@app.command(
    add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def serve(context: typer.Context) -> None:
    """Serve a release over HTTP, with a page for people."""
    from edge_ai_assets.scoring.serve import main as serve_

    sys.exit(serve_(context.args))


@cases.command("init")
def usecase_init(
    file: Annotated[
        Path, typer.Argument(exists=True, help="Readings: any CSV or Parquet file, or a folder of them.")
    ],
    out: Annotated[Path | None, typer.Option(help="Where to write it; standard output when absent.")] = None,
) -> None:
    """Draft a use case from a file of readings.

    Columns, kinds, ranges, time, label and sites are guessed; comments in the draft say what to look at.
    Then: `edge-ai usecase check FILE` and `edge-ai demo --data READINGS --usecase FILE`.
    """
    from edge_ai_assets.readings.draft import draft

    text = draft(file)
    if out is None:
        sys.stdout.write(text)
    elif out.exists():
        fail(USAGE, f"{out} exists and is not overwritten")
    else:
        out.write_text(text, "utf-8")
        say.print(
            f"{out}: look at the lines marked CHECK, then: edge-ai usecase check {out}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )


@cases.command("check")
def usecase_check(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A use case file.")],
    as_json: Json = False,
) -> None:
    """Check a use case; every problem is a line with file, line, field, value and bound."""
    checked = usecases.load(file)
    usecases.check_egress(checked, str(file))
    found = {
        "name": checked.name,
        "digest": checked.digest,
        "features": len(checked.features),
        "sites": len(checked.sites),
    }
    if as_json:
        _answer(found)
    else:
        sys.stdout.write(f"{file}: fine: {found['features']} features, {found['sites']} sites\n")


@app.command()
def explain(
    insight: Annotated[str, typer.Argument(metavar="INSIGHT_ID", help="SITE/SEQUENCE, such as bergen/812.")],
    as_json: Json = False,
) -> None:
    """Walk from an insight back to its package, score, release, model, training data and runs.

    On Azure and on the site: each says what it has, and the command that says the rest on the other side.
    """
    from edge_ai_assets.commands import show
    from edge_ai_assets.explain import explain as walk

    home, _ = here.home_and_usecase()
    found = walk(home, insight)
    if as_json:
        _answer(found)
    else:
        show.explanation(found, show.console())


app.command()(doctor)


@app.command()
def reset() -> None:
    """Stop the services of a demo and remove its home. A home that no demo made is left alone."""
    from edge_ai_assets.demo import story

    home = Settings.load().folders()
    story.clear(home)
    say.print(f"{home.root} is gone", highlight=False, markup=False)


def _for_data(data: Path, usecase: Path | None) -> UseCase:
    """The use case for one's own readings: the one given, a bundled one that fits, or a draft."""
    from edge_ai_assets.readings.choose import choose

    if usecase:
        return usecases.load(usecase)
    chosen, drafted = choose(data)
    if drafted is not None:
        path = Path(f"{chosen.name}.yaml")
        if not path.exists():
            path.write_text(drafted, "utf-8")
        say.print(
            f"no use case was given: one was drafted into {path}; edit it and run: "
            f"edge-ai demo --data {data} --usecase {path}",
            highlight=False,
            markup=False,
        )
    return chosen


def _answer(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
