"""Talking to a scoring service from Python: the site's Dagster location uses it, the service does not.

Blocking. Threads may share a `Client`: each request takes a connection of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 5
TIMEOUT_SECONDS = 60.0
RETRY_SECONDS = 0.2
RETRY_LIMIT_SECONDS = 10.0


class ServiceError(RuntimeError):
    """The service refused, failed, or cannot be reached; `status` is the answer's, None if there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ScoreAnswer(msgspec.Struct, frozen=True):
    """What the service answered to columns of n rows."""

    release: str
    scored_at: str
    threshold: float | None
    """None when another release than the current one scored them, at the first use of the key."""
    first: str
    """Id of the first row, SITE/SEQUENCE; the others follow without a gap."""
    scores: list[float]
    predicted: list[bool]
    outside: list[bool]
    """Which rows hold a value outside the range that was trained on."""
    repeated: bool = False
    """The key was used before: this is what was scored then."""

    @property
    def ids(self) -> list[str]:
        """The id of each row."""
        site, _, first = self.first.rpartition("/")
        return [f"{site}/{int(first) + row}" for row in range(len(self.scores))]


class Client:
    """A client of one service; a context manager.

    Args:
        url: where it serves, such as `http://127.0.0.1:8000`.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        import httpx

        # trust_env off: a proxy from the environment must not see what is meant for this machine.
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False)
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def score(
        self,
        columns: Mapping[str, Sequence[Any]],
        context: Mapping[str, Sequence[Any]] | None = None,
        *,
        key: str | None,
    ) -> ScoreAnswer:
        """Score rows given by columns.

        Args:
            columns: for each input n values; None or NaN where missing.
            context: `_time`, `_run`, `_row` and `_asset`, n values each; times as text or anything with
                `isoformat`.
            key: idempotency key. With one, a lost connection is tried again: nothing is scored twice.

        Raises:
            ServiceError: see there; a refusal names row, field and bound.
            ValueError: a value is infinite, which JSON cannot say.
        """
        body = {
            "columns": {name: _plain(name, values) for name, values in columns.items()},
            "context": {name: _plain(name, values) for name, values in (context or {}).items()},
        }
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = self._request("POST", "/v1/score", msgspec.json.encode(body), headers)
        return msgspec.json.decode(answer, type=ScoreAnswer)

    def score_table(self, table: bytes, *, key: str) -> ScoreAnswer:
        """Score the rows of an Arrow IPC stream, context columns beside the inputs; else as `score`."""
        headers = {"Idempotency-Key": key, "Content-Type": "application/vnd.apache.arrow.stream"}
        return msgspec.json.decode(self._request("POST", "/v1/score", table, headers), type=ScoreAnswer)

    def feedback(self, items: Iterable[Mapping[str, Any]]) -> int:
        """Send feedback, each with `id`, `correct` and perhaps `note` and `role`; how many were accepted."""
        answer = self._request(
            "POST", "/v1/feedback", msgspec.json.encode({"items": [dict(item) for item in items]}), {}
        )
        return int(msgspec.json.decode(answer)["accepted"])

    def contract(self) -> dict[str, Any]:
        """What the model takes: inputs with kind, unit and ranges, the threshold, the release."""
        return dict(msgspec.json.decode(self._request("GET", "/v1/contract")))

    def status(self) -> dict[str, Any]:
        """Site, release, version, uptime, process id and the outbox's counts."""
        return dict(msgspec.json.decode(self._request("GET", "/v1/status")))

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        import httpx

        headers = ({"Content-Type": "application/json"} if body is not None else {}) | dict(headers or {})
        repeatable = method == "GET" or "Idempotency-Key" in headers
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = self._http.request(method, path, content=body, headers=headers)
            except httpx.TransportError as error:
                # A connection that was never made carried nothing, so it may always be tried again.
                if attempt == ATTEMPTS or not (repeatable or isinstance(error, httpx.ConnectError)):
                    raise ServiceError(
                        f"{method} {self._url}{path}: no answer: {error or type(error).__name__}"
                    ) from error
                time.sleep(RETRY_SECONDS * attempt)
                continue
            if response.status_code in (429, 503) and attempt < ATTEMPTS:
                time.sleep(_retry_after(response))  # refused before anything was written
                continue
            if response.status_code != 200:
                message = f"{method} {self._url}{path}: {response.status_code}: {_error(response)}"
                raise ServiceError(message, response.status_code)
            return response.content
        raise AssertionError("every last attempt returns or raises")


def _plain(name: str, values: Sequence[Any]) -> list[Any]:
    """Values as JSON knows them; not-a-number, also a time's, is None."""
    values = values.tolist() if hasattr(values, "tolist") else values
    result: list[Any] = []
    for row, value in enumerate(values):
        if isinstance(value, float) and math.isinf(value):
            raise ValueError(
                f"row {row}: {name!r} is infinite, which cannot be sent; give None if it is missing"
            )
        if value is None or value != value:  # NaN and NaT are the values that differ from themselves
            result.append(None)
        else:
            result.append(value.isoformat() if hasattr(value, "isoformat") else value)
    return result


def _retry_after(response: httpx.Response) -> float:
    try:
        return min(float(response.headers.get("retry-after", RETRY_SECONDS)), RETRY_LIMIT_SECONDS)
    except ValueError:
        return RETRY_SECONDS


def _error(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
