"""The way home from end to end: what comes in, what drains, how fast a bad link carries it, and the memory.

- Appending: 1 and 1,000 rows a commit against plain SQLite, one insert a row and as many fsyncs, as in
  `bench_outbox`, which has more of it.
- Bytes: package files against gzipped JSON lines of the very same values, as in `bench_packages`.
- Draining: rows from blocks, their kind, sealed packages, over `FolderUplink` with its ledger, against what
  comes in: requests of one row each, durable, groups of 32 rows, and blocks of 1,000. A backlog of each of
  these is drained for itself, and what that takes of the CPU is told, since time depends on the disk.
- Holding up: how long requests of one row take while the outbox that they go to drains, and while not.
- Receiving what came, in few large packages and in many small ones.
- Memory of a process that opens an outbox with 10 MB and with EDGE_AI_BACKLOG_MB (1,000) to drain, and
  begins.
- A satellite: 600 ms round trip, 2 % of the packets lost each way, EDGE_AI_LINK_MBITS (10), real TCP between
  a network namespace and this machine (`returns.satellite`: it needs root and iproute2), with Azurite as the
  other side. Goodput is bytes of the packages by time, from the first connection to the last blob: by the
  bits of the link, and by those of them that can be packages' (`CARRIES`). A cut is made at random moments:
  what TCP then sent for the first time, compared with what it sends without a cut, was sent again.

Why: a ship that was away for months comes home over the worst of links, while it goes on scoring.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import bench_outbox
import bench_packages as site
import blocks
import msgspec
from measure import ROUNDS, scratch, side_by_side, tell
from returns import satellite

from edge_ai_assets.returns.egress.ledger import Ledger
from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.inbox import inbox
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.package.packing import pack
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.returns.road.uplink import FolderUplink, upload

HERE = Path(__file__).resolve().parent
BACKLOG_MB = int(os.environ.get("EDGE_AI_BACKLOG_MB", "1000"))
MBITS = float(os.environ.get("EDGE_AI_LINK_MBITS", "10"))
AT = 1_760_000_000_000_000
DRAINED = 20_000
"""Rows a round."""
BACKLOGS = {"single": (1, 400), "groups_of_32": (32, 200), "blocks_of_1000": (1_000, 100)}
"""Rows a commit, and commits a round of what comes in."""
SMALL = 500
"""Rows of a small package."""
KIBIBYTE, MEBIBYTE = 1 << 10, 1 << 20
WAYS = {
    "reno": ("reno", 24, 2 * MEBIBYTE),
    "bbr": ("bbr", 72, 2 * MEBIBYTE),
    "backlog_bbr": ("bbr", 192, 2 * MEBIBYTE),
    "one_package_bbr": ("bbr", 1, 48 * MEBIBYTE),
    "60_KiB_packages_bbr": ("bbr", 200, 60 * KIBIBYTE),
}
"""Congestion control, packages, bytes of each. Setting out and the last answers take some seconds, so what a
ship comes home with, hundreds of megabytes, is measured too."""
CUT = ("bbr", 12, 2 * MEBIBYTE)
CUTS, CUT_SECONDS = 3, 30
FULL_SECONDS = 6
"""Until the link is full, the start of Python included."""
CARRIES = 0.98 * 1448 / 1500
"""Of a link's bits: what is not lost, and no header of TCP and IP with their options."""


def main() -> None:
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    with scratch() as folder:
        appending(folder, figures, ratios)
        draining(folder, figures, ratios)
        holding_up(folder, figures, ratios)
        receiving(folder, figures)
        remembering(folder, figures, ratios)
    try:
        sending(figures, ratios)
    except satellite.Unavailable as error:
        sys.stderr.write(f"no satellite link: {error}\n")
    tell("returns", figures, ratios)


def appending(folder: Path, figures: dict[str, float], ratios: dict[str, float]) -> None:
    bare = bench_outbox.bare_table(folder)
    with Outbox(folder / "appended.db") as outbox:
        for rows, commits in ((1, 400), (1_000, 20)):
            seconds = side_by_side(
                {
                    "outbox": bench_outbox.repeated(commits, partial(bench_outbox.append, outbox, rows)),
                    "bare": bench_outbox.repeated(commits, partial(bench_outbox.insert, bare, rows)),
                }
            )
            for name, value in seconds.items():
                figures[f"append_{rows}_{name}_rows_per_second"] = rows * commits / value
            ratios[f"append_{rows}_to_bare"] = seconds["bare"] / seconds["outbox"]
    bare.close()


def draining(folder: Path, figures: dict[str, float], ratios: dict[str, float]) -> None:
    """In rounds beside what comes in; every score leaves. A backlog is drained beside what it came in as."""
    policy = Policy(site.USECASE, bytes(32))
    with ExitStack() as stack:
        fresh = stack.enter_context(Outbox(folder / "ingested.db"))
        bench_outbox.append(fresh, 1)
        cpu: defaultdict[str, float] = defaultdict(float)
        ways: dict[str, Callable[[], object]] = {}
        for name, (size, commits) in BACKLOGS.items():
            outbox = stack.enter_context(Outbox(folder / f"drained-{name}.db"))
            for scored in site.scores():
                outbox.append([msgspec.structs.replace(scored, blocks=list(blocks.cut(scored.blocks, size)))])
            ways[f"drain_{name}"] = partial(drain, folder / name, outbox, policy, cpu, name)
            ways[f"ingest_{name}"] = bench_outbox.repeated(commits, partial(bench_outbox.append, fresh, size))
        seconds = side_by_side(ways)
        for name, (size, commits) in BACKLOGS.items():
            drained, ingested = DRAINED / seconds[f"drain_{name}"], size * commits / seconds[f"ingest_{name}"]
            figures[f"drain_{name}_rows_per_second"] = drained
            figures[f"ingest_{name}_rows_per_second"] = ingested
            figures[f"drain_{name}_cpu_us_per_row"] = cpu[name] / (ROUNDS * DRAINED) * 1e6
            ratios[f"drain_to_ingest_{name}"] = drained / ingested
        sealed = sorted((folder / name / "uplink" / site.SITE).glob("*.zip"))
        values = list(site.sent_values(outbox, policy))
    site.write_lines(values, folder / "plain.gz")
    sizes = sum(path.stat().st_size for path in sealed), (folder / "plain.gz").stat().st_size
    for name, size in zip(("package", "jsonl_gz"), sizes, strict=True):
        figures[f"{name}_bytes_per_million"] = size * 1_000_000 // len(values)
    ratios["package_to_jsonl_gz_bytes"] = sizes[0] / sizes[1]


def drain(folder: Path, outbox: Outbox, policy: Policy, cpu: defaultdict[str, float], name: str) -> None:
    """What waits longest, all the way to the folder that stands for Azure; adds the seconds of the CPU."""
    spool, start = folder / "spool", time.process_time()
    road, ledger = FolderUplink(folder / "uplink", site.SITE, Link(folder)), Ledger(folder / "ledger.jsonl")
    folder.mkdir(exist_ok=True)
    insights.derive(outbox, limit=DRAINED)
    pack(outbox, site.SITE, policy, site.CONTRACTS, site.KEY, spool, at=AT, limit=DRAINED)
    assert upload(outbox, spool, road, ledger).rows == DRAINED
    cpu[name] += time.process_time() - start


def holding_up(folder: Path, figures: dict[str, float], ratios: dict[str, float]) -> None:
    """In turns: beside a drain, and as long beside nothing."""
    policy, ledger = Policy(site.USECASE, bytes(32)), Ledger(folder / "beside.jsonl")
    road, spool = FolderUplink(folder / "beside", site.SITE, Link(folder)), folder / "beside-spool"
    made = list(site.scores())
    waits: defaultdict[str, list[float]] = defaultdict(list)
    with Outbox(folder / "beside.db") as outbox:
        for _ in range(ROUNDS):
            outbox.append(made)
            with beside(folder / "beside.db", waits["drain"]):
                start = time.perf_counter()
                while outbox.counts().pending > DRAINED:
                    insights.derive(outbox, limit=DRAINED)
                    pack(outbox, site.SITE, policy, site.CONTRACTS, site.KEY, spool, at=AT, limit=DRAINED)
                    upload(outbox, spool, road, ledger)
                took = time.perf_counter() - start
            with beside(folder / "beside.db", waits["nothing"]):
                time.sleep(took)
    for name, seconds in waits.items():
        figures[f"append_p99_beside_{name}_ms"] = 1_000 * statistics.median(seconds)
    ratios["append_p99_beside_drain_to_nothing"] = statistics.median(waits["drain"]) / statistics.median(
        waits["nothing"]
    )


@contextmanager
def beside(path: Path, waits: list[float]) -> Iterator[None]:
    """Requests of one row, from another process, while it is open; adds the 99th percentile of seconds."""
    command = [sys.executable, "-W", "ignore", str(HERE / "returns/appender.py"), str(path)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield
        told, _ = process.communicate()
    waits.append(json.loads(told)["p99"])


def receiving(folder: Path, figures: dict[str, float]) -> None:
    """Large packages, of the draining, and many small ones."""
    policy = Policy(site.USECASE, bytes(32))
    small, rows = folder / "small" / site.SITE, 40 * SMALL
    with Outbox(folder / "small.db") as outbox:
        for scored in site.scores():
            if outbox.counts().scored < rows:
                outbox.append([scored])
        insights.derive(outbox, limit=rows)
        for _ in range(40):
            pack(outbox, site.SITE, policy, site.CONTRACTS, site.KEY, small, at=AT, limit=SMALL)
    tables = (folder / f"tables-{number}" for number in count())

    def receive(uplink: Path) -> None:
        into = next(tables)
        into.mkdir()
        done = inbox.receive(uplink, into, {site.SITE: [site.KEY.public_key()]}, into / "refused")
        assert done.packages and not done.refused

    seconds = side_by_side(
        {"large": partial(receive, folder / "blocks_of_1000/uplink"), "small": partial(receive, small.parent)}
    )
    packages = len(list((folder / "blocks_of_1000/uplink" / site.SITE).glob("*.zip")))
    figures["receive_large_rows_per_second"] = packages * DRAINED / seconds["large"]
    figures["receive_small_rows_per_second"] = rows / seconds["small"]
    figures["receive_small_packages_per_second"] = 40 / seconds["small"]


def remembering(folder: Path, figures: dict[str, float], ratios: dict[str, float]) -> None:
    found = {}
    for megabytes in (10, BACKLOG_MB):
        home = folder / f"{megabytes}"
        (home / "spool").mkdir(parents=True)
        with Outbox(home / "outbox.db") as outbox:
            made = list(site.scores())
            while outbox.size() < megabytes * 1_000_000:
                outbox.append(made[: 1 + megabytes // 10])
                insights.derive(outbox, limit=10**9)
            outbox.append(made[:2])
        command = [sys.executable, "-W", "ignore", str(HERE / "returns/backlog.py"), str(home)]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        found[megabytes] = json.loads(done.stdout)
        shutil.rmtree(home)
        for step in ("started", "drained"):
            figures[f"memory_{step}_{megabytes}_MB_backlog_MB"] = found[megabytes][step]
    for step in ("started", "drained"):
        ratios[f"memory_{step}_{BACKLOG_MB}_to_10"] = found[BACKLOG_MB][step] / found[10][step]


def sending(figures: dict[str, float], ratios: dict[str, float]) -> None:
    sky = satellite.Sky(bits_per_second=MBITS * 1e6)
    with satellite.satellite(sky) as meter, shore() as (endpoint, key):

        def sent(congestion: str, packages: int, size: int) -> tuple[float, int]:
            """Seconds, and bytes that TCP sent for the first time."""
            script, before = HERE / "returns/sender.py", meter.first
            numbers = [str(number) for number in (packages, size)]
            seconds = float(satellite.run(script, [endpoint, key, congestion, *numbers]))
            return seconds, meter.first - before

        for name, (congestion, packages, size) in WAYS.items():
            seconds, _ = sent(congestion, packages, size)
            figures[f"send_{name}_seconds"] = seconds
            ratios[f"goodput_to_link_{name}"] = goodput = 8 * packages * size / seconds / (MBITS * 1e6)
            ratios[f"goodput_to_what_it_carries_{name}"] = goodput / CARRIES
        seconds, whole = sent(*CUT)
        resent = []
        for moment in random.Random(1).sample(range(FULL_SECONDS, int(seconds)), CUTS):  # noqa: S311
            with satellite.cut(meter, moment, CUT_SECONDS):
                resent.append(sent(*CUT)[1] - whole)
        figures["resent_after_a_cut_most_KiB"] = max(resent) / KIBIBYTE
        figures["resent_after_a_cut_least_KiB"] = min(resent) / KIBIBYTE


@contextmanager
def shore() -> Iterator[tuple[str, str]]:
    """Azurite at Azure's end of the link: the address of its account and the key."""
    from azure.core.credentials import AzureNamedKeyCredential
    from azure.core.exceptions import ServiceRequestError

    from edge_ai_assets.resources.storage.account import Account
    from edge_ai_assets_tests.integration import azurite

    if not (
        program := azurite.CACHE / f"azurite-{azurite.VERSION}/node_modules/azurite/dist/src/azurite.js"
    ).exists():
        raise satellite.Unavailable(f"{program} is not there: the integration tests install it")
    blob, queue, table = azurite.free_ports(3)
    command = ["node", str(program), "--inMemoryPersistence", "--skipApiVersionCheck", "--silent"]
    # A connection that waits for its turn is not closed, as Azure's are not within seconds.
    command += ["--blobHost", satellite.AZURE_END, "--blobPort", str(blob), "--blobKeepAliveTimeout", "600"]
    command += ["--queuePort", str(queue), "--tablePort", str(table), "--disableTelemetry"]
    key = azurite.KEYS["cloud"]
    environment = {**os.environ, "AZURITE_ACCOUNTS": f"cloud:{key}"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            endpoint = f"http://{satellite.AZURE_END}:{blob}/cloud"
            container = Account(endpoint, AzureNamedKeyCredential("cloud", key)).container("returns")
            deadline = time.monotonic() + 60
            while True:
                try:
                    container.create_container()
                    break
                except ServiceRequestError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
            yield endpoint, key
        finally:
            process.kill()


if __name__ == "__main__":
    main()
