"""Dagster on this machine: its instance in the home, its daemon and web server as processes.

Used by the command line. Nothing here knows what the assets do.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edge_ai_assets.home import Home

CHECKOUT = Path(__file__).resolve().parents[1]
BOTH = CHECKOUT / "workspace.yaml"
AZURE = CHECKOUT / "deploy" / "azure" / "workspace.yaml"
SITE = CHECKOUT / "deploy" / "stack_hub" / "workspace.yaml"


def workspace(home: Home) -> Path:
    """What a home's Dagster loads: both locations, or the one whose side this home is."""
    if home.own_site:
        return SITE
    away = any((home.keys / "sites").glob("*.pub.pem")) and not (home.root / "sites").exists()
    return AZURE if away else BOTH


def environment(home: Home) -> dict[str, str]:
    """The environment in which Dagster's processes find this home."""
    return {
        **os.environ,
        "EDGE_AI_HOME": str(home.root),
        "DAGSTER_HOME": str(home.dagster),
        # Runs are many and short; more threads than cores only wait for each other.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "ORT_DISABLE_TELEMETRY": "1",
        # And of Dagster, that `backfill_policy` is in beta, once for each asset that has one.
        "PYTHONWARNINGS": os.environ.get(
            "PYTHONWARNINGS", "ignore::UserWarning,ignore:Parameter `backfill_policy`"
        ),
    }


def set_up(home: Home) -> None:
    """Make the home's Dagster instance, with the home's own dagster.yaml or else the checkout's.

    Its databases are made here, by one process: daemon and code servers start together, and when each of
    them makes them they can end up with two schema versions in one table.
    """
    import dagster as dg

    home.dagster.mkdir(parents=True, exist_ok=True)
    declared = home.instance if home.instance.exists() else CHECKOUT / "dagster.yaml"
    shutil.copyfile(declared, home.dagster / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(home.dagster)):
        pass


@contextmanager
def daemon(
    home: Home, loads: Path | None = None, also: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's daemon until the block ends; its log is `dagster/daemon.log`.

    Args:
        loads: a workspace file; the one of `workspace` when absent.
        also: more environment variables for it and what it starts.
    """
    set_up(home)
    command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(loads or workspace(home))]
    with (home.dagster / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env={**environment(home), **(also or {})},
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def web_ui(home: Home, host: str, port: int) -> int:
    """Dagster's web UI and the daemon, until one of them ends or Ctrl-C; the UI's exit code."""
    loads = str(workspace(home))
    command = [sys.executable, "-m", "dagster_webserver", "-w", loads, "-h", host, "-p", str(port)]
    with daemon(home):
        try:
            return subprocess.run(command, env=environment(home), cwd=CHECKOUT, check=False).returncode
        except KeyboardInterrupt:
            return 0


def launch(home: Home, job: str, location: str) -> None:
    """Ask Dagster to run a job, as the button in the UI does.

    Raises:
        subprocess.CalledProcessError: it was not accepted; the error's text is in its output.
    """
    command = [
        sys.executable,
        "-m",
        "dagster",
        "job",
        "launch",
        "-w",
        str(workspace(home)),
        "-l",
        location,
        "-j",
        job,
    ]
    subprocess.run(command, env=environment(home), cwd=CHECKOUT, check=True, capture_output=True)
