"""A use case: everything a user edits to bring their own data and model, as one typed YAML file.

Only what is declared lives here. Reading files by it is `readings`' work, training by it is `ml`'s, deciding
by its egress policy what may leave a site is `returns.policy`'s.

Names that begin with an underscore are ours: `_site`, `_run`, `_time`, `_label` in tables of readings,
`_score`, `_predicted`, `_correct`, `_note` and `_role` in what a site sends home. A feature may have any
other name.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

BUNDLED = Path(__file__).parent / "usecases"

Name = Annotated[str, Field(min_length=1, max_length=200)]
SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Scalar = str | int | float | bool


class UseCaseError(ValueError):
    """A use case file that cannot be used; the message names file, line, field and bound."""


def _no_repeats(what: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{what} {repeated[0]!r} is given more than once")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ring(StrEnum):
    """Rollout rings, in the order in which a release reaches them."""

    CANARY = "canary"
    EARLY = "early"
    BROAD = "broad"


class Source(_Part):
    """How the files of readings are written. `None` means: found out from each file."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"
    missing: tuple[Scalar, ...] = Field(
        (), description="Values that stand for a missing one, such as -200 or '?'."
    )


class Time(_Part):
    """Which columns hold the time of a reading; several are joined by a space before they are parsed."""

    columns: tuple[Name, ...] = Field(min_length=1)
    format: str | None = Field(
        None, description="strptime format of the joined columns; ISO 8601 when absent."
    )


class SiteColumn(_Part):
    """The column that names a reading's site. Without one, the folder a file lies in names it."""

    column: Name


class Runs(_Part):
    """What a run is: readings that belong together. Feature windows and data splits never cut through one.

    Exactly one of: a column, a period of time (`1d`, `6h`, `30min`), a number of rows.
    """

    column: Name | None = None
    every: Annotated[str, Field(pattern=r"^[1-9][0-9]*(d|h|min|s)$")] | None = None
    rows: Annotated[int, Field(ge=10)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.column, self.every, self.rows)) != 1:
            raise ValueError("exactly one of column, every and rows must be given")
        return self


class Feature(_Part):
    """One measured quantity. A number outside `range` is a broken reading, not an unusual one."""

    name: Name
    kind: Literal["number", "category"] = "number"
    unit: str = ""
    range: tuple[float, float] | None = None
    categories: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name.startswith("_"):
            raise ValueError(f"{self.name!r}: names that begin with an underscore are reserved")
        if self.kind == "category" and not self.categories:
            raise ValueError(f"{self.name!r}: a category needs its categories")
        if self.kind == "category" and self.range:
            raise ValueError(f"{self.name!r}: a category has no range")
        if self.kind == "number" and self.categories:
            raise ValueError(f"{self.name!r}: a number has no categories")
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError(f"{self.name!r}: range {list(self.range)} must rise")
        return self


class Label(_Part):
    """What is predicted: whether `column` holds one of `positive`, or a number above `above`."""

    column: Name
    positive: tuple[Scalar, ...] | None = None
    above: float | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.positive is None) == (self.above is None):
            raise ValueError("exactly one of positive and above must be given")
        return self


class Windows(_Part):
    """Features made from the run so far, for every number.

    `rows` and `statistics`: rolling statistics over the last so many rows, this one included.
    `baseline_rows`: the first rows of a run are taken as its normal state; each number is also given as its
    distance from the mean over them, and the baseline rows themselves are neither trained on nor scored as
    faults.
    """

    rows: tuple[Annotated[int, Field(ge=2, le=10_000)], ...] = ()
    statistics: tuple[Literal["mean", "std", "min", "max"], ...] = ("mean", "std")
    baseline_rows: Annotated[int, Field(ge=0, le=100_000)] = 0


class Estimator(_Part):
    """The scikit-learn estimator and its parameters."""

    name: Literal["hist_gradient_boosting", "random_forest", "extra_trees", "logistic_regression"] = (
        "hist_gradient_boosting"
    )
    parameters: dict[str, Any] = {}


class Gates(_Part):
    """What a candidate must reach on held-back data before it may become champion."""

    f1: Share = 0.5
    false_alarm_rate: Share = 0.2
    parity: Annotated[float, Field(gt=0, le=0.01)] = Field(1e-5, description="Largest ONNX score difference.")


class Retraining(_Part):
    """When the wheel turns without being asked."""

    cron: str = "0 3 * * 1"
    cooldown_minutes: Annotated[int, Field(ge=0)] = Field(
        60, description="Least time between drift retrainings."
    )
    feedback_rows: Annotated[int, Field(ge=1)] = Field(
        200, description="Scores that people on drifting sites must have judged before drift retrains."
    )


class Drift(_Part):
    """Drift is seen when at least `share` of the numeric features exceed their calibrated threshold.

    A feature's threshold is `factor` times the largest population stability index that one run of the
    training data has against the others, but never below `floor`.
    """

    bins: Annotated[int, Field(ge=2, le=50)] = 10
    share: Share = 0.5
    factor: Annotated[float, Field(ge=1)] = 1.5
    floor: Annotated[float, Field(ge=0)] = 0.1
    rows: Annotated[int, Field(ge=50)] = Field(500, description="Fewest rows from a site that are judged.")


class EgressField(_Part):
    """How one field may leave a site. What is derived from a feature leaves as the feature does."""

    name: Name
    leaves: Literal["as_is", "rounded", "pseudonymised", "aggregated"]
    digits: Annotated[int, Field(ge=0, le=12)] | None = None

    @model_validator(mode="after")
    def _digits(self) -> Self:
        if (self.leaves == "rounded") != (self.digits is not None):
            raise ValueError(f"{self.name!r}: digits goes with rounded, and rounded needs it")
        return self


class Egress(_Part):
    """What may leave a site. Deny by default: a kind, field or note that nobody listed stays."""

    kinds: tuple[Literal["anomaly", "feedback", "normal"], ...] = ("anomaly", "feedback")
    minimum_group_size: Annotated[int, Field(ge=2)] = 20
    fields: tuple[EgressField, ...] = ()
    notes: tuple[str, ...] = Field((), description="Free text leaves only if it is one of these.")

    @model_validator(mode="after")
    def _once(self) -> Self:
        _no_repeats("egress field", [field.name for field in self.fields])
        return self


class Site(_Part):
    """A place where the model runs. `value` is how the readings name it, when that is not `name`."""

    name: SiteName
    ring: Ring = Ring.BROAD
    value: str | None = None


class UseCase(_Part):
    """One model for one kind of plant, on many sites."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    description: str = ""
    simulated: bool = Field(False, description="Readings come from the plant simulator instead of files.")
    source: Source = Source()
    time: Time | None = None
    site: SiteColumn | None = None
    runs: Runs
    features: tuple[Feature, ...] = Field(min_length=1, max_length=1000)
    label: Label
    windows: Windows = Windows()
    estimator: Estimator = Estimator()
    gates: Gates = Gates()
    retraining: Retraining = Retraining()
    drift: Drift = Drift()
    egress: Egress = Egress()
    sites: tuple[Site, ...] = Field(min_length=1, max_length=10_000)
    history: float | str = Field(
        0.5,
        description="For demos with a file: what is history, to train on; the rest reaches the sites later. "
        "A share of the rows, or a time.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [feature.name for feature in self.features]
        _no_repeats("feature", names)
        _no_repeats("site", [site.name for site in self.sites])
        taken = {self.label.column, *(self.time.columns if self.time else ())}
        taken |= {part.column for part in (self.runs, self.site) if part and part.column}
        if clash := sorted(taken & set(names)):
            raise ValueError(f"{clash[0]!r} is a feature and also the label, a time, site or run column")
        if self.runs.every and not self.time:
            raise ValueError("runs.every needs time.columns")
        known = {*names, "_time", "_run", "_score", "_predicted", "_correct", "_note", "_role"}
        for field in self.egress.fields:
            if field.name not in known:
                raise ValueError(
                    f"egress field {field.name!r} is no feature and none of {sorted(known - set(names))}"
                )
        return self

    def feature(self, name: str) -> Feature:
        """The feature of that name; KeyError when there is none."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)

    @property
    def numbers(self) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.kind == "number")

    def ring(self, ring: Ring) -> list[str]:
        """Names of the sites in a ring."""
        return [site.name for site in self.sites if site.ring == ring]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON form: the same declarations, however written, give the same
        digest."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load(path: Path) -> UseCase:
    """Read and check a use case.

    Raises:
        UseCaseError: the file cannot be read, is no YAML, or breaks the model; the message has one line a
        problem,
            each with file, line, field, value and bound.
    """
    try:
        return loads(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UseCaseError(f"{path}: cannot be read: {error}") from error


def loads(text: str, origin: str = "use case") -> UseCase:
    """Like `load`, from text; `origin` stands in messages where the file's path would."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark else origin
        raise UseCaseError(f"{where}: no YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(data, dict):
        raise UseCaseError(f"{origin}: a use case is a mapping, this is {type(data).__name__}")
    try:
        return UseCase.model_validate(data)
    except ValidationError as error:
        lines = [
            f"{origin}:{_line(node, problem['loc'])}: {'.'.join(map(str, problem['loc'])) or 'use case'}: "
            f"{problem['msg'].removeprefix('Value error, ')}{_shown(problem)}"
            for problem in error.errors()
        ]
        raise UseCaseError("\n".join(lines)) from error


def dump(usecase: UseCase, path: Path) -> None:
    """Write a use case that `load` reads back equal."""
    text = yaml.safe_dump(usecase.model_dump(mode="json"), allow_unicode=True, sort_keys=False)
    path.write_text(text, "utf-8")


def _shown(problem: Any) -> str:
    value = problem["input"]
    if problem["type"] == "missing" or isinstance(value, dict | list):
        return ""
    return f" (it is {value!r})"


def _line(node: yaml.Node | None, loc: tuple[int | str, ...]) -> int:
    """The line of the deepest YAML node that a pydantic location names, counted from 1."""
    line = 1
    for step in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line
