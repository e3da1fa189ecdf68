"""Dagster is killed in the middle of everything, again and again: nothing is lost, nothing comes twice."""

import os
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
