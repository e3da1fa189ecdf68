"""An account whose requests are noted, and cut off after so many: the last is answered, or done unheard."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from edge_ai_assets.resources.storage.account import Account


@dataclass
class Watch:
    """What passed, and what still may."""

    left: float = float("inf")
    """Requests before the cut."""
    answered: bool = True
    """Whether the last one before the cut still gets its answer; without, it was done all the same."""
    seen: list[Any] = field(default_factory=list)
    """Every request that was sent, as the client made it."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def request(self, request: Any) -> None:
        from azure.core.exceptions import ServiceRequestError

        with self.lock:
            if self.left < 1:
                raise ServiceRequestError("the link was cut")
            self.left -= 1
            last = self.left < 1
            self.seen.append(request.http_request)
        request.context["last"] = last

    def response(self, response: Any) -> None:
        from azure.core.exceptions import ServiceResponseError

        if response.context.get("last") and not self.answered:
            raise ServiceResponseError("the link was cut")

    def versions(self) -> set[str]:
        return {request.headers["x-ms-version"] for request in self.seen}


@dataclass(frozen=True)
class Watched(Account):
    """See the module."""

    watch: Watch = field(default_factory=Watch)

    def _options(self) -> dict[str, Any]:
        watch = self.watch
        return {
            **super()._options(),
            "raw_request_hook": watch.request,
            "raw_response_hook": watch.response,
        }


def watched(account: Account, **limits: Any) -> Watched:
    given = {name: getattr(account, name) for name in account.__dataclass_fields__}
    return Watched(**given, watch=Watch(**limits))
