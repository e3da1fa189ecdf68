"""Our scoring service against the model servers that people would pick, side by side under wrk.

One model (gradient boosting of 100 trees on 8 numbers) behind all of them, rows that vary, one worker each.
Ours has every score on disk before it answers, no peer writes anything. The servers run at the same time, and
wrk goes round them, so that a slow moment of the machine meets each alike; beside them runs what none can
beat: an empty answer over HTTP, onnxruntime alone on one thread, one fsync.

The peers are those that `python benchmarks/scoring/peers.py install [NAME…]` has installed. Before anything
is timed, each server's answers are compared with onnxruntime's; a run with a failed answer is an error; in
the end the outbox must hold every row that was answered.

Why: it is what end users wait for, and we claim that it is faster than what they have and forgets nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from measure import ROUNDS, scratch
from scoring import bodies, candidates, peers, release, report
from scoring.candidates import Candidate
from scoring.load import LoadError
from scoring.rounds import Asked, Cores, Pass
from scoring.server import ServerError, running

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.scoring.model import MODEL, Model

OURS = "ours"
SECONDS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    if not shutil.which("wrk"):
        return _fail("wrk makes the load and is not installed (on Debian and Ubuntu: apt install wrk)")
    if (busy := os.getloadavg()[0]) > 1:
        _say(f"the load average is {busy:.1f}: what else runs here will be seen in the figures")
    cores = _cores()
    with scratch() as folder:
        try:
            _compare(options, folder, cores)
        except (ServerError, LoadError) as error:
            return _fail(str(error))
    return 0


def _compare(options: argparse.Namespace, folder: Path, cores: Cores) -> None:
    served = folder / "release"
    release.build(served)
    rows = release.rows(bodies.BATCHES * bodies.BATCH, seed=3)
    np.save(folder / "rows.npy", rows)
    scores = Model(served).score(rows.astype(np.float32))
    with ExitStack() as stack:
        asked: list[Asked] = []
        for candidate in _candidates(options, folder, served):
            _say(f"starting {candidate.name}")
            given = bodies.write(candidate, rows, folder)
            home = folder / candidate.name.replace(" ", "-")
            server = stack.enter_context(running(candidate, given and given.first(), home, cores.servers))
            if given:
                bodies.check(server, given, scores)
            asked.append(Asked(server, given))
            if candidate.name == OURS:
                asked.append(Asked(server.elsewhere("ours, no work", "/health/live"), None))
        all_runs = Pass(asked, folder, options.seconds, cores, served / MODEL)
        _say("warming up")
        all_runs.warm_up()
        for number in range(options.rounds):
            _say(f"round {number + 1} of {options.rounds}")
            all_runs.round()
        figures, limits = all_runs.figures(), all_runs.limits()
    with Outbox(folder / f"{OURS}.db") as outbox:
        kept, answered = outbox.counts().scored, all_runs.rows_answered[OURS]
    if kept < answered:
        raise ServerError(f"{answered} rows were answered, the outbox holds {kept}")
    _say(f"the outbox holds all {answered:,} rows that were answered")
    found = report.targets(figures, limits, OURS)
    report.show(figures, limits, found, OURS)
    report.publish(figures, limits, found)


def _candidates(options: argparse.Namespace, folder: Path, served: Path) -> list[Candidate]:
    """Ours, other versions of ours, the empty answer, and the peers that are wanted and installed."""
    wanted = peers.names() if options.only is None else options.only
    missing = [name for name in wanted if not peers.installed(name)]
    if missing:
        install = f"python benchmarks/scoring/peers.py install {' '.join(missing)}"
        _say(f"not installed, so not compared: {', '.join(missing)} ({install})")
    there = set(wanted) - set(missing)
    return [
        candidates.ours(OURS, served, folder / f"{OURS}.db"),
        *(candidates.ours(name, served, folder / f"{name}.db", source) for name, source in options.also),
        candidates.empty(),
        *(candidate for candidate in candidates.known(served / MODEL) if candidate.needs in there),
    ]


def _cores() -> Cores:
    """Two for the servers and two others for wrk, so that the load takes nothing from what it measures."""
    here = sorted(os.sched_getaffinity(0))
    if len(here) < 4 or not shutil.which("taskset"):
        _say(f"{len(here)} cores, or no taskset: servers and wrk share them, so all figures are too low")
        return Cores("", "")
    return Cores(f"{here[0]},{here[1]}", f"{here[-2]},{here[-1]}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="medians are over so many (default %(default)s)"
    )
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each run (default %(default)s)")
    parser.add_argument("--only", nargs="*", metavar="NAME", choices=peers.names(), help="peers to run")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        type=_version,
        metavar="NAME=FOLDER",
        help="another version of edge_ai_assets, from a folder that holds the package",
    )
    return parser


def _version(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not (Path(folder) / "edge_ai_assets").is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: {folder!r} holds no edge_ai_assets")
    return name, Path(folder)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fail(text: str) -> int:
    _say(f"bench-scoring: {text}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
