"""The command line of `edge-ai serve`: its options, and what is refused before anything is opened.

What is offered to whom, and what guards it, is checked by `options`, also where a file says it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from edge_ai_assets.scoring.model import CONTRACT, MODEL
from edge_ai_assets.scoring.options import BOUNDS

PORT = 8080
SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""As in a use case: it stands in ids, in CSV and in labels of metrics."""
DIGEST = re.compile(r"[!-~]{1,200}")
"""It stands in a header of answers."""
MAX_VERSION = 999_999_999


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, instead of all that could be said before it."""
        self.exit(2, f"{self.prog}: {message} (--help says more)\n")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says; ends the process with 2 and a line on standard error if it cannot be."""
    made = parser()
    options = made.parse_args(arguments)
    try:
        also = [(Path(path), _digest(digest), _version(number)) for path, digest, number in options.also]
    except argparse.ArgumentTypeError as problem:
        made.error(f"argument --also: {problem}")
    options.also = also
    for name in (MODEL, CONTRACT):
        if not (options.release / name).is_file():
            made.error(f"argument --release: there is no {options.release / name}")
    if not options.outbox.absolute().parent.is_dir():
        made.error(f"argument --outbox: there is no folder {options.outbox.absolute().parent}")
    return options


def parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="edge-ai serve",
        description="Scores over HTTP, each on disk before it is answered, and a page for people.",
        epilog="On another address than loopback it starts only with a certificate and tokens "
        "(`edge-ai tokens add`), or if a proxy before it sees to both.",
        fromfile_prefix_chars="@",  # @FILE: an option a line, as a container gets them from what is mounted
    )
    what = parser.add_argument_group("what is served")
    what.add_argument(
        "--release", required=True, type=Path, metavar="FOLDER", help=f"folder with {MODEL} and {CONTRACT}"
    )
    what.add_argument(
        "--release-id", type=_digest, metavar="DIGEST", help="the release's digest; default: of its two files"
    )
    what.add_argument(
        "--version", type=_version, default=1, help="the release's number; default: %(default)s"
    )
    what.add_argument(
        "--also",
        nargs=3,
        action="append",
        default=[],
        metavar=("FOLDER", "DIGEST", "VERSION"),
        help="another release, which the Open Inference Protocol serves by its number",
    )
    what.add_argument(
        "--site", type=_site, default="local", help="its name is in the ids of scores; default: %(default)s"
    )
    what.add_argument(
        "--outbox",
        type=Path,
        default=Path("outbox.db"),
        metavar="FILE",
        help="the site's outbox; made if there is none; default: %(default)s",
    )
    what.add_argument(
        "--quota",
        type=_whole(1, 2**63 - 1),
        metavar="BYTES",
        help="what the outbox may hold before scoring is refused",
    )
    where = parser.add_argument_group("where and to whom")
    where.add_argument("--host", default="127.0.0.1", help="address to serve on; default: %(default)s")
    where.add_argument(
        "--port", type=_whole(*BOUNDS["port"]), default=PORT, help="0 for any free one; default: %(default)s"
    )
    where.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM; renewed files are taken up")
    where.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM, not encrypted")
    where.add_argument("--tokens", type=Path, metavar="FILE", help="made by `edge-ai tokens add`")
    where.add_argument(
        "--behind-proxy", action="store_true", help="a proxy before the service does TLS and asks who comes"
    )
    where.add_argument(
        "--workers", type=_whole(*BOUNDS["workers"]), default=1, help="processes; default: %(default)s"
    )
    by_supervisor = parser.add_argument_group("for a supervisor")
    by_supervisor.add_argument("--fd", type=int, help="bound loopback socket, instead of an address")
    by_supervisor.add_argument("--exposed-fd", type=int, help="a second one, for which TLS and tokens hold")
    by_supervisor.add_argument("--ready-fd", type=int, help="gets a line when requests are accepted")
    by_supervisor.add_argument(
        "--alive-fd", type=int, help="read end of a pipe; serving ends when it is closed"
    )
    return parser


def _whole(low: int, high: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        if re.fullmatch("-?[0-9]{1,19}", text) and low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, it is {text[:60]!r}")

    return check


_version = _whole(0, MAX_VERSION)


def _site(text: str) -> str:
    if not SITE.fullmatch(text):
        kind = "must be 1 to 64 letters, digits, '.', '_' and '-', the first a letter or a digit"
        raise argparse.ArgumentTypeError(f"{kind}, it is {text[:80]!r}")
    return text


def _digest(text: str) -> str:
    if not DIGEST.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"a digest is 1 to 200 visible ASCII characters without a space, not {text[:80]!r}"
        )
    return text
