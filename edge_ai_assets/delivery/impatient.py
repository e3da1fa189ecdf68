"""Requests that end: each after a while, and what nobody here reads after so many bytes."""

from __future__ import annotations

import io
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

MAX_SHORT = 1 << 20
"""Bytes that are read of an answer which `requests` or `oras` reads by itself, as far as it goes: a token, or
what stands beside the address that we are sent on to."""


class Impatient(HTTPAdapter):
    """Ends every request of a session, those of `oras` for a token too.

    Args:
        seconds: before there is a connection, and before an answer goes on.
    """

    def __init__(self, seconds: tuple[float, float]) -> None:
        super().__init__()
        self._seconds = seconds
        self.status = 0
        """Of the last answer."""

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        answer = super().send(request, *arguments, **{**options, "timeout": self._seconds})
        self.status = answer.status_code
        if answer.is_redirect or not options.get("stream"):
            try:
                begin = answer.raw.read(MAX_SHORT, decode_content=True)
            except HTTPError as error:
                raise requests.ConnectionError(error) from error
            answer.close()
            answer.raw = io.BytesIO(begin)
        return answer
