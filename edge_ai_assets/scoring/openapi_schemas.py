"""JSON Schemas of what the service takes and gives, with the inputs of a contract.

Which path takes and gives which of them is `openapi`'s.
"""

from __future__ import annotations

from typing import Any

from edge_ai_assets.scoring.bodies.oip_tensors import NUMBERS, TEXT
from edge_ai_assets.scoring.context import MAX_ASSET, MAX_RUN
from edge_ai_assets.scoring.contract import FLOAT32, Contract, Input
from edge_ai_assets.scoring.openapi_examples import middle
from edge_ai_assets.scoring.requests import MAX_FEEDBACK, MAX_ROWS

Schema = dict[str, Any]

CONTEXT: dict[str, Schema] = {
    "_time": {
        "type": ["string", "null"],
        "format": "date-time",
        "description": "When the row was measured, ISO 8601; without an offset it is UTC.",
    },
    "_run": {
        "type": ["string", "null"],
        "maxLength": MAX_RUN,
        "description": "The run, shift or batch it belongs to.",
    },
    "_row": {
        "type": ["integer", "null"],
        "minimum": 0,
        "maximum": 2**63 - 1,
        "description": "Its place in the run.",
    },
    "_asset": {
        "type": ["string", "null"],
        "maxLength": MAX_ASSET,
        "description": "The plant asset it is of: a pump, an engine.",
    },
}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def schemas(contract: Contract) -> dict[str, Schema]:
    """All schemas by name, for `components`."""
    return {
        "Error": _closed(
            {"error": {"type": "string", "description": "A sentence."}, "request": _TEXT}, "error"
        ),
        **_requests(contract),
        **_answers(),
        **_inference(),
    }


def _requests(contract: Contract) -> dict[str, Schema]:
    inputs = {item.name: _input(item) for item in contract.inputs}
    base = [item.name for item in contract.inputs if item.base == item.name]
    by_column = {
        name: {"type": "array", "items": schema, "minItems": 1, "maxItems": MAX_ROWS}
        for name, schema in inputs.items()
    }
    context = {name: {"type": ["array", "null"], "items": schema} for name, schema in CONTEXT.items()}
    feedback = {
        "id": {
            "type": "string",
            "maxLength": 100,
            "pattern": "^.+/[1-9][0-9]{0,17}$",
            "description": "Of the score, as it was answered.",
        },
        "correct": {"type": "boolean", "description": "Whether the label was right."},
        "note": {"type": ["string", "null"], "maxLength": 500},
        "role": {
            "type": "string",
            "maxLength": 40,
            "description": "Who says so; with tokens it is the name of the token.",
        },
    }
    return {
        "Record": _closed({**inputs, **CONTEXT}, *base)
        | {
            "description": "A value for each input; null: not measured. Ranges hold for it in float32. "
            "Of a name given twice the last value counts."
        },
        "Records": _closed({"records": _list(ref("Record"), MAX_ROWS)}, "records")
        | {"description": "Rows one by one."},
        "Columns": _closed(
            {"columns": _closed(by_column, *base), "context": _closed(context) | _NULLABLE}, "columns"
        )
        | {"description": "Rows by columns, which all have one length: smaller and faster for many rows."},
        "FeedbackItem": _closed(feedback, "id", "correct"),
        "Feedback": _closed({"items": _list(ref("FeedbackItem"), MAX_FEEDBACK)}, "items"),
    }


def _answers() -> dict[str, Schema]:
    head = {
        "release": _TEXT | {"description": "Digest of the release that scored."},
        "scored_at": _TIME,
        "threshold": {
            "type": ["number", "null"],
            "description": "A score at or above it is predicted positive; null if another release scored.",
        },
        "repeated": {"const": True, "description": "Answered before, under the same Idempotency-Key."},
    }
    row = {
        "id": _TEXT | {"description": "SITE/NUMBER."},
        "score": _SCORE,
        "predicted": {"type": "boolean", "description": "Whether the score reaches the threshold."},
        "outside": {"type": "boolean", "description": "Whether training knew no such value."},
    }
    lists = {
        "first": _TEXT | {"description": "Id of the first row; row i has this number plus i."},
        "scores": {"type": "array", "items": _SCORE},
        "predicted": {"type": "array", "items": row["predicted"]},
        "outside": {"type": "array", "items": row["outside"]},
    }
    values = {"type": "object", "additionalProperties": {"type": ["number", "string", "boolean", "null"]}}
    kept = {**row, "scored_at": _TIME, "release": _TEXT, "inputs": values, "context": values}
    described = {
        "name": _TEXT,
        "kind": {"enum": ["number", "category"]},
        "unit": _TEXT,
        "base": _TEXT | {"description": "The feature it is, or is derived from."},
        **{name: {"type": ["number", "null"]} for name in ("low", "high", "trained_low", "trained_high")},
        "categories": {"type": "array", "items": _TEXT},
        "kept": {"type": "boolean", "description": "Whether the site keeps its values."},
    }
    states = ("scored", "uploaded", "withheld", "quarantined", "expired", "pending")
    answered = ("release", "scored_at", "threshold")
    return {
        "ScoredRecords": _closed(
            {**head, "results": {"type": "array", "items": _all(row)}}, *answered, "results"
        ),
        "ScoredColumns": _closed({**head, **lists}, *answered, *lists),
        "Accepted": _all({"accepted": _COUNT}),
        "Contract": _all(
            {
                "release": _TEXT,
                "version": _COUNT,
                "usecase": _TEXT,
                "label": _TEXT,
                "threshold": {"type": "number"},
                "inputs": {"type": "array", "items": _all(described)},
            }
        ),
        "Status": _all(
            {
                "site": _TEXT,
                "release": _TEXT,
                "version": _COUNT,
                "release_since": _TIME,
                "trust": _all(
                    {
                        "state": {
                            "enum": ["none", "current", "due", "stale"],
                            "description": "How long the site may rely on what it has when it hears nothing "
                            "newer: its trust lease. Due: three quarters of it are over.",
                        },
                        "until": {"type": ["string", "null"], "description": "When it ends or ended."},
                        "scoring": {"enum": ["goes on", "stops", None], "description": "What happens then."},
                    }
                ),
                "withdrawn": {
                    "type": ["string", "null"],
                    "description": "That the release was withdrawn, by whom, when and why: the site scores "
                    "on with it until it has another.",
                },
                "uptime_seconds": {"type": "number", "minimum": 0},
                "pid": _COUNT,
                "link": _all({"state": {"enum": ["up", "down"]}, "since": {"type": ["string", "null"]}}),
                "outbox": _all(dict.fromkeys(states, _COUNT)),
            }
        ),
        "Recent": _all({"scores": {"type": "array", "items": _all(kept)}}),
        "Health": _all({"status": {"enum": ["live", "ready"]}}),
    }


def _inference() -> dict[str, Schema]:
    """Of the Open Inference Protocol; what it does not name is passed over."""
    parameters = {"type": ["object", "null"]}
    tensor = {"name": _TEXT, "shape": {"type": "array", "items": _COUNT}, "datatype": _TEXT}
    given = {**tensor, "name": _NAME, "datatype": {"enum": [*NUMBERS, TEXT]}}
    return {
        "InferenceRequest": _open(
            {
                "id": {"type": ["string", "null"]},
                "parameters": parameters,
                "inputs": _list(_open({**given, "parameters": parameters, "data": {}}, *tensor), None),
                "outputs": {
                    "type": ["array", "null"],
                    "items": _open({"name": _NAME, "parameters": parameters}, "name"),
                },
            },
            "inputs",
        ),
        "InferenceResponse": _closed(
            {
                "model_name": _TEXT,
                "model_version": _TEXT,
                "id": _TEXT,
                "outputs": {
                    "type": "array",
                    "items": _closed({**tensor, "data": {"type": "array"}}, *tensor, "data"),
                },
            },
            *("model_name", "model_version", "outputs"),
        ),
        "Server": _all({"name": _TEXT, "version": _TEXT, "extensions": {"type": "array", "items": _TEXT}}),
        "ServerHealth": _all({"live": {"type": "boolean"}, "ready": {"type": "boolean"}}),
        "Model": _all(
            {
                "name": _TEXT,
                "versions": {"type": "array", "items": _TEXT},
                "platform": _TEXT,
                "inputs": {"type": "array", "items": _all(tensor | {"shape": _SHAPE})},
                "outputs": {"type": "array", "items": _all(tensor | {"shape": _SHAPE})},
            }
        ),
        "ModelReady": _all({"name": _TEXT, "ready": {"type": "boolean"}}),
    }


def _input(item: Input) -> Schema:
    """What an input may be. A category that the model does not know is taken, so there is no enum."""
    schema: Schema = {"type": ["string" if item.kind == "category" else "number", "null"]}
    said = [item.unit] if item.unit else []
    if item.kind == "category":
        schema["examples"] = list(item.categories)
        said.append("another category than these is taken for unknown")
    else:
        schema["minimum"] = max(-FLOAT32 if item.low is None else item.low, -FLOAT32)
        schema["maximum"] = min(FLOAT32 if item.high is None else item.high, FLOAT32)
        schema["examples"] = [middle(item)]
        if item.trained_low is not None and item.trained_high is not None:
            said.append(f"trained on {item.trained_low:g} to {item.trained_high:g}")
    if item.base != item.name:
        said.append(f"derived from {item.base}, may be left out")
    return schema | ({"description": "; ".join(said)} if said else {})


def _closed(properties: Schema, *required: str) -> Schema:
    return _open(properties, *required) | {"additionalProperties": False}


def _all(properties: Schema) -> Schema:
    return _closed(properties, *properties)


def _open(properties: Schema, *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list(items: Schema, most: int | None) -> Schema:
    return {"type": "array", "items": items, "minItems": 1} | ({"maxItems": most} if most else {})


_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "minLength": 1}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TIME: Schema = {"type": "string", "format": "date-time"}
_SHAPE: Schema = {"type": "array", "items": {"type": "integer"}}
_NULLABLE: Schema = {"type": ["object", "null"]}
_SCORE: Schema = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
