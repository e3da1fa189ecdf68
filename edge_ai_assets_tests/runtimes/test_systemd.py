from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_ai_assets import local
from edge_ai_assets.commands import runtime as runtime_cli
from edge_ai_assets.runtimes import systemd
from edge_ai_assets.runtimes.interface import DeploymentFailed, Release
from edge_ai_assets.runtimes.process import ProcessRuntime
from edge_ai_assets.runtimes.systemd import DAEMON, SCORING, TARGET, UNITS, WEB, Machine, install, render
from edge_ai_assets.scoring import folder
from edge_ai_assets_tests.scoring.processes import ask, environment_of, wait
from edge_ai_assets_tests.tiny_model import tiny_release

EXAMPLE = Path(__file__).parents[2] / "deploy" / "vm"
CHECKOUT = Path("/opt/edge-ai")
MACHINE = Machine("bergen", CHECKOUT / ".venv/bin/python", CHECKOUT / "deploy/stack_hub/workspace.yaml")
HERE = Machine("bergen", Path(sys.executable), local.SITE)
SERVICES = (SCORING, DAEMON, WEB)


def of(machine, service):
    """Settings of a service, by section; those that stand there several times as one text."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string(render(machine)[UNITS / service])
    return parser


def test_the_files_in_deploy_are_what_is_installed():
    """They are an example to read. Written anew with EDGE_AI_GOLDEN=1."""
    for path, text in render(MACHINE).items():
        example = EXAMPLE / path.name.replace("edge-ai.conf", "sysusers.conf")
        if os.environ.get("EDGE_AI_GOLDEN"):
            example.write_text(text)
        assert example.read_text() == text


def analyze(folder, *arguments):
    if shutil.which("systemd-analyze") is None:
        missing = "units are checked by systemd-analyze (Debian's systemd)"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return subprocess.run(
        ["systemd-analyze", *arguments],
        cwd=folder / UNITS,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{folder / UNITS}:", "SYSTEMD_LOG_LEVEL": "warning"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


MACHINES = [HERE, replace(HERE, offline=False, clients=("10.0.0.0/8", "fd00::/8"), user="scorer", port=8000)]


@pytest.mark.parametrize("machine", MACHINES, ids=["offline", "linked"])
def test_systemd_finds_nothing_wrong(tmp_path, machine):
    install(machine, tmp_path)
    done = analyze(tmp_path, "verify", f"./{TARGET}", *(f"./{name}" for name in SERVICES))
    assert (done.returncode, done.stderr) == (0, "")
    scoring = tmp_path / UNITS / SCORING
    scoring.write_text(scoring.read_text().replace("NoNewPrivileges=yes", "NoNewPrivilges=yes"))
    assert "NoNewPrivilges" in analyze(tmp_path, "verify", f"./{SCORING}").stderr


@pytest.mark.parametrize(
    ("machine", "most"), list(zip(MACHINES, (2.0, 2.5), strict=True)), ids=["offline", "linked"]
)
@pytest.mark.parametrize("service", SERVICES)
def test_systemd_calls_it_little_exposed(tmp_path, machine, most, service):
    """0 is a service that can do nothing, 10 one without any bound; below 2.5 is "OK"."""
    install(machine, tmp_path)
    done = analyze(tmp_path, "security", "--offline=true", f"--threshold={int(most * 10)}", f"./{service}")
    assert done.returncode == 0, done.stdout


def test_where_there_is_no_link_nothing_reaches_other_machines():
    for service in SERVICES:
        text = render(MACHINE)[UNITS / service]
        assert re.findall("^IPAddress.*", text, re.M) == ["IPAddressDeny=any", "IPAddressAllow=localhost"]


def test_with_a_link_dagster_may_and_scoring_may_not():
    linked = render(replace(MACHINE, offline=False, clients=("10.1.0.0/16",)))
    assert "IPAddress" not in linked[UNITS / DAEMON]
    found = re.findall("^IPAddress.*", linked[UNITS / SCORING], re.M)
    assert found == ["IPAddressDeny=any", "IPAddressAllow=localhost", "IPAddressAllow=10.1.0.0/16"]
    assert re.findall("^IPAddressAllow.*", linked[UNITS / WEB], re.M) == ["IPAddressAllow=localhost"]


def test_services_share_a_user_and_a_home_and_only_that_is_written():
    for service in SERVICES:
        unit = of(MACHINE, service)["Service"]
        assert (unit["User"], unit["StateDirectory"]) == ("edge-ai", "edge-ai")
        assert unit["ProtectSystem"] == "strict"
        assert not {name for name in unit if name.startswith("ReadWritePaths")}
    assert render(MACHINE)[systemd.USERS] == 'u edge-ai - "Edge AI" /var/lib/edge-ai -\n'


def test_dagster_never_outlives_the_supervisor_it_would_replace():
    assert of(MACHINE, DAEMON)["Unit"]["Requires"] == SCORING
    assert of(MACHINE, WEB)["Service"]["ExecStart"].endswith("-h 127.0.0.1 -p 3000")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"site": "Bergen"}, "site 'Bergen' is no name"),
        ({"site": "a b"}, "no name of a site"),
        ({"site": "a\nExecStart=/bin/sh"}, "no name of a site"),
        ({"user": "root"}, "user 'root' is refused"),
        ({"user": "a b"}, "user 'a b' is refused"),
        ({"home": Path("/home/me/edge")}, "folder of /var/lib"),
        ({"home": Path("/var/lib/a b")}, "home is '/var/lib/a b'"),
        ({"python": Path("venv/bin/python")}, "python is 'venv/bin/python': it must be absolute"),
        ({"workspace": Path("/x/%h")}, "workspace is '/x/%h'"),
        ({"clients": ("10.0.0.1/8",)}, "host bits set"),
        ({"clients": ("lan",)}, "'lan' does not appear"),
        ({"port": 80}, "port is 80"),
    ],
)
def test_what_would_not_be_a_unit_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        replace(MACHINE, **changes)


def test_installing_again_writes_what_differs_only(tmp_path):
    assert len(install(MACHINE, tmp_path)) == 5
    assert install(MACHINE, tmp_path) == []
    (tmp_path / UNITS / WEB).write_text("damaged")
    assert install(replace(MACHINE, port=3000), tmp_path) == [tmp_path / UNITS / WEB]
    assert (tmp_path / UNITS / WEB).stat().st_mode & 0o777 == 0o644
    changed = install(replace(MACHINE, offline=False), tmp_path)
    assert changed == [tmp_path / UNITS / DAEMON]


def test_the_command_shows_writes_and_refuses(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(runtime_cli.vm, ["--site", "bergen", *arguments])

    shown = run("--dry-run")
    assert shown.exit_code == 0
    assert "# /etc/systemd/system/edge-ai-scoring.service\n" in shown.stdout
    assert not list(tmp_path.iterdir())
    assert run("--into", str(tmp_path)).exit_code == 0
    assert (tmp_path / UNITS / TARGET).exists()
    assert run("--home", "/srv/x", "--dry-run").exit_code == runtime_cli.USAGE


@pytest.fixture
def waiting(tmp_path):
    """The scoring service's own command, in another home."""
    command = of(HERE, SCORING)["Service"]["ExecStart"].replace(str(HERE.home), str(tmp_path)).split()
    process = subprocess.Popen(command, cwd=tmp_path, env=environment_of(), stderr=subprocess.PIPE)
    site = tmp_path / "sites" / "bergen"
    wait(lambda: folder.supervised(site) and folder.read_status(site))
    yield process, site
    process.kill()
    process.wait()


def test_the_service_waits_for_its_first_release_and_then_serves_it(waiting, tmp_path):
    process, site = waiting
    runtime = ProcessRuntime(site, "bergen")
    assert runtime.status() is None
    bad = tmp_path / "bad"
    bad.mkdir()
    with pytest.raises(DeploymentFailed, match="no release serves"):
        runtime.deploy(Release("sha256:0", 1, bad), timeout=30)
    release = Release("sha256:1", 2, tiny_release(tmp_path / "good"))
    running = runtime.deploy(release, timeout=60)
    assert folder.read_status(site).pid == process.pid  # this very supervisor, not another one
    assert ask(running.url, "/health/ready").status == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert runtime.status() is None


def test_a_waiting_service_ends_when_it_is_told(waiting):
    process, _ = waiting
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_dagsters_instance_is_made_before_its_daemon_starts(tmp_path):
    command = of(HERE, DAEMON)["Service"]["ExecStartPre"].split()
    home = tmp_path / "home"
    made = environment_of(EDGE_AI_HOME=str(home), DAGSTER_HOME=str(home / "dagster"))
    for _ in range(2):
        subprocess.run(command, check=True, timeout=120, env=made, cwd=tmp_path)
    assert (home / "dagster" / "dagster.yaml").exists()
