"""Operations for the document of the service: how one is written down, and which errors each may answer.

Which operations there are is `openapi`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_ai_assets.scoring.openapi_schemas import ref

Part = dict[str, Any]

JSON, CSV, TEXT, HTML = "application/json", "text/csv", "text/plain", "text/html"
ARROW, BINARY = "application/vnd.apache.arrow.stream", "application/octet-stream"
ROLES = ("score", "feedback", "operate")
ERRORS = {
    400: ("BadRequest", "The request or its body is not what its kind must be: broken HTTP, JSON or CSV."),
    401: ("Unauthorized", "There is no token, or it is not valid."),
    403: ("Forbidden", "The token has not the role that is needed, or another site's page asks."),
    404: ("NotFound", "What is named is not there."),
    408: ("RequestTimeout", "The request did not come in time."),
    410: ("Gone", "The scores of this Idempotency-Key are no longer kept."),
    413: ("ContentTooLarge", "The body has too many bytes or rows; send several requests."),
    415: ("UnsupportedMediaType", "The kind of the body, or its Content-Encoding, is not taken."),
    417: ("ExpectationFailed", "Expect is something else than 100-continue."),
    421: ("Misdirected", "The service serves this machine only, and Host names another one."),
    422: ("UnprocessableContent", "A value is refused; row, field and bound are named."),
    429: ("TooManyRequests", "Too much is waiting; nothing was written."),
    431: ("HeadersTooLarge", "The head of the request is too large."),
    500: ("InternalError", "An error of the service; it is in the log under the same request id."),
    501: ("NotImplemented", "Transfer-Encoding is something else than chunked."),
    503: (
        "Unavailable",
        "The service cannot write now, is at its quota, past its trust lease, or has too many connections; "
        "nothing was written.",
    ),
    507: ("InsufficientStorage", "The disk is full; nothing was written."),
}
ALWAYS = (400, 408, 413, 417, 431, 500, 501, 503)
"""Whatever is asked for: the server itself may refuse a request."""
WRITES = (415, 422, 429, 507)
RETRY = (429, 503)


def header(name: str, description: str, schema: Part) -> Part:
    """A header that a request may have."""
    return {"name": name, "in": "header", "description": description, "schema": schema}


ENCODING = header(
    "Content-Encoding",
    "gzip, deflate or identity, if the body is compressed.",
    {"type": "string", "pattern": "^(gzip|x-gzip|deflate|identity)?$"},
)
_UNCHANGED = header("If-None-Match", "ETag of what the client has.", {"type": "string"})


class Operations:
    """Makes the operations of a service with tokens, or of one without."""

    def __init__(self, tokens: bool) -> None:
        self._tokens = tokens

    def read(
        self,
        tag: str,
        identity: str,
        summary: str,
        schema: str,
        *,
        description: str = "",
        parameters: Sequence[Part] = (),
        errors: Sequence[int] = (),
        public: bool = False,
    ) -> Part:
        """A path that gives JSON: to any role, if public to everybody."""
        gives = {JSON: {"schema": ref(schema)}}
        roles = () if public else ROLES
        found = self.get(
            tag, identity, summary, gives=gives, roles=roles, parameters=parameters, errors=errors
        )
        if description:
            found["get"]["description"] = description
        return found

    def get(
        self,
        tag: str,
        identity: str,
        summary: str,
        *,
        gives: Part,
        roles: Sequence[str] = (),
        parameters: Sequence[Part] = (),
        errors: Sequence[int] = (),
        cached: bool = False,
    ) -> Part:
        """A path that is only read. `roles` are those of which a caller needs one, none means everybody."""
        found = self._operation(tag, identity, summary, gives, roles, errors)
        if cached:
            found["responses"]["304"] = {"description": "Not changed.", "headers": _headers()}
        taken = [*parameters, _UNCHANGED] if cached else list(parameters)
        return {"get": found | ({"parameters": taken} if taken else {})}

    def post(
        self,
        tag: str,
        identity: str,
        summary: str,
        *,
        description: str,
        takes: Part,
        gives: Part,
        role: str,
        parameters: Sequence[Part],
        errors: Sequence[int],
    ) -> Part:
        """A path that takes a body, from callers of one role."""
        found = self._operation(tag, identity, summary, gives, (role,), errors)
        found["description"] = description
        found["parameters"] = list(parameters)
        found["requestBody"] = {"required": True, "content": takes}
        return {"post": found}

    def _operation(
        self,
        tag: str,
        identity: str,
        summary: str,
        gives: Part,
        roles: Sequence[str],
        errors: Sequence[int],
    ) -> Part:
        limited = self._tokens and bool(roles)
        responses: Part = {"200": {"description": "Done.", "headers": _headers(), "content": gives}}
        guards = (*((403, 421) if roles else ()), *((401,) if limited else ()))
        for status in sorted({*ALWAYS, *errors, *guards}):
            responses[str(status)] = {"$ref": f"#/components/responses/{ERRORS[status][0]}"}
        found: Part = {"tags": [tag], "operationId": identity, "summary": summary, "responses": responses}
        # One of several requirements is enough: a caller needs one of the roles.
        return found | ({"security": [{"token": [role]} for role in roles]} if limited else {})


def components(tokens: bool) -> Part:
    """What operations refer to, without the schemas."""
    found: Part = {
        "headers": {
            "RequestId": {
                "description": "Names the request in the service's log.",
                "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"},
            },
            "RetryAfter": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
            "Challenge": {"description": "How to authenticate.", "schema": {"type": "string"}},
        },
        "responses": {
            name: {
                "description": said,
                "headers": _headers(status),
                "content": {JSON: {"schema": ref("Error")}},
            }
            for status, (name, said) in ERRORS.items()
        },
    }
    if tokens:
        description = "A token that `edge-ai tokens add` made: Authorization: Bearer TOKEN."
        found["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "description": description}}
    return found


def _headers(status: int = 200) -> Part:
    names = {"x-request-id": "RequestId"}
    names |= {"retry-after": "RetryAfter"} if status in RETRY else {}
    names |= {"www-authenticate": "Challenge"} if status == 401 else {}
    return {name: {"$ref": f"#/components/headers/{of}"} for name, of in names.items()}
