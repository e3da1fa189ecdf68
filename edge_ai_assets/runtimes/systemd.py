"""A site on one machine with systemd: its units, as text, and where they go.

The scoring service runs under `scoring.supervisor`, so `process` is its runtime here, too; beside it run the
site's own Dagster daemon and its web server. They share a user and a home, and reach nothing they need not.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from edge_ai_assets.delivery import durable

UNITS = Path("etc/systemd/system")
TARGET = "edge-ai.target"
SCORING, DAEMON, WEB = "edge-ai-scoring.service", "edge-ai-dagster.service", "edge-ai-web.service"
USERS = Path("etc/sysusers.d/edge-ai.conf")
_SITE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_PLAIN = re.compile(r"/[A-Za-z0-9._/+-]*")
"""Paths that need no quotes in a unit: no blanks, no '%', no '$'."""

HARDENED = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
KeyringMode=private
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=setrlimit prlimit64 sched_setaffinity sched_setscheduler
SystemCallErrorNumber=EPERM
UMask=0027
"""


@dataclass(frozen=True)
class Machine:
    """A machine that is a site.

    Raises:
        ValueError: a name, path or network that no unit can have; the message names it.
    """

    site: str
    python: Path
    """The virtual environment's, in which `edge_ai_assets[stack-hub]` is installed."""
    workspace: Path
    """Dagster's workspace file of a site: deploy/stack_hub/workspace.yaml."""
    home: Path = Path("/var/lib/edge-ai")
    """EDGE_AI_HOME of the site; below /var/lib."""
    user: str = "edge-ai"
    offline: bool = True
    """Nothing connects to other machines. With a link the site's Dagster may, its scoring never."""
    clients: tuple[str, ...] = ()
    """Networks that may ask for scores, such as 10.1.0.0/16; only this machine if none. On which address, and
    what guards it, says service.toml."""
    port: int = 3000
    """Of Dagster's web UI, on loopback: it has no login."""

    def __post_init__(self) -> None:
        if not _SITE.fullmatch(self.site):
            raise ValueError(f"site {self.site!r} is no name of a site: a-z, 0-9 and '-', at most 63")
        if not _USER.fullmatch(self.user) or self.user == "root":
            raise ValueError(f"user {self.user!r} is refused: a user of its own, such as 'edge-ai'")
        for name, path in (("python", self.python), ("workspace", self.workspace), ("home", self.home)):
            if not _PLAIN.fullmatch(str(path)):
                raise ValueError(
                    f"{name} is {str(path)!r}: it must be absolute, of letters, digits and ._/+-"
                )
        if self.home.parent != Path("/var/lib"):
            raise ValueError(
                f"home is {self.home}: systemd keeps the state of services in a folder of /var/lib"
            )
        for client in self.clients:
            ip_network(client)
        if not 1024 <= self.port < 65_536:
            raise ValueError(f"port is {self.port}, it must be from 1024 to 65535")


def render(machine: Machine) -> dict[Path, str]:
    """Files, by their path below `/`."""
    near = ["localhost", *machine.clients]
    far = None if not machine.offline else ["localhost"]
    dagster = f"{machine.python} -P -m"
    # Its daemon says at level info what each sensor finds, every few seconds.
    daemon = f"{dagster} dagster._daemon run --log-level warning -w {machine.workspace}"
    web = f"{dagster} dagster_webserver -w {machine.workspace} -h 127.0.0.1 -p {machine.port}"
    scoring = f"{machine.python} -P -m edge_ai_assets.scoring.supervisor"
    scoring += f" --folder {machine.home}/sites/{machine.site} --site {machine.site} --wait"
    services = {
        SCORING: _service(
            machine, f"Scoring at {machine.site}", "Before=edge-ai-dagster.service\n", scoring, _SCORING, near
        ),
        DAEMON: _service(
            machine,
            f"Dagster's daemon at {machine.site}",
            # Without the first line Dagster would start a supervisor of its own when this one was stopped.
            f"Requires={SCORING}\nAfter={SCORING}\n",
            daemon,
            f"ExecStartPre={dagster} edge_ai_assets.runtimes.prepare\n{_DAGSTER}",
            far,
        ),
        WEB: _service(
            machine,
            f"Dagster's web UI at {machine.site}",
            f"Requires={DAEMON}\nAfter={DAEMON}\n",
            web,
            _DAGSTER,
            ["localhost"],
        ),
    }
    target = f"[Unit]\nDescription=Edge AI at {machine.site}\nWants={' '.join(services)}\n"
    target += "\n[Install]\nWantedBy=multi-user.target\n"
    files = {UNITS / name: text for name, text in (services | {TARGET: target}).items()}
    return files | {USERS: f'u {machine.user} - "Edge AI" {machine.home} -\n'}


def install(machine: Machine, into: Path) -> list[Path]:
    """Write the files below `into`: `/`, or the root of an image that is made. Each is there whole or not.

    Returns:
        Those that were changed; none when it was done before.
    """
    changed = []
    for name, text in render(machine).items():
        path = into / name
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        durable.make_folder(path.parent)
        with durable.replacing(path) as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text.encode())
        changed.append(path)
    return changed


_SCORING = """\
ExecReload=/bin/kill -HUP $MAINPID
LimitNOFILE=65536
# The supervisor lets requests in flight finish; whoever is left after it is killed.
KillMode=mixed
TimeoutStopSec=30
"""
_DAGSTER = """\
KillMode=mixed
KillSignal=SIGINT
TimeoutStopSec=60
"""


def _service(
    machine: Machine, title: str, order: str, command: str, more: str, reachable: list[str] | None
) -> str:
    addresses = ""
    if reachable is not None:
        addresses = "IPAddressDeny=any\n" + "".join(f"IPAddressAllow={each}\n" for each in reachable)
    return f"""\
[Unit]
Description={title}
PartOf={TARGET}
{order}\
StartLimitIntervalSec=0

[Service]
Type=exec
User={machine.user}
Group={machine.user}
StateDirectory={machine.home.name}
StateDirectoryMode=0750
WorkingDirectory={machine.home}
Environment=EDGE_AI_HOME={machine.home}
Environment=DAGSTER_HOME={machine.home}/dagster
Environment=OMP_NUM_THREADS=1
Environment=ORT_DISABLE_TELEMETRY=1
Environment=PYTHONDONTWRITEBYTECODE=1
ExecStart={command}
{more}\
Restart=always
RestartSec=1
{HARDENED}{addresses}"""
