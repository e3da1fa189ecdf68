"""Scores that hold canaries wherever a value may stand that must not leave, and the search for them.

A canary is a text or a number that nothing else holds. It is planted in each record: in forbidden fields
under many names, in allowed ones of another kind, as a category nobody listed, as a name, in the run, the
plant asset, the time, the note, the role, the key of the request, in lineage. What leaves is searched as it
is and unpacked.
"""

from __future__ import annotations

import base64
import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from edge_ai_assets.returns.package import lineage, parts, sketches
from edge_ai_assets.returns.package.lineage import Event
from edge_ai_assets.returns.package.parts import EventMark

TEXT = "CANARY"
NUMBER = 7_654_321.987_654
DIGITS = re.compile(rb"7\.?6\.?5\.?4\.?3\.?2\.?[12]")
"""The number, times any power of ten, rounded to a whole or less."""
HARMLESS = 6.0
"""No reading that may leave is as large, so that any canary can be told from one however it was rounded."""
FORBIDDEN = ("Secret", "Secret [mean 60]", "unheard of", "_row", "_note", "_role", "_site", f"{TEXT} name")
MISPLACED: dict[str, tuple[Any, ...]] = {
    "Type": (f"{TEXT} category", NUMBER),
    "Serial": (f"{TEXT} serial",),
    "Flow": (f"{TEXT} flow", True),
    "Flow [mean 60]": (f"{TEXT} mean",),
    "Pressure [bar]": (f"{TEXT} pressure",),
    "Only counted [mean 60]": (f"{TEXT} counted", NUMBER),
}
KINDS = ("aggregate", "anomaly", "feedback", "histogram", "lineage", "normal", "sketch")
"""All that there are: with fewer, less leaves."""


def record(chance: random.Random) -> dict[str, Any]:
    """A record with canaries in one to four places; what may leave of it is harmless."""
    inputs: dict[str, Any] = {
        "Pressure [bar]": chance.randrange(8, 40) / 8,
        "Flow": chance.randrange(8, 40) / 8,
        "Secret": NUMBER * chance.choice([1, 1, 1e-6, 1e6, -1]),
        "Only counted": NUMBER if chance.random() < 0.5 else 1.0,
        "Serial": "4711",
        "Type": "screw",
    }
    for name in chance.sample(FORBIDDEN, chance.randint(1, 3)):
        inputs[name] = chance.choice([f"{TEXT} {name}", NUMBER])
    if chance.random() < 0.5:
        name = chance.choice([*MISPLACED])
        inputs[name] = chance.choice(MISPLACED[name])
    time = chance.choice(["2026-02-03T04:05:06", f"{TEXT} time"])
    context = {"_time": time, "_run": f"{TEXT} run", "_row": 7_654_321, "_asset": f"{TEXT} asset"}
    return {"inputs": inputs, "context": context}


def events(mark: EventMark, limit: int) -> tuple[list[bytes], EventMark]:
    """Ten events whose metadata, run and job were canaries before they went through `lineage`."""
    if mark.number:
        return [], mark
    metadata = {
        "scored_rows": 5,
        "release": f"{TEXT} release",
        "files": [TEXT, f"/data/{TEXT}"],
        f"{TEXT}": 1,
        "preview": [{"Secret": NUMBER}],
        "Secret": NUMBER,
    }
    lines = [
        lineage.encode(
            Event(
                number,
                "materialization",
                ("site", "scores"),
                "bergen",
                1_760_000_000_000_000,
                lineage.run_id(f"{TEXT} run"),
                lineage.word(f"{TEXT} job"),
                lineage.allowed("site/scores", metadata),
            )
        )
        for number in range(1, 11)
    ]
    return lines, EventMark(10, 10)


def outgoing(path: Path) -> Iterator[tuple[str, bytes]]:
    """All that a package tells, by member: its bytes, and these unpacked."""
    data = path.read_bytes()
    yield "file", data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    envelope = json.loads(found.pop("manifest.dsse"))
    yield "manifest", base64.b64decode(envelope["payload"])
    for name, member in found.items():
        if name == parts.LINEAGE:
            yield name, pa.CompressedInputStream(pa.BufferReader(member), "zstd").read()
            continue
        table = pq.read_table(pa.BufferReader(member))
        yield f"schema of {name}", str(table.schema).encode()
        for column in table.itercolumns():
            yield name, "\n".join(map(str, column.to_pylist())).encode()


def readings(path: Path) -> Iterator[tuple[str, float]]:
    """All numbers of single rows in a package, by member."""
    with zipfile.ZipFile(path) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if name in parts.TABLES}
    for name in {parts.INSIGHTS, parts.FEEDBACK} & found.keys():
        for column in pq.read_table(pa.BufferReader(found[name])).flatten().itercolumns():
            if column.type == pa.float64():
                yield from ((name, value) for value in column.unique().to_pylist() if value is not None)
    if parts.SKETCHES in found:
        for data in pq.read_table(pa.BufferReader(found[parts.SKETCHES]))["sketch"].to_pylist():
            items = sketches.read(data)
            yield from ((parts.SKETCHES, value) for value in (items.low, items.high, *items.values.tolist()))


def leaks(path: Path) -> list[str]:
    """Where a canary is."""
    found = [f"{name} holds {value}" for name, value in readings(path) if abs(value) >= HARMLESS]
    as_double = struct.pack("<d", NUMBER)
    for name, data in outgoing(path):
        if TEXT.encode() in data or as_double in data or (name != "file" and DIGITS.search(data)):
            found.append(name)
    return found
