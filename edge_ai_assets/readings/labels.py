"""Which column of an unknown file is the label, and which others would give it away."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from edge_ai_assets.readings.profile import Column
from edge_ai_assets.usecase import Scalar

TROUBLE = (
    "anomal|fault|fail|alarm|alert|defect|broken|breakdown|error|outlier|attack|leak|"
    "st(ö|oe)rung|fehler|ausfall|defekt"
)
LABEL = re.compile(f"label|target|class|status|^y$|{TROUBLE}", re.I)
EXACT = re.compile(
    r"^(label|anomaly|fault|failure|target|class|y|machine[ _]failure|is_anomaly|outlier)$", re.I
)
BAD_NEWS = re.compile(TROUBLE, re.I)
CHANGEPOINT = re.compile(r"change.?point", re.I)
IDENTIFIER = re.compile(
    r"^(id|udi|uid|uuid|index|idx|no|nr|row|row.?(no|nr|number|id)|unnamed.*|.*[ _-]id)$", re.I
)
MOST_CATEGORIES = 50


@dataclass(frozen=True)
class LabelGuess:
    """`positive` or `above` as in the use case; `doubt` says what should be checked, "" when little."""

    column: str
    positive: tuple[Scalar, ...] | None = None
    above: float | None = None
    blank: bool = False
    """Whether an empty cell says that all was well."""
    doubt: str = ""


def find(columns: dict[str, Column]) -> LabelGuess:
    """The most plausible label: a named column with two or few values, any with two, or a high number."""
    candidates = {name: column for name, column in columns.items() if not CHANGEPOINT.search(name)}
    sizes = {name: len(column.values) for name, column in candidates.items()}
    named = sorted(
        (name for name in candidates if LABEL.search(name)), key=lambda name: not EXACT.match(name)
    )
    for name in named:
        column = candidates[name]
        if BAD_NEWS.search(name) and 1 <= sizes[name] <= 20 and _mostly_blank(column):
            doubt = "an empty cell counts as negative, since the others name troubles only"
            return LabelGuess(name, tuple(map(plain, column.values.index)), blank=True, doubt=doubt)
    for name in named:
        if sizes[name] == 2:
            return LabelGuess(name, positive=_positive(candidates[name]))
    for name in named:
        column = candidates[name]
        if 3 <= sizes[name] <= 20 and (not column.is_number or float(column.values.index.max()).is_integer()):
            usual, *rest = map(plain, column.values.index.tolist())
            return LabelGuess(name, tuple(rest), doubt=f"everything but {usual!r} counts as positive")
    for name in named:
        if sizes[name] == 1:
            only: Scalar = 1 if candidates[name].is_number else str(candidates[name].values.index[0])
            return LabelGuess(
                name, (only,), doubt="the column holds one value only, there is nothing to learn yet"
            )
    for name in reversed(candidates):
        if sizes[name] == 2:
            doubt = "no column is named like a label, this has two values"
            return LabelGuess(name, _positive(candidates[name]), doubt=doubt)
    for name in [*named, *candidates]:
        column = candidates[name]
        if sizes[name] > 2 and column.is_number and not is_identifier(column):
            above = float(f"{np.nanquantile(column.numbers, 0.95):.6g}")
            if above < np.nanmax(column.numbers):
                doubt = "no column has two values, so a high value is what is predicted"
                return LabelGuess(name, above=above, doubt=doubt)
    name, column = next(iter((candidates or columns).items()))
    rarest: Scalar = 1 if column.is_number or column.present.empty else str(column.values.index[-1])
    return LabelGuess(name, positive=(rarest,), doubt="no column looks like a label")


def _mostly_blank(column: Column) -> bool:
    """Whether most cells are empty, and none of the others says that all was well."""
    well = {"0", "0.0", "no", "none", "normal", "ok", "false", "n", "good", "healthy", "nein", "running"}
    present = column.present
    return len(present) < 0.5 * len(column.words) and not well & set(present.str.lower().unique())


def _positive(column: Column) -> tuple[Scalar, ...]:
    """The rarer value; 1 for a 0/1 column whose name speaks of trouble, however frequent trouble is."""
    values = column.values.index.tolist()
    if column.is_number and set(values) == {0, 1} and BAD_NEWS.search(column.name):
        return (1,)
    if {str(value).lower() for value in values} == {"true", "false"} and BAD_NEWS.search(column.name):
        return ("true",)
    return (plain(values[-1]),)


def plain(value: object) -> Scalar:
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    return str(value)


def is_identifier(column: Column) -> bool:
    size, present = len(column.values), len(column.present)
    if not column.is_number:
        return size > max(MOST_CATEGORIES, 0.5 * present)
    if IDENTIFIER.match(column.name) and size > max(MOST_CATEGORIES, 0.2 * present):
        return True
    steps = np.diff(column.numbers[~np.isnan(column.numbers)])
    return len(steps) > 0 and bool((steps == 1).mean() > 0.99)


def is_positive(column: Column, label: LabelGuess) -> np.ndarray:
    if label.above is not None:
        return np.asarray(column.numbers > label.above)
    wanted = label.positive or ()
    if column.is_number:
        return np.isin(column.numbers, [value for value in wanted if isinstance(value, int | float)])
    return column.words.isin([str(value) for value in wanted]).to_numpy(bool)


def leaks(flag: Column, positive: np.ndarray) -> bool:
    """Whether a two-valued column is raised (almost) only when the label is: a cause found out afterwards."""
    rare = flag.values.index[-1]
    raised = (flag.numbers == rare) if flag.is_number else (flag.words == rare).to_numpy(bool, na_value=False)
    base = positive.mean()
    return bool(raised.sum() >= 5 and base < 0.5 and positive[raised].mean() > max(0.9, 1.5 * base))


def neighbours(names: list[str], flags: set[str], leaks: set[str], label: str) -> set[str]:
    """Flags that stand in one row with flags that leak: the same list of causes, some too rare to show it."""
    found: set[str] = set()
    block: list[str] = []
    for name in [*names, ""]:
        if name in flags or name == label:
            block.append(name)
            continue
        members = [member for member in block if member != label]
        if len(members) > 1 and 2 * len(leaks & set(members)) >= len(members):
            found |= set(members)
        block = []
    return found
