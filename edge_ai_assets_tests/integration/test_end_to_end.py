"""The whole loop with Dagster's real daemon: the demo keeps its promises, also when processes are killed.

Where it may, the demo runs in a network namespace of its own whose only way out is a device that counts:
nothing of this project may connect outward.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_ai_assets import local, usecase
from edge_ai_assets.demo import story
from edge_ai_assets.demo.world import World
from edge_ai_assets.home import Home
from edge_ai_assets.readings import replay
from edge_ai_assets.returns.egress.ledger import verify
from edge_ai_assets.status import conserved

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("EDGE_AI_TEST_DATA", CHECKOUT.parent / "shared" / "data"))

COUNTED = """
set -e
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set lo up
ip link add out type veth peer name nowhere
ip addr add 192.0.2.1/24 dev out
ip link set nowhere up
ip link set out up
ip route add default via 192.0.2.2 dev out
ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:01 dev out
code=0
"$@" || code=$?
echo "packets out: $(awk '$1 == "out:" { print $11 }' /proc/net/dev)" >&2
exit $code
"""
SEND = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('198.51.100.7', 53))"


def counted_command(*command: str) -> list[str]:
    """A command in a network namespace of its own, which says at its end how many packets wanted out."""
    return ["unshare", "--net", "sh", "-c", COUNTED, "counted", *command]


def demo(home: Path, *options: str, counted: bool = False) -> tuple[int, dict, str]:
    command = [sys.executable, "-W", "ignore", "-m", "edge_ai_assets.cli", "demo", "--json", *options]
    if counted:
        command = counted_command(*command)
    environment = {
        **os.environ,
        "EDGE_AI_HOME": str(home),
        "PYTHONPATH": str(CHECKOUT),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("EDGE_AI_USECASE", None)
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=900)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def may_count() -> bool:
    """Whether this machine lets us have such a namespace, and one packet is counted as one."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    done = subprocess.run(counted_command(sys.executable, "-c", SEND), capture_output=True, text=True)
    return "packets out: 1" in done.stderr


def test_the_demo_keeps_its_promises_and_nothing_connects_outward(tmp_path):
    counted = may_count()
    if not counted and os.environ.get("CI"):
        pytest.fail("CI counts outgoing packets: it needs root, unshare and ip (Debian's iproute2)")
    code, found, said = demo(tmp_path / "home", counted=counted)
    assert code == 0, said
    assert found["kept"], found["promises"]
    assert found["after"]["f1"] > 0.85 > found["before"]["f1"]
    now = found["status"]
    assert len(now["sites"]) >= 3
    assert now["global"]["duplicates"] == 0
    assert now["global"]["retrainings"] >= 1
    for site in now["sites"].values():
        assert conserved(site)
        assert site["release"] == now["global"]["releases"]
    if counted:
        assert "packets out: 0" in said, said


@pytest.mark.skipif(not (DATA / "skab").is_dir(), reason=f"{DATA}/skab is not there; set EDGE_AI_TEST_DATA")
def test_the_demo_on_a_real_rig(tmp_path):
    """SKAB: the first release knows nothing of the later regime; drift is seen, and the next one does."""
    code, found, said = demo(tmp_path / "home", "--data", str(DATA / "skab" / "skab_shared.csv.gz"))
    assert code == 0, said
    assert found["kept"], found["promises"]
    assert found["before"]["f1"] < 0.1
    assert found["after"]["f1"] >= 0.85
    assert found["after"]["false_alarm_rate"] <= 0.11


def test_kill_9_of_everything_in_the_middle_loses_and_repeats_nothing(tmp_path):
    """Daemon, code servers and runs are killed while they score and send; then they start again."""
    case = usecase.load(usecase.BUNDLED / "pump-station.yaml")
    home = Home(tmp_path / "home")
    story.set_up(home, case)
    plant = replay.simulated_plant(case, home.root / "plant")
    try:
        with killable(home, case) as world:
            for path in plant.history:
                world.deliver(path, home.landing / path.parent.name)
            world.until(lambda: world.all_run(1), "release 1 on every site")
            files = [(name, path) for name, paths in plant.phases[0].items() for path in paths]
            for name, path in files:
                world.deliver(path, home.site(name).readings)
            world.until(lambda: world.busy("score_sites"), "the start of scoring")
            for _ in range(3):  # in the middle of a launch, of scoring, of packing or sending
                world.kill()
                world.start()
                time.sleep(4)
            # Dagster's run monitoring finds the runs whose process is gone; until then their jobs are taken.
            world.until(world.all_scored, "scores of all readings")
            world.until(lambda: all(world.sent(name) for name in world.names), "everything sent")
            world.until(world.all_home, "everything home")
            now = world.status()
        assert all(conserved(site) for site in now["sites"].values())
        assert now["global"]["duplicates"] == 0
        assert now["global"]["insights"] == sum(site["uploaded"] for site in now["sites"].values())
        from edge_ai_assets.readings.files import read

        for name, path in files:
            readings = sum(len(part.readings) for part in read(path, case, site=name))
            assert now["sites"][name]["scored"] == readings, "each reading was scored, and once"
            assert verify(home.site(name).ledger) >= 1
    finally:
        story.stop_services(home)


class killable(World):  # noqa: N801  reads as a verb where it is used
    """A world whose daemon, with all it started but the scoring services, can be killed and started again."""

    def __init__(self, home, case):
        super().__init__(home, case, lambda: True)
        self.process = None
        self.start()

    def start(self):
        command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(local.BOTH)]
        log = (self.home.dagster / "daemon.log").open("ab")
        self.process = subprocess.Popen(
            command,
            env=local.environment(self.home),
            cwd=CHECKOUT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def kill(self):
        """Kill -9 daemon, code servers and runs. The scoring services have sessions of their own."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def failed_runs(self):
        return []  # killed runs are what this is about

    def __exit__(self, *exception):
        self.kill()
        super().__exit__(*exception)


def test_a_home_that_no_demo_made_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    code, _, said = demo(tmp_path)
    assert code == 1
    assert "left alone" in said
    assert (tmp_path / "mine").read_text() == "precious"


def test_clearing_a_home_is_a_clean_start(tmp_path):
    home = Home(tmp_path / "home")
    story.set_up(home, usecase.load(usecase.BUNDLED / "pump-station.yaml"))
    story.clear(home)
    assert not home.root.exists()
