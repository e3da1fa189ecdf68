"""The columns of the gold tables: a star of facts and dimensions for Power BI.

What a column means stands here once, and docs/powerbi.md shows the same. How tables are made is `gold`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edge_ai_assets.returns.inbox import daily

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "gold"
FACT_INSIGHTS = daily.NAME
FACT_FEEDBACK, FACT_DRIFT, DIM_SITE, DIM_RELEASE, DIM_DAY = (
    f"{FOLDER}/{name}" for name in ("fact_feedback", "fact_drift", "dim_site", "dim_release", "dim_day")
)


class Column(NamedTuple):
    """A column of a gold table: its name, its type in Arrow's words, and what stands there."""

    name: str
    kind: str
    meaning: str


SITE = Column("site", "string", "the site; relates to dim_site")
DAY = Column("day", "date32[day]", "UTC day of the score; relates to dim_day")
RELEASE = Column("release", "string", "image digest of the release that scored; relates to dim_release")
ASSET = Column(
    "asset",
    "string",
    "the plant asset, if the use case names such; empty of scores that are not told by it",
)
STAR: dict[str, tuple[Column, ...]] = {
    FACT_INSIGHTS: (
        DAY,
        SITE,
        RELEASE,
        ASSET,
        Column("insights", "int64", "insights of the day that came home"),
        Column("anomalies", "int64", "of these, anomalies"),
        Column("mean_score", "double", "mean score of these insights; empty when none came"),
        Column("scored", "int64", "scores made at the site, by its aggregates; empty when it lets none out"),
        Column(
            "anomalies_share", "double", "share of anomalies in these, from 0 to 1; empty when it keeps them"
        ),
    ),
    FACT_FEEDBACK: (
        SITE,
        Column("sequence", "int64", "the site's number of the score; with the site, the key"),
        Column("day", "date32[day]", "UTC day when the last word on it was given; relates to dim_day"),
        Column("given_at", "timestamp[us, tz=UTC]", "when that was"),
        RELEASE,
        Column("predicted", "bool", "whether the model called it a fault"),
        Column("correct", "bool", "whether it was one, by the last word of a person there"),
        Column("true_positive", "int64", "1 for a fault that was called one, else 0"),
        Column("false_positive", "int64", "1 for a false alarm, else 0"),
        Column("false_negative", "int64", "1 for a fault that was missed, else 0"),
        Column("true_negative", "int64", "1 for no fault and none called, else 0"),
    ),
    FACT_DRIFT: (
        Column("day", "date32[day]", "UTC day of the last look of that day; relates to dim_day"),
        SITE,
        Column("release", "string", "image digest of the release looked at; relates to dim_release"),
        Column("feature", "string", "the feature"),
        Column("index", "double", "population stability index against the training data"),
        Column("threshold", "double", "from which on the feature counts as moved"),
        Column("moved", "int64", "1 if the index is above the threshold, else 0"),
        Column("rows", "int64", "rows of the site's recent readings that were looked at"),
    ),
    DIM_SITE: (
        Column("site", "string", "the site; the key"),
        Column("ring", "string", "its ring in a rollout; empty for a site that is in no use case"),
        Column("complete", "bool", "whether nothing is known to be missing"),
        Column("complete_through", "int64", "what became of each score up to this one is known"),
        Column("scores_waiting", "int64", "scores still at the site when it last sent"),
        Column("packages", "int64", "return packages that came, without a gap"),
        Column("heard_at", "timestamp[us, tz=UTC]", "when the last one came; empty before the first"),
        Column("completeness", "string", "all of this in a sentence"),
    ),
    DIM_RELEASE: (
        Column("release", "string", "image digest; the key"),
        Column("version", "int64", "the release's number; empty when it is not in the registry"),
        Column("name", "string", "as in a legend: release 7"),
        Column("created", "timestamp[us, tz=UTC]", "when it was made"),
        Column("training_run", "string", "Dagster run that trained its model"),
        Column("training_set", "string", "version of the training set"),
        Column("cv_f1", "double", "F1 of the model in cross-validation"),
        Column("cv_false_alarm_rate", "double", "its false alarm rate there"),
    ),
    DIM_DAY: (
        Column("day", "date32[day]", "the day; the key, without a gap over whole years"),
        Column("year", "int64", "calendar year"),
        Column("quarter", "int64", "1 to 4"),
        Column("month", "int64", "1 to 12"),
        Column("year_month", "string", "2026-03"),
        Column("iso_year", "int64", "year of the ISO week"),
        Column("iso_week", "int64", "ISO week, 1 to 53"),
        Column("weekday", "int64", "1 for Monday to 7 for Sunday"),
    ),
}
"""Every table, with its columns in their order."""


def schema(name: str) -> pa.Schema:
    """The columns of a gold table."""
    import pyarrow as pa

    kinds = {"timestamp[us, tz=UTC]": pa.timestamp("us", "UTC"), "date32[day]": pa.date32()}
    return pa.schema(
        [
            pa.field(column.name, kinds.get(column.kind) or pa.type_for_alias(column.kind))
            for column in STAR[name]
        ]
    )
