"""A use case drafted from one file, as YAML with comments that teach what to edit: `edge-ai usecase init`.

What a column is for is guessed in `guess`; here it is written down.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_ai_assets.readings.cut import RawChunk
from edge_ai_assets.readings.files import stem
from edge_ai_assets.readings.guess import Guess, guess
from edge_ai_assets.readings.profile import Column
from edge_ai_assets.readings.raw import RawFile
from edge_ai_assets.readings.rules import is_missing, parse_numbers, sentinels, text

UNIT = re.compile(r"(?:\[\s*([^\]]{1,12}?)\s*\]|\(\s*([^)]{1,12}?)\s*\))\s*$")
NO_UNIT = re.compile(r"^(gt|raw|avg|mean|std|min|max|[0-9]+|(?!RPM|PSI|PPM|PPB|MW|KW|DB)[A-Z]{2,}[0-9]*)$")
INVENTED = (("site-a", "canary"), ("site-b", "early"), ("site-c", "broad"))


def draft(path: Path) -> str:
    """YAML of a use case that reads this file, or the files of this folder: it loads with `usecase.loads`.

    Lines to look at first carry `# CHECK:`.

    Raises:
        ReadingsError: the file cannot be read, or has no column for a label or a feature.
    """
    return "\n".join(_lines(guess(path))) + "\n"


def _lines(found: Guess) -> Iterator[str]:
    path = found.profile.path
    ranges = _ranges(found)
    yield f"# A use case drafted from {' '.join(path.name.split())} ({found.profile.rows:,} rows of it)."
    yield "# Every line is a guess that you may change, those with CHECK first."
    yield "# `edge-ai usecase check` tells what is wrong with it."
    yield f"name: {_slug(stem(path))}"
    yield f"description: {_quoted('Drafted from ' + path.name)}"
    yield ""
    yield from _how_to_read(found)
    yield ""
    yield from _features(found, ranges)
    yield ""
    yield from _label(found)
    yield ""
    if found.time:
        yield "# Rolling mean and standard deviation over this many rows of a run are features too."
        yield "windows: {rows: [12], statistics: [mean, std]}"
    else:
        yield "# No windows: without a time, neighbouring rows need not have anything to do with each other."
        yield "windows: {}"
    yield "estimator: {name: hist_gradient_boosting}"
    yield "# A new model is only released when it reaches these on data that it has not seen. Modest for a"
    yield "# first release: raise f1 and lower false_alarm_rate to what the plant needs."
    if found.history_doubt:
        yield f"# CHECK: {found.history_doubt}. No F1 is asked for."
    yield f"gates: {{f1: {0 if found.history_doubt else 0.1}, false_alarm_rate: 0.3}}"
    yield 'retraining: {cron: "0 3 * * 1", cooldown_minutes: 60}'
    yield ""
    yield from _egress(found, ranges)
    yield ""
    yield from _sites(found)
    yield "# For a demo: the share of each site's rows that is history to train on, or a time up to which"
    yield '# it is, such as "2024-03-01". The rest arrives on the sites.'
    yield f"history: {found.history:g}"


def _how_to_read(found: Guess) -> Iterator[str]:
    source = found.profile.source
    parts = [f"decimal: {_quoted(source.decimal)}", f"encoding: {source.encoding}"]
    if source.delimiter:
        parts.insert(0, f"delimiter: {_quoted(source.delimiter)}")
    if source.missing:
        parts.append(f"missing: {_listed(source.missing)}")
        yield "# missing: values that stand for a missing one. CHECK: is none of them a real measurement?"
    yield f"source: {{{', '.join(parts)}}}"
    for doubt in found.doubts:
        yield f"# CHECK: {doubt}"
    if found.time:
        form = f", format: {_quoted(found.time.format)}" if found.time.format else ""
        yield f"time: {{columns: {_listed(found.time.columns)}{form}}}"
    else:
        yield '# No time was found. With one: time: {columns: [Date, Time], format: "%d/%m/%Y %H:%M:%S"}'
    if found.site:
        yield f"site: {{column: {_quoted(found.site)}}}"
    elif found.places:
        yield "# No column names the site; the file's folder does, or its own name."
    else:
        yield "# No column names the site, the file's folder does; or site: {column: station}"
    yield "# If a column says of which pump or engine a row is: plant_asset: {column: pump}"
    yield "# Windows and the split into training and test data never cut through a run."
    if found.run:
        yield f"runs: {{column: {_quoted(found.run)}}}"
    else:
        yield f"runs: {{every: {found.every}}}" if found.every else f"runs: {{rows: {found.rows}}}"


def _features(found: Guess, ranges: dict[str, tuple[float, float]]) -> Iterator[str]:
    yield "# range: what is physically plausible; a reading outside is quarantined, so set it wide. Drafted:"
    yield "# what the file holds and half as much again on either side. CHECK: what can the sensor measure?"
    yield "features:"
    for column in found.features:
        if column.is_number:
            low, high = ranges[column.name]
            unit = _unit(column.name)
            bounds = f"[{_float(low)}, {_float(high)}]"
            yield f"  - {{name: {_quoted(column.name)}, unit: {_quoted(unit)}, range: {bounds}}}"
        else:
            values = _categories(found, column)
            yield f"  - {{name: {_quoted(column.name)}, kind: category, categories: {_listed(values)}}}"
    for name, why in found.left_out.items():
        yield f"  # left out: {_quoted(name)}: {' '.join(why.split())}"


def _label(found: Guess) -> Iterator[str]:
    label = found.label
    yield "# What is predicted: one of the values in `positive`, or a number above `above`."
    if label.doubt:
        yield f"# CHECK: {' '.join(label.doubt.split())}."
    rule = (
        f"positive: {_listed(label.positive)}" if label.positive else f"above: {_float(label.above or 0.0)}"
    )
    rule += ", blank: negative" if label.blank else ""
    yield f"label: {{column: {_quoted(label.column)}, {rule}}}"


def _egress(found: Guess, ranges: dict[str, tuple[float, float]]) -> Iterator[str]:
    yield "# What may leave a site. What is not listed here stays there."
    yield "egress:"
    yield "  kinds: [anomaly, feedback, histogram]"
    yield "  minimum_group_size: 20"
    yield "  fields:"
    yield "    - {name: _time, leaves: as_is}"
    yield "    - {name: _run, leaves: pseudonymised}"
    yield "    - {name: _score, leaves: rounded, digits: 4}"
    yield "    - {name: _predicted, leaves: as_is}"
    yield "    - {name: _correct, leaves: as_is}"
    for column in found.features:
        how = f"rounded, digits: {_digits(*ranges[column.name])}" if column.is_number else "as_is"
        yield f"    - {{name: {_quoted(column.name)}, leaves: {how}}}"


def _sites(found: Guess) -> Iterator[str]:
    yield "# A release reaches the canary sites first, then early, then broad."
    yield "# value: how the readings name the site, if that is not its name."
    if not found.site and not found.places:
        yield "# CHECK: these are invented; a demo deals the file's runs to them in turn."
        yield "sites:"
        yield from (f"  - {{name: {name}, ring: {ring}}}" for name, ring in INVENTED)
        return
    yield "sites:"
    taken: set[str] = set()
    values = _categories(found, found.profile.columns[found.site]) if found.site else found.places
    for position, value in enumerate(values):
        name = base = re.sub(r"[^A-Za-z0-9._-]+", "-", value).strip("-._")[:60] or "site"
        count = 1
        while name in taken:
            name = f"{base}-{(count := count + 1)}"
        taken.add(name)
        ring = ("canary", "early", "broad")[min(position, 2)]
        named = "" if name == value else f", value: {_quoted(value)}"
        yield f"  - {{name: {_quoted(name)}, ring: {ring}{named}}}"


def _ranges(found: Guess) -> dict[str, tuple[float, float]]:
    """Observed minimum and maximum over the whole file, padded by half the span and rounded outwards."""
    numbers = [column for column in found.features if column.is_number]
    extremes = {c.name: (float(np.nanmin(c.numbers)), float(np.nanmax(c.numbers))) for c in numbers}
    if not found.profile.whole:
        for chunk in _chunks(found):
            for name, (low, high) in extremes.items():
                words = text(name, chunk.cells[name])
                values, numeric = parse_numbers(words, found.profile.source.decimal)
                missing = is_missing(words, found.profile.source) | np.isin(
                    values, sentinels(found.profile.source)
                )
                values = values[numeric & ~missing]
                if len(values):
                    extremes[name] = min(low, float(values.min())), max(high, float(values.max()))
    return {name: _padded(low, high) for name, (low, high) in extremes.items()}


def _chunks(found: Guess) -> Iterator[RawChunk]:
    for path in found.profile.files:
        yield from RawFile(path, found.profile.source).chunks(100_000)


def _padded(low: float, high: float) -> tuple[float, float]:
    """Half as much again on either side, rounded; what comes down to 0 and no further ends there."""
    span = high - low
    step = 10.0 ** (math.floor(math.log10(span)) - 1)
    below = math.floor((low - span / 2) / step) * step
    above = math.ceil((high + span / 2) / step) * step
    if 0 <= low <= span / 20:
        below = 0.0
    return below, 0.0 if -span / 20 <= high <= 0 else above


def _categories(found: Guess, column: Column) -> list[str]:
    values = set(column.present.unique().tolist())
    if not found.profile.whole:
        for chunk in _chunks(found):
            words = text(column.name, chunk.cells[column.name])
            values |= set(words.filter(~is_missing(words, found.profile.source)).unique().to_pylist())
    return sorted(values)


def _digits(low: float, high: float) -> int:
    """So many decimals that a feature's range has about two thousand steps."""
    return int(np.clip(3 - math.floor(math.log10(high - low)), 0, 12))


def _unit(name: str) -> str:
    found = UNIT.search(name)
    unit = (found[1] or found[2]) if found else ""
    return "" if NO_UNIT.match(unit) else unit


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-") or "usecase"


def _float(value: float) -> str:
    """A number as YAML reads it back: it takes 1e-05 for text, but 1.0e-05 for a number."""
    shown = f"{value:.15g}"
    mantissa, e, exponent = shown.partition("e")
    return shown if not e or "." in mantissa else f"{mantissa}.0e{exponent}"


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=not value.isprintable())


def _listed(values: object) -> str:
    items = [_quoted(v) if isinstance(v, str) else _float(v) for v in values]  # type: ignore[attr-defined]
    return f"[{', '.join(items)}]"
