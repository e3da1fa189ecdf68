"""Values for Dagster metadata that more than one asset shows: tables and pictures."""

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg


def plain(event: dg.EventLogEntry | None) -> dict[str, Any] | None:
    """Metadata of a materialization as bare values; None when there is no materialization."""
    if event is None or event.asset_materialization is None:
        return None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def table(counts: Mapping[str, Any], key: str, value: str) -> dg.TableMetadataValue:
    """A mapping as a table of two columns, largest value first."""
    rows = sorted(counts.items(), key=lambda item: item[1], reverse=True)
    return records([{key: name, value: count} for name, count in rows], [key, value])


def records(rows: Iterable[Mapping[str, Any]], columns: list[str]) -> dg.TableMetadataValue:
    """Rows as a table to be read: floats to four digits. An empty one keeps its columns."""
    kept = [{name: _short(row.get(name)) for name in columns} for row in rows]
    return dg.MetadataValue.table(
        records=[dg.TableRecord(row) for row in kept],
        schema=dg.TableSchema([dg.TableColumn(name, _kind(row[name] for row in kept)) for name in columns]),
    )


def picture(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """A PNG that the UI shows in place."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _kind(values: Iterable[Any]) -> str:
    kinds = {int: "int", float: "float", bool: "bool"}
    return next((kinds.get(type(value), "string") for value in values if value is not None), "string")
