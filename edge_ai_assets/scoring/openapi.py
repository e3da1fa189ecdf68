"""What can be asked of the service and what it answers, as OpenAPI 3.1: the body of GET /openapi.json.

Which paths there are, what they take and give. A test calls the service as the document says, and looks for
answers that it does not name. How an operation is written down is in `openapi_operations`, schemas are in
`openapi_schemas`, how the document is shown in `docs_page`.
"""

from __future__ import annotations

from urllib.parse import quote

from edge_ai_assets.scoring.contract import Contract, Input
from edge_ai_assets.scoring.openapi_examples import columns, csv_text, record, tensors
from edge_ai_assets.scoring.openapi_operations import (
    ARROW,
    BINARY,
    CSV,
    ENCODING,
    HTML,
    JSON,
    ROLES,
    TEXT,
    WRITES,
    Operations,
    Part,
    components,
    header,
)
from edge_ai_assets.scoring.openapi_schemas import ref, schemas

ABOUT = """Scores rows with the release that this site runs. Every score is on disk before it is answered, and
has an id by which it can be said later whether it was right.

An error is `{"error": "…"}`, a sentence that names row, field and bound. Every answer has an `x-request-id`;
a request may bring its own. For an answer of 500 or above the service's log has a line with it.

HEAD works wherever GET does; a method that is not listed is answered 405."""
READY = (
    "503 while the outbox cannot be written. At the quota, or past a trust lease that stops scoring, it is "
    "200: rows are then refused on purpose, and the page, the status and feedback must stay within reach."
)
OUTLINE = """MODEL, INPUT, LABEL, DIGEST and the version 1 stand for those of this site: with a token, \
`/openapi.json` has them, and examples that score."""
_ANY = Contract("MODEL", (Input("INPUT", "number", "", "INPUT"),), 0.5, "LABEL")
TAGS = {
    "scores": "Rows in, scores out.",
    "state": "How the site stands.",
    "inference": "The Open Inference Protocol, version 2, over REST.",
    "pages": "For people.",
}

KEY = header(
    "Idempotency-Key",
    "Names this request: sent again under the same key it is answered again, and not scored again.",
    {"type": "string", "pattern": "^[!-~]([ -~]{0,198}[!-~])?$"},
)


def document(contract: Contract, *, release: str, version: int, tokens: bool) -> Part:
    """The document of a service that runs one release.

    Args:
        contract: of the release; its inputs, units and ranges are in the document.
        release: digest of the release; version: its number.
        tokens: whether a caller needs one.
    """
    make = Operations(tokens)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": f"Scoring: {contract.usecase}",
            "version": str(version),
            "summary": f"Predicts {contract.label!r}; release {version}, {release}",
            "description": ABOUT,
        },
        "tags": [{"name": name, "description": said} for name, said in TAGS.items()],
        "paths": {
            **_scores(make, contract),
            **_state(make),
            **_inference(make, contract, version),
            **_pages(make),
        },
        "components": components(tokens) | {"schemas": schemas(contract)},
    }


def outline() -> Part:
    """The document of any release, for those who may not read what this one takes."""
    found = document(_ANY, release="DIGEST", version=1, tokens=True)
    found["info"]["description"] = f"{OUTLINE}\n\n{ABOUT}"
    return found


def _scores(make: Operations, contract: Contract) -> Part:
    row = record(contract)
    rows: Part = {
        JSON: {
            "schema": {"oneOf": [ref("Records"), ref("Columns")]},
            "examples": {
                "records": {"summary": "Rows one by one", "value": {"records": [row]}},
                "columns": {"summary": "Rows by columns", "value": {"columns": columns(contract, 2)}},
            },
        },
        CSV: {
            "schema": {"type": "string", "description": "UTF-8; the first line names the columns."},
            "example": csv_text(row),
        },
        ARROW: {"schema": {"contentMediaType": ARROW}},
    }
    scored: Part = {
        JSON: {"schema": {"oneOf": [ref("ScoredRecords"), ref("ScoredColumns")]}},
        CSV: {"schema": {"type": "string", "description": "To CSV, if Accept asks for text/csv."}},
    }
    said = {"id": "SITE/1", "correct": False, "note": "sensor fault", "role": "operator"}
    feedback: Part = {
        JSON: {"schema": ref("Feedback"), "example": {"items": [said]}},
        CSV: {
            "schema": {"type": "string", "description": "The columns are id, correct, note and role."},
            "example": csv_text(said | {"correct": "false"}),
        },
    }
    return {
        "/v1/score": make.post(
            *("scores", "score", "Score rows"),
            description="To records in JSON the answer is by records, to all other kinds by columns.",
            takes=rows,
            gives=scored,
            role="score",
            parameters=[KEY, ENCODING],
            errors=(410, *WRITES),
        ),
        "/v1/feedback": make.post(
            *("scores", "feedback", "Say whether scores were right"),
            description="All items are written, or none. A score that is not there is answered 404. The last "
            "word on a score counts, so a request may be sent again.",
            takes=feedback,
            gives={JSON: {"schema": ref("Accepted")}},
            role="feedback",
            parameters=[ENCODING],
            errors=(404, *WRITES),
        ),
    }


def _state(make: Operations) -> Part:
    limit = {
        "name": "limit",
        "in": "query",
        "description": "How many.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 200},
    }
    metrics = {TEXT: {"schema": {"type": "string", "description": "Prometheus' text format, 0.0.4."}}}
    return {
        "/v1/contract": make.read("state", "contract", "What a row must be", "Contract"),
        "/v1/status": make.read("state", "status", "How the site stands", "Status"),
        "/v1/recent": make.read(
            *("state", "recent", "The newest scores, newest first", "Recent"),
            parameters=[limit],
            errors=(422,),
        ),
        "/metrics": make.get(
            *("state", "metrics", "Counters of all workers, for Prometheus"),
            gives=metrics,
            roles=("operate",),
        ),
        "/health/live": make.read("state", "live", "Whether the service runs", "Health", public=True),
        "/health/ready": make.read(
            "state", "ready", "Whether requests should come here", "Health", description=READY, public=True
        ),
    }


def _inference(make: Operations, contract: Contract, version: int) -> Part:
    tag = "inference"
    paths = {
        "/v2": make.read(tag, "server", "Name and extensions of the server", "Server"),
        "/v2/health/live": make.read(tag, "serverLive", "Whether it runs", "ServerHealth", public=True),
        "/v2/health/ready": make.read(
            tag, "serverReady", "As /health/ready", "ServerHealth", description=READY, public=True
        ),
    }
    model = f"/v2/models/{quote(contract.usecase, safe='')}"
    for path, of, name in (
        (model, "Model", "the model"),
        (f"{model}/versions/{version}", "Version", "this version"),
    ):
        paths[path] = make.read(tag, f"describe{of}", f"Inputs and outputs of {name}", "Model")
        paths[f"{path}/ready"] = make.read(
            tag, f"ready{of}", f"Whether {name} is served", "ModelReady", description=READY, public=True
        )
        paths[f"{path}/infer"] = _infer(make, contract, f"infer{of}", name)
    return paths


def _infer(make: Operations, contract: Contract, identity: str, name: str) -> Part:
    binary: Part = {BINARY: {"schema": {"contentMediaType": BINARY}}}
    length = header(
        "Inference-Header-Content-Length",
        "Bytes of JSON, if binary tensors follow it.",
        {"type": "integer", "minimum": 0},
    )
    example = {"inputs": tensors(contract)}
    return make.post(
        *("inference", identity, f"Score rows with {name}"),
        description="One tensor for each input, of shape [n]: numbers in any numeric datatype, categories in "
        "BYTES. The answer is binary where binary_data_output or binary_data asks for it.",
        takes={JSON: {"schema": ref("InferenceRequest"), "example": example}} | binary,
        gives={JSON: {"schema": ref("InferenceResponse")}} | binary,
        role="score",
        parameters=[length, KEY, ENCODING],
        errors=(410, *WRITES),
    )


def _pages(make: Operations) -> Part:
    page: Part = {HTML: {"schema": {"type": "string"}}}
    return {
        "/": make.get("pages", "page", "The page for users", gives=page, cached=True),
        "/docs": make.get("pages", "docs", "This document, to read", gives=page, cached=True),
        "/openapi.json": make.get(
            "pages", "openapi", "This document", gives={JSON: {"schema": {"type": "object"}}}, roles=ROLES
        ),
    }
