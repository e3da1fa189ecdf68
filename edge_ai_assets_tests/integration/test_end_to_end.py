"""The whole loop with Dagster's real daemon: the demo keeps its promises.

Where it may, the demo runs in a network namespace of its own whose only way out is a device that counts:
nothing of this project may connect outward.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_ai_assets import usecase
from edge_ai_assets.demo import story
from edge_ai_assets.home import Home
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
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=1500
    )
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


@pytest.mark.proof
@pytest.mark.skipif(not (DATA / "skab").is_dir(), reason=f"{DATA}/skab is not there; set EDGE_AI_TEST_DATA")
def test_the_demo_on_a_real_rig(tmp_path):
    """SKAB: the first release knows nothing of the later regime; drift is seen, and the next one does."""
    code, found, said = demo(tmp_path / "home", "--data", str(DATA / "skab" / "skab_shared.csv.gz"))
    assert code == 0, said
    assert found["kept"], found["promises"]
    assert found["before"]["f1"] < 0.1
    assert found["after"]["f1"] >= 0.85
    assert found["after"]["false_alarm_rate"] <= 0.11


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
