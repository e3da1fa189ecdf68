"""Which requests are let in, and what an error is answered with. What they lead to is `app`'s."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from edge_ai_assets.returns.outbox.outbox import OutboxFull
from edge_ai_assets.scoring.contract import ContractError
from edge_ai_assets.scoring.messages import Request, Response, error, failed
from edge_ai_assets.scoring.model import ModelError
from edge_ai_assets.scoring.options import Exposed
from edge_ai_assets.scoring.refused import Refused
from edge_ai_assets.scoring.scorer import QueueFull
from edge_ai_assets.scoring.writer import Busy, DiskFull, Failed

if TYPE_CHECKING:
    from edge_ai_assets.scoring.tokens import Tokens

Handler = Callable[[Request], Response | Coroutine[Any, Any, Response] | None]
"""Answers at once, by a coroutine, or (None) by itself later."""

_OF_OTHERS = (b"cross-site", b"same-site")
"""What a browser says of a request that another site's page makes (Fetch Metadata, section 2.1)."""
_CHALLENGE = (b"www-authenticate", b"Bearer")


class Route(NamedTuple):
    """What one path and method lead to."""

    handle: Handler
    name: str
    """In metrics."""
    roles: frozenset[str] = frozenset()
    """A caller needs one of them, if tokens are asked for; empty for everybody."""
    kinds: frozenset[bytes] = frozenset()
    """Content types that are taken, without parameters; empty for any."""


def admit(routes: Mapping[str, Mapping[str, Route]], request: Request) -> Response | None:
    """Find the route of a request and its caller; the answer to one that is not let in."""
    methods = routes.get(request.path)
    if methods is None:
        return error(404, f"there is nothing at {request.path[:200]!r}")
    route = methods.get(request.method)
    if route is None:
        allow = ", ".join(methods)
        return error(405, f"{request.method} is not possible here, only {allow}", (b"allow", allow.encode()))
    if route.roles and (refusal := _elsewhere(request) or stranger(request, route.roles)) is not None:
        return refusal
    if route.kinds and request.kind not in route.kinds:
        taken = ", ".join(sorted(known.decode() for known in route.kinds if known))
        return error(415, f"a body of {request.kind.decode('latin-1')[:100]!r} is not taken, only {taken}")
    request.route = route
    return None


def _elsewhere(request: Request) -> Response | None:
    if request.headers.get(b"sec-fetch-site") in _OF_OTHERS:
        return error(403, "a page of another site may not ask in its reader's name")
    return None


def stranger(request: Request, roles: frozenset[str]) -> Response | None:
    """Why who asks may not have what is for callers of some roles; None, and the caller, if they may."""
    tokens: Tokens | None = request.tokens
    if tokens is None:
        if request.local and not _is_local(request.headers.get(b"host", b"localhost")):
            return error(421, "this address serves requests to localhost only")
        return None
    caller = tokens.caller(request.headers.get(b"authorization"))
    if caller is None:
        return error(401, "a valid token is needed: Authorization: Bearer TOKEN", _CHALLENGE)
    if not roles & caller.roles:
        needed = " or ".join(sorted(roles))
        return error(403, f"the token of {caller.name!r} has not the role {needed}")
    request.caller = caller
    return None


def failure(request: Request, problem: Exception) -> Response:
    """The answer that an exception becomes."""
    if isinstance(problem, Refused):
        return error(problem.status, str(problem))
    if isinstance(problem, (ContractError, ModelError)):
        return error(422, str(problem))
    if isinstance(problem, QueueFull):
        return error(429, str(problem), (b"retry-after", b"1"))
    if isinstance(problem, OutboxFull):
        return error(503, str(problem), (b"retry-after", b"60"))
    if isinstance(problem, (Busy, Failed)):
        return error(503, str(problem), (b"retry-after", b"1"))
    if isinstance(problem, DiskFull):
        return error(507, str(problem))
    return failed(request, problem)


@lru_cache(256)
def _is_local(host: bytes) -> bool:
    """Whether a Host header names this machine: a name of elsewhere that leads here is DNS rebinding."""
    name = host.decode("latin-1")
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    return Exposed(name).loopback
