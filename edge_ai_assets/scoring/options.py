"""On which address a site's service is offered to other machines, and what guards it.

The command line says it, or `service.toml` in the site's folder, which the site's supervisor reads. Standard
library only.
"""

from __future__ import annotations

import ipaddress
import socket
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

FILE = "service.toml"
BACKLOG = 4096
BOUNDS = {"port": (0, 65_535), "workers": (1, 64)}


class OptionsError(ValueError):
    """A setting that cannot be used; the message names it and says what would do."""


@dataclass(frozen=True)
class Exposed:
    """An address and its guards. Paths in `service.toml` may be relative to the site's folder."""

    host: str = "127.0.0.1"
    port: int = 0
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tokens: Path | None = None
    behind_proxy: bool = False
    """A proxy before the service does TLS and asks who comes."""
    workers: int = 1

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def check(self) -> None:
        """Refuse what would let strangers in, or what they say be read.

        Raises:
            OptionsError: one of certificate and key is missing; or another address than loopback without TLS
                and tokens, and no proxy.
        """
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise OptionsError("tls_certificate and tls_key go together, one of them is missing")
        if self.loopback or self.behind_proxy or (self.tls_certificate and self.tokens):
            return
        raise OptionsError(
            f"host {self.host!r} is refused: on another address than loopback the service needs a "
            "certificate and a key (tls_certificate, tls_key) and tokens, or behind_proxy if a proxy sees "
            "to both"
        )

    def arguments(self) -> list[str]:
        """The same for `serve`, but for the address: the supervisor has bound it."""
        given = {
            "--host": self.host,
            "--tls-certificate": self.tls_certificate,
            "--tls-key": self.tls_key,
            "--tokens": self.tokens,
        }
        flags = [text for name, value in given.items() if value is not None for text in (name, str(value))]
        return flags + ["--behind-proxy"] * self.behind_proxy


def listen(exposed: Exposed) -> socket.socket:
    """A socket that is bound and listens; several processes may accept from it."""
    family = socket.AF_INET6 if ":" in exposed.host else socket.AF_INET
    return socket.create_server((exposed.host, exposed.port), family=family, backlog=BACKLOG)


def read(folder: Path) -> Exposed | None:
    """What the site's `service.toml` says; None if there is none.

    Raises:
        OptionsError: it is no TOML, or a setting is unknown or has another type; the message names it.
    """
    path = folder / FILE
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionsError(f"{path} is no TOML: {error}") from error
    known = {field.name: field.type for field in fields(Exposed)}
    if unknown := sorted(found.keys() - known.keys()):
        raise OptionsError(f"{path}: {unknown[0]!r} is not known, only {', '.join(known)}")
    exposed = replace(Exposed(), **{name: _typed(path, name, value) for name, value in found.items()})
    exposed.check()
    return exposed


def _typed(path: Path, name: str, value: Any) -> Any:
    default = getattr(Exposed(), name)
    kind: Any = str if default is None else type(default)
    low, high = BOUNDS.get(name, (0, 0))
    if type(value) is not kind or (kind is int and not low <= value <= high):
        wanted = {str: "text", bool: "true or false", int: f"a whole number from {low} to {high}"}[kind]
        raise OptionsError(f"{path}: {name} must be {wanted}, it is {value!r}")
    return path.parent / value if default is None else value
