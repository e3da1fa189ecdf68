"""A use case: everything a user edits to bring their own data and model, as one typed YAML file.

Only what is declared lives here. Reading files by it is `readings`' work, training by it is `ml`'s, deciding
by its egress policy what may leave a site is `returns.egress.policy`'s.

Names that begin with an underscore are ours: `_site`, `_asset`, `_run`, `_time`, `_label` in tables of
readings, `_score`, `_predicted`, `_correct`, `_note` and `_role` in what a site sends home. A feature may
have any other name.
"""

from __future__ import annotations

import codecs
import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from edge_ai_assets import yaml_lines
from edge_ai_assets.yaml_lines import NoYaml, line_of

BUNDLED = Path(__file__).parent / "usecases"
MAX_BYTES = 2 * 1024 * 1024
"""Of a use case file. Ten thousand sites take a fifth of it; what is larger is some other file."""

Name = Annotated[str, Field(min_length=1, max_length=200)]
SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Bound = Annotated[float, Field(allow_inf_nan=True)]
"""Of a range, which may be open: `[0, .inf]`."""
Scalar = str | int | float | bool
NO_PSEUDONYM = {"_time", "_score", "_predicted", "_correct"}
"""Our own fields that are of use only as what they are."""
Moment = Annotated[
    float | str, BeforeValidator(lambda given: given.isoformat() if isinstance(given, date) else given)
]
"""A share, or a time; one that YAML took for a date because nobody quoted it is a time all the same."""


class UseCaseError(ValueError):
    """A use case file that cannot be used; the message names file, line, field and bound."""


class _Misfit(ValueError):
    """Parts that are fine by themselves and do not go together; `loc` is the one to look at."""

    def __init__(self, message: str, *loc: str | int) -> None:
        super().__init__(message)
        self.loc = loc


def _no_repeats(what: str, names: list[str], *loc: str) -> None:
    repeated = {name for name, times in Counter(names).items() if times > 1}
    seen: set[str] = set()
    for place, name in enumerate(names if repeated else ()):
        if name in seen:
            raise _Misfit(f"{what} {name!r} is given more than once", *loc, place)
        if name in repeated:
            seen.add(name)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise _Misfit(f"{self.encoding!r} is no encoding that Python knows", "encoding") from None
        if self.delimiter == self.decimal:
            raise _Misfit(f"delimiter and decimal are both {self.decimal!r}", "delimiter")
        return self


class Time(_Part):
    """Which columns hold the time of a reading; several are joined by a space before they are parsed."""

    columns: tuple[Name, ...] = Field(min_length=1)
    format: str | None = Field(
        None,
        description="strptime format of the joined columns, or `epoch s`, `epoch ms`, `epoch us`, `epoch ns` "
        "for numbers that count from 1970; ISO 8601 when absent.",
    )


class SiteColumn(_Part):
    """The column that names a reading's site. Without one, the folder a file lies in names it."""

    column: Name


class PlantAsset(_Part):
    """The column that names the plant asset a reading is of: a pump, a transformer, an engine.

    It is kept beside the score as `_asset`. What leaves of many rows is told by plant asset only if the
    egress policy lists that field. Runs do not follow from it: where a site's assets are read at the same
    times, `runs.column` has to tell them apart, or all readings but one of a time are rejected.

    Source: plant asset management as in VDI/VDE 2651 and NAMUR NE 91.
    """

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
    range: tuple[Bound, Bound] | None = None
    categories: tuple[str, ...] | None = None
    keep: bool = Field(
        True, description="Whether a site's outbox keeps it beside the score; if not, it cannot leave either."
    )

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
    blank: Literal["unknown", "negative"] = Field(
        "unknown", description="What an empty cell says: nothing, or that all was well."
    )

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

    cron: Annotated[str, Field(pattern=r"^(@[a-z]+|(\S+ +){4}\S+)$")] = "0 3 * * 1"
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


FREE_TEXT = ("_run", "_asset", "_role")
"""Our own fields that hold whatever was written there. Notes have an allow-list of their own."""


class EgressField(_Part):
    """How one field may leave a site. What is derived from a feature leaves as the feature does."""

    name: Name
    leaves: Literal["as_is", "rounded", "pseudonymised", "aggregated"]
    digits: Annotated[int, Field(ge=0, le=12)] | None = None
    values: tuple[Annotated[str, Field(max_length=200)], ...] = Field(
        (),
        description="Of `_run`, `_asset` and `_role`, which are free text: those that leave as they are.",
        # Who lists none has the digests, of the use case and of the policy, that it had before.
        exclude_if=lambda given: not given,
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.leaves == "rounded") != (self.digits is not None):
            raise ValueError(f"{self.name!r}: digits goes with rounded, and rounded needs it")
        if self.values and (self.leaves != "as_is" or self.name not in FREE_TEXT):
            raise ValueError(f"{self.name!r}: values go with as_is, and with {', '.join(FREE_TEXT)} only")
        return self


class Egress(_Part):
    """What may leave a site. Deny by default: a kind, field or note that nobody listed stays.

    With a row or feedback that may leave always go: the site, its sequence (feedback's own number too), the
    time it was scored or given, the release, its kind, and the package it is in.

    Three kinds let out no row, but what many rows have in common, whatever a row's own kind; a group below
    `minimum_group_size` stays, and so does what would tell of too few once rows that leave are taken away:
    - `histogram`: how often the numeric features in `fields` fell into each bin; small counts are hidden;
    - `aggregate`: scores, anomalies and mean score by release and `returns.window_minutes`, and by plant
      asset if `_asset` is in `fields`;
    - `sketch`: quantile sketches of the numeric features that leave as they are or rounded.

    The kind `lineage` lets out what Dagster on the site recorded: which asset was made when by which run,
    its checks, and how many rows it handled, be they few. How many of them are anomalies only along with the
    kinds `aggregate` and `anomaly`, and of no fewer than `minimum_group_size`.
    """

    kinds: tuple[
        Literal["aggregate", "anomaly", "feedback", "histogram", "lineage", "normal", "sketch"], ...
    ] = Field(
        ("anomaly", "feedback"), description="Drift is seen in histograms only: without that kind, never."
    )
    minimum_group_size: Annotated[int, Field(ge=2)] = 20
    fields: tuple[EgressField, ...] = ()
    notes: tuple[str, ...] = Field((), description="Free text leaves only if it is one of these.")

    @model_validator(mode="after")
    def _once(self) -> Self:
        _no_repeats("egress field", [field.name for field in self.fields], "fields")
        return self


class Returns(_Part):
    """What a site keeps until it came home, and how it gets there."""

    quota_megabytes: Annotated[int, Field(ge=64)] | None = Field(
        None,
        description="Most that outbox and packages of a site may hold on its disk; no bound when absent.",
    )
    when_full: Literal["refuse", "expire"] = Field(
        "refuse",
        description="At the quota: scoring is refused, or the least valuable of what waits expires, counted.",
    )
    retention_days: Annotated[int, Field(ge=0)] = Field(
        30, description="How long a site keeps what Azure acknowledged."
    )
    window_minutes: Annotated[int, Field(ge=1, le=1440)] = Field(60, description="Of the kind `aggregate`.")
    kilobytes_per_second: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Most that a site sends over its link; no bound when absent."
    )
    stale_days: Annotated[float, Field(gt=0)] = Field(
        14, description="A site of which nothing came for longer is called stale."
    )
    publish: Literal["always", "complete"] = Field(
        "always", description="Whether insights are published while a site has gaps or is stale."
    )


class Rollout(_Part):
    """What a release must show in one ring of sites before the next ring gets it.

    Each bound is held against the release that served the same site before. `docs/rollout.md` says how.
    """

    bake_minutes: Annotated[int, Field(ge=0, le=43_200)] = Field(
        60, description="How long it must serve in a ring; 0: no evidence but conservation is asked for."
    )
    rows: Annotated[int, Field(ge=30, le=5_000)] = Field(
        200, description="Fewest scores of a site that are judged."
    )
    anomaly_rise: Annotated[float, Field(ge=0.01, le=1)] = Field(
        0.05, description="Most by which the share of anomalies may rise: 0.05 is from 2 % to 7 %."
    )
    failure_rise: Annotated[float, Field(ge=0.001, le=1)] = Field(
        0.01, description="Most by which the share of requests that fail may rise."
    )
    slower: Annotated[float, Field(ge=1, le=100)] = Field(
        2.0, description="How many times as slow 19 of 20 requests may become."
    )
    stale_minutes: Annotated[int, Field(ge=1, le=43_200)] = Field(
        60, description="Evidence whose newest score is older counts for nothing."
    )


class Delivery(_Part):
    """How releases reach the sites, and how long a site relies on what it has when it hears nothing."""

    lease_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        180, description="The longest that a site is meant to be offline; past it the site is stale."
    )
    when_stale: Literal["keep", "stop"] = Field(
        "keep", description="A stale site keeps scoring and says so, or stops until it hears something newer."
    )
    rollout: Rollout = Rollout()

    @property
    def lease(self) -> timedelta:
        return timedelta(days=self.lease_days)


class Road(StrEnum):
    """How a site's packages come home, and what it may expect back."""

    LINK = "link"
    """Over a link that may fail; acknowledgements come back by it."""
    QUEUE = "queue"
    """The connected form: insights go to a queue on the Stack Hub, and a function lets out what complies."""
    DIODE = "diode"
    """Over a link that lets nothing back: never an answer is waited for."""
    MEDIA = "media"
    """By hand. Nothing on the site connects outward at all."""

    @property
    def pulls(self) -> bool:
        """Whether the site takes releases from the registry, when its link is up."""
        return self in (Road.LINK, Road.QUEUE)


class Site(_Part):
    """A place where the model runs. `value` is how the readings name it, when that is not `name`."""

    name: SiteName
    ring: Ring = Ring.BROAD
    value: str | None = None
    road: Road = Road.LINK


class UseCase(_Part):
    """One model for one kind of plant, on many sites."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    description: str = ""
    simulated: bool = Field(False, description="Readings come from the plant simulator instead of files.")
    source: Source = Source()
    time: Time | None = None
    site: SiteColumn | None = None
    plant_asset: PlantAsset | None = Field(
        None,
        # Who does not use the word has the digest, and so the names of files, that it had before it.
        exclude_if=lambda given: given is None,
    )
    runs: Runs
    features: tuple[Feature, ...] = Field(min_length=1, max_length=1000)
    label: Label
    windows: Windows = Windows()
    estimator: Estimator = Estimator()
    gates: Gates = Gates()
    retraining: Retraining = Retraining()
    drift: Drift = Drift()
    egress: Egress = Egress()
    returns: Returns = Returns()
    delivery: Delivery = Delivery()
    sites: tuple[Site, ...] = Field(min_length=1, max_length=10_000)
    history: Moment = Field(
        0.5,
        description="For demos with a file: what is history, to train on; the rest reaches the sites later. "
        "A share of each site's rows, or a time.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [feature.name for feature in self.features]
        _no_repeats("feature", names, "features")
        _no_repeats("site", [site.name for site in self.sites], "sites")
        # A name that is another site's value would give one site's readings to the other.
        _no_repeats("site's name in the readings", [site.value or site.name for site in self.sites], "sites")
        names_of = {site.name: place for place, site in enumerate(self.sites)}
        for place, site in enumerate(self.sites):
            if site.value is not None and names_of.get(site.value, place) != place:
                raise _Misfit(f"value {site.value!r} is another site's name", "sites", place, "value")
        taken = {self.label.column, *(self.time.columns if self.time else ())}
        columns = self.runs, self.site, self.plant_asset
        taken |= {part.column for part in columns if part and part.column}
        for place, name in enumerate(names):
            if name in taken:
                said = f"{name!r} is a feature and also the label, a time, site, plant asset or run column"
                raise _Misfit(said, "features", place, "name")
        if self.runs.every and not self.time:
            raise _Misfit("runs.every needs time.columns", "runs", "every")
        unkept = {feature.name for feature in self.features if not feature.keep}
        known = {*names, "_time", "_run", "_score", "_predicted", "_correct", "_note", "_role"}
        known |= {"_asset"} if self.plant_asset else set()
        for place, field in enumerate(self.egress.fields):
            if field.name not in known:
                said = f"egress field {field.name!r} is no feature and none of {sorted(known - set(names))}"
                raise _Misfit(said, "egress", "fields", place, "name")
            if field.name in unkept:
                said = f"{field.name!r} is not kept at the sites, so it cannot leave: keep it, or unlist it"
                raise _Misfit(said, "egress", "fields", place, "name")
            if field.name == "_asset" and field.leaves not in ("as_is", "pseudonymised"):
                said = "'_asset' leaves as_is or pseudonymised: what is told by plant asset has to name it"
                raise _Misfit(said, "egress", "fields", place, "leaves")
            numeric = field.name in {feature.name for feature in self.numbers}
            if field.leaves == "pseudonymised" and (numeric or field.name in NO_PSEUDONYM):
                said = f"{field.name!r} cannot be pseudonymised: nobody could compute with it; round it"
                raise _Misfit(said, "egress", "fields", place, "leaves")
        return self

    def feature(self, name: str) -> Feature:
        """The feature of that name; KeyError when there is none."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)

    def at(self, site: str) -> Site:
        """The site of that name; KeyError when there is none."""
        for each in self.sites:
            if each.name == site:
                return each
        raise KeyError(site)

    def alone(self, site: str) -> UseCase:
        """The use case as one of its sites knows it; KeyError when there is no such site."""
        return self.model_copy(update={"sites": (self.at(site),)})

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


def check_egress(usecase: UseCase, origin: str = "use case") -> None:
    """Refuse a policy that says what it cannot mean, or would let free text out.

    For what is to be released. A release that was made before this was checked is loaded all the same: what
    it should not let out leaves as null.

    Raises:
        UseCaseError: one line a problem.
    """
    numbers = {"_score", *(feature.name for feature in usecase.numbers)}
    problems = []
    for place, field in enumerate(usecase.egress.fields):
        said = None
        if field.name in FREE_TEXT and field.leaves == "as_is" and not field.values:
            said = "is free text: list the `values` that leave as they are, or let it leave pseudonymised"
        elif field.leaves == "rounded" and field.name not in numbers:
            said = "cannot be rounded: it is no number"
        elif field.leaves == "aggregated" and field.name in ("_time", "_run", "_correct", "_note", "_role"):
            said = "cannot be aggregated: nothing that leaves of many rows is made of it"
        if said:
            problems.append(f"{origin}: egress.fields.{place}: {field.name!r} {said}")
    if problems:
        raise UseCaseError("\n".join(problems))


def load(path: Path) -> UseCase:
    """Read and check a use case.

    Raises:
        UseCaseError: the file cannot be read, is no YAML, or breaks the model; the message has one line a
        problem,
            each with file, line, field, value and bound.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UseCaseError(f"{path}: has more than the {MAX_BYTES:,} bytes a use case may have")
        return loads(data.decode("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UseCaseError(f"{path}: cannot be read: {error}") from error


def loads(text: str, origin: str = "use case") -> UseCase:
    """Like `load`, from text; `origin` stands in messages where the file's path would."""
    try:
        node, data = yaml_lines.parse(text)
    except NoYaml as error:
        raise UseCaseError(f"{origin}{f':{error.line}' if error.line else ''}: {error}") from error
    if data is None:
        raise UseCaseError(f"{origin}: is empty, and a use case has at least a name, runs, features, a label")
    if not isinstance(data, dict):
        raise UseCaseError(f"{origin}:1: a use case is a mapping, this is a {type(data).__name__}")
    try:
        return UseCase.model_validate(data)
    except ValidationError as error:
        lines = [f"{origin}:{line_of(node, loc)}: {_field(loc)}: {said}" for loc, said in _problems(error)]
        raise UseCaseError("\n".join(lines)) from error


def dump(usecase: UseCase, path: Path) -> None:
    """Write a use case that `load` reads back equal."""
    path.write_text(dumps(usecase), "utf-8")


def dumps(usecase: UseCase) -> str:
    """A use case as YAML that `loads` reads back equal."""
    return yaml.safe_dump(usecase.model_dump(mode="json"), allow_unicode=True, sort_keys=False)


def _problems(error: ValidationError) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Places and what is wrong there: one problem a place, without those that only follow from another."""
    found: dict[tuple[int | str, ...], list[str]] = {}
    shown: dict[tuple[int | str, ...], str] = {}
    problems = error.errors()
    for problem in problems:
        loc = problem["loc"] + getattr(problem.get("ctx", {}).get("error"), "loc", ())
        if problem["type"] == "too_short" and any(
            other["loc"][: len(loc)] == loc and len(other["loc"]) > len(loc) for other in problems
        ):
            continue  # pydantic leaves out items that are wrong, and then misses them
        if loc[-1:] and loc[-1] in UNION:
            loc = loc[:-1]
        found.setdefault(loc, []).append(problem["msg"].removeprefix("Value error, "))
        shown[loc] = _shown(problem)
    for loc, said in found.items():
        yield loc, " or ".join(said) + shown[loc]


UNION = {"str", "int", "float", "bool"}
"""What pydantic adds to a place that may hold several kinds; no field of ours has such a name."""


def _field(loc: tuple[int | str, ...]) -> str:
    return ".".join(map(str, loc)) or "use case"


def _shown(problem: Any) -> str:
    value = problem["input"]
    if problem["type"] == "missing" or isinstance(value, dict | list):
        return ""
    return f" (it is {value!r})"
