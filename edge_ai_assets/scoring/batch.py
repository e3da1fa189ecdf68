"""Files of readings through the scoring service: the same contract, the same outbox as an end user's request.

Runs in the site's Dagster or command line, not in the service: pandas is welcome here. Interrupted, a file
is scored again from its start, and every slice that was already answered is answered from the outbox by its
idempotency key. For that its rows must come out the same again, and they depend on the files before it and on
the use case: so a file that was begun is finished before any other, by the use case it was begun with and cut
as it was then. `slices` makes the requests.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.home import SiteHome
from edge_ai_assets.scoring.slices import Chunk, Cut, chunks
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    from edge_ai_assets.scoring.client import Client, ScoreAnswer

T = TypeVar("T")
CUT = Cut(first=12_000, slice=4_000)
"""Of files that are begun now. The first chunk is small, because the service waits for it. A request is long:
what one costs here besides its rows is taken from cutting the next chunk. It is no longer, because who asks
for one row meanwhile waits for its commit, twice as long beside requests of twice as many rows."""
IN_FLIGHT = 8
"""Requests on their way at once: two or three keep the service at work, the others make up for waits here."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileScored:
    """What scoring one file did; every row of it is in exactly one of the first three."""

    scored: int
    rejected: int
    baseline: int
    """Rows that only show a run's normal state and are not scored."""
    anomalies: int
    outside: int


class Begun(msgspec.Struct, frozen=True):
    """Note of the file that is being scored, for whoever scores next."""

    file: str
    digest: str
    usecase: dict[str, Any]
    cut: Cut = Cut()


def waiting(site: SiteHome) -> list[Path]:
    """Files that wait to be scored, by name. Hidden ones are still being written."""
    if not site.readings.is_dir():
        return []
    return sorted(
        path for path in site.readings.iterdir() if path.is_file() and not path.name.startswith(".")
    )


def hidden_copy(path: Path, site: SiteHome) -> Path:
    """Copy a file to where it can be scored from, out of the sensors' sight; the original stays.

    The copy is named by its content, too: other content never takes its place.
    """
    site.readings.mkdir(parents=True, exist_ok=True)
    partial = site.readings / f".{path.name}.{os.getpid()}.partial"
    shutil.copyfile(path, partial)
    return partial.replace(site.readings / f".{_digest(partial)}-{path.name}")


def why_rejected(copy: Path, site: SiteHome) -> Counter[str]:
    """How many rows were rejected for which reason, of a file that `hidden_copy` had made."""
    import pandas as pd

    digest = copy.name.removeprefix(".").partition("-")[0]
    found: Counter[str] = Counter()
    for path in site.rejected.glob(f"{digest}-*.parquet"):
        found.update(pd.read_parquet(path, columns=["_reason"])["_reason"])
    return found


def interrupted(site: SiteHome) -> Path | None:
    """The file that was begun and not finished, if it is still there."""
    begun = _begun(site)
    return site.readings / begun.file if begun else None


def refused(error: Exception) -> bool:
    """Whether scoring failed by the file itself, so that trying again changes nothing."""
    from edge_ai_assets.readings.raw import ReadingsError
    from edge_ai_assets.scoring.client import ServiceError

    if isinstance(error, ServiceError):
        return error.status is not None and 400 <= error.status < 500 and error.status not in (408, 429)
    return isinstance(error, ReadingsError)


def set_aside(path: Path, error: Exception) -> Path:
    """Move a file to `unreadable/` beside it; the file with the reason, which stands beside it there."""
    folder = path.parent / "unreadable"
    folder.mkdir(exist_ok=True)
    name = path.name.removeprefix(".")
    target, copies = folder / name, 0
    while target.exists():
        copies += 1
        target = folder / f"{name}.{copies}"
    reason = target.with_name(f"{target.name}.reason.txt")
    reason.write_text(f"{error}\n", "utf-8")
    path.replace(target)
    return reason


def score_file(
    path: Path,
    *,
    usecase: UseCase,
    site: SiteHome,
    client: Client,
    progress: Callable[[int], None] = lambda rows: None,
) -> FileScored:
    """Score one waiting file and move it to `scored/`; before it, the one that was interrupted.

    Returns:
        What was done with `path`, without the interrupted one. All 0 if somebody else scored it meanwhile.

    Raises:
        ReadingsError: the file is not readable, columns are missing, or it was begun by a use case whose
            inputs the service no longer takes.
        ServiceError: the service is away or refuses, see `refused`; the file stays and is taken up again
            where it stopped.
    """
    # Runs that go on over files must be taken up in order: one file at a time, whoever scores it.
    with durable.locked(site.root / ".scoring.lock"):
        left = interrupted(site)
        if left and left != path:
            try:
                _score_file(left, usecase, site, client, progress)
            except Exception as error:
                if not refused(error):
                    raise
                log.error("site %s: an interrupted file is set aside: %s", site.name, set_aside(left, error))
        if not path.exists():
            return FileScored(0, 0, 0, 0, 0)
        return _score_file(path, usecase, site, client, progress)


def _score_file(
    path: Path, usecase: UseCase, site: SiteHome, client: Client, progress: Callable[[int], None]
) -> FileScored:
    from edge_ai_assets.scoring.lookback import Lookback

    digest = _digest(path)
    kept = Lookback(site.lookback)
    if kept.file == digest or any(site.scored.glob(f"{digest}-*")):
        # Killed just before the move, or delivered twice: every row of it has been scored.
        _finish(path, site, digest)
        return FileScored(0, 0, 0, 0, 0)
    begun = _begin(path, digest, usecase, site)
    own = UseCase.model_validate(begun.usecase)
    made = chunks(path, own, site=site.name, digest=digest, cut=begun.cut, kept=kept)
    try:
        done = _send(_noted(made, site, digest), client, progress)
    except Exception as error:
        if own != usecase and refused(error):
            raise _outlived(path.name, digest, site, error) from error
        raise
    kept.write(digest)
    _finish(path, site, digest)
    return done


def _outlived(name: str, digest: str, site: SiteHome, error: Exception) -> Exception:
    """A release with other inputs came while the file was under way: it cannot be finished by this one."""
    from edge_ai_assets.readings.raw import ReadingsError
    from edge_ai_assets.returns.outbox.outbox import Outbox

    with Outbox(site.outbox) as outbox:
        scored = outbox.scored_under(f"{digest}/")
    return ReadingsError(
        f"{name} was begun under another use case, whose inputs the release that serves now does not take: "
        f"its first {scored:,} rows that can be scored are, the others are not. Score it again under a "
        f"release of that use case, or give the rows that are left as a file of their own. "
        f"The service said: {error}"
    )


def _noted(made: Iterator[Chunk], site: SiteHome, digest: str) -> Iterator[Chunk]:
    """The same, its rejected rows on disk."""
    for number, chunk in enumerate(made):
        if len(chunk.rejected):
            site.rejected.mkdir(parents=True, exist_ok=True)
            chunk.rejected.to_parquet(site.rejected / f"{digest}-{number:05}.parquet", index=False)
        yield chunk


def _send(made: Iterator[Chunk], client: Client, progress: Callable[[int], None]) -> FileScored:
    """Score chunks, each made while the one before it is scored."""
    total = [0, 0, 0, 0, 0]
    asked: deque[tuple[int, Future[ScoreAnswer]]] = deque()

    def count(rows: int, future: Future[ScoreAnswer]) -> None:
        answer = future.result()
        total[0] += rows
        total[3] += sum(answer.predicted)
        total[4] += sum(answer.outside)
        progress(rows)

    with ThreadPoolExecutor(IN_FLIGHT) as threads, closing(_ahead(made)) as coming:
        try:
            for chunk in coming:
                total[1] += len(chunk.rejected)
                total[2] += chunk.baseline
                for part in chunk.slices:
                    asked.append((part.rows, threads.submit(client.score_table, part.table, key=part.key)))
                    # As many again wait in line: no thread waits for this one to hand it the next.
                    while len(asked) == 2 * IN_FLIGHT or (asked and asked[0][1].done()):
                        count(*asked.popleft())
            while asked:
                count(*asked.popleft())
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return FileScored(*total)


def _ahead(batches: Iterator[T]) -> Generator[T]:
    """The same, each read while the one before it is scored: one more is in memory than without."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _begin(path: Path, digest: str, usecase: UseCase, site: SiteHome) -> Begun:
    """Note that the file is begun; the note of the first time it was, if it had been."""
    from edge_ai_assets.ml import features

    begun = _begun(site)
    if begun and begun.digest == digest:
        return begun
    cut = CUT.of(len(features.inputs(usecase)))
    begun = Begun(path.name, digest, usecase.model_dump(mode="json"), cut)
    with durable.replacing(site.scoring) as file:
        file.write(msgspec.json.encode(begun))
    return begun


def _begun(site: SiteHome) -> Begun | None:
    """The note of the file that was begun; None if it, or the file it was of, is not there."""
    try:
        begun = msgspec.json.decode(site.scoring.read_bytes(), type=Begun)
        return begun if _digest(site.readings / begun.file) == begun.digest else None
    except FileNotFoundError:
        return None


def _finish(path: Path, site: SiteHome, digest: str) -> None:
    _move(path, site.scored, digest)
    site.scoring.unlink(missing_ok=True)


def _move(path: Path, folder: Path, digest: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path.replace(folder / f"{digest}-{path.name.removeprefix(f'.{digest}-')}")
    durable.sync_folder(folder)  # before the note goes: a file that came back would be scored by no note


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
