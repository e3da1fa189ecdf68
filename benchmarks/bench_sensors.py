"""A tick of the sites' sensors over 1,000 registered sites, against opening everything everywhere.

- Each sensor of the Stack Hub location: seconds a tick, with nothing waiting and with work at 50 sites.
- The naive loop, which one writes first: every tick, at every site, list the readings, ask for the service
  and the link, open the outbox and look for all that may wait. The sensors ask only their own question, of
  at most `automation.LOOK` sites in turn; `round` is the time until all sites had their turn.
- A rollout on its way: 100 canaries serve the newest release, so their evidence is counted (10,000 scores
  each, without the service's own answer) once a minute; and a tick in between.
- Automation conditions of both locations, when nothing happened since the last time, with 1,000 sites
  registered against 3.

Why: the daemon evaluates all of them one after another every few seconds; what they take, runs wait for.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence

import blocks
import dagster as dg
import numpy as np
from fleet import fleet, let_wait
from measure import scratch, side_by_side, tell

from edge_ai_assets import usecase as usecases
from edge_ai_assets.azure import definitions as azure
from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home
from edge_ai_assets.partitions import SITES
from edge_ai_assets.returns.outbox.outbox import Batch, Outbox
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.scoring import supervisor
from edge_ai_assets.settings import Settings
from edge_ai_assets.stack_hub import definitions as stack_hub
from edge_ai_assets.stack_hub.automation import LOOK
from edge_ai_assets.usecase import Ring

NAMES = [f"site-{number:04}" for number in range(1_000)]
LOOK_IN_TURN = ("bundle_arrived", "service_down", "readings_waiting", "scores_waiting", "link_up")
WHOLE = ("sites_registered", "release_available", "insights_queued", "lease_watched")


def main() -> None:
    logging.disable(logging.WARNING)
    figures: dict[str, float] = {"sites": len(NAMES), "looked_at_a_tick": LOOK}
    ratios: dict[str, float] = {}
    with scratch() as folder, fleet(folder / "home", NAMES) as home:
        with instance_with(NAMES) as instance:
            for state in ("idle", "waiting"):
                if state == "waiting":
                    let_wait(home, NAMES)
                seconds = sensors(home, instance)
                seconds["all_sensors"] = sum(seconds[name] for name in (*WHOLE, *LOOK_IN_TURN))
                figures |= {f"{name}_{state}_seconds": value for name, value in seconds.items()}
                for name in (*WHOLE, *LOOK_IN_TURN, "all_sensors"):
                    ratios[f"naive_to_{name}_{state}"] = seconds["naive"] / seconds[name]
            figures |= {f"baking_{name}_seconds": value for name, value in baking(home, instance).items()}
        few, many = conditions(home)
    figures["conditions_3_sites_seconds"], figures["conditions_1000_sites_seconds"] = few, many
    ratios["conditions_1000_to_3_sites"] = many / few
    tell("sensors", figures, ratios)


def sensors(home: Home, instance: dg.DagsterInstance) -> dict[str, float]:
    """Median seconds of a tick of each sensor, a round of those that take turns, and the naive loop."""
    defs = stack_hub.build_defs(settings=settings(home))
    known = {sensor.name: sensor for sensor in defs.get_repository_def().sensor_defs}
    assert set(known) == {*LOOK_IN_TURN, *WHOLE}, "a sensor is missing here"
    turns = -(-len(NAMES) // LOOK)
    ways: dict[str, Callable[[], object]] = {"naive": lambda: naive_loop(home, NAMES)}
    for name in WHOLE:
        ways[name] = lambda name=name: tick(known[name], instance, 1)  # type: ignore[misc]
    for name in LOOK_IN_TURN:
        ways[name] = lambda name=name: tick(known[name], instance, turns)  # type: ignore[misc]
    seconds = side_by_side(ways)
    for name in LOOK_IN_TURN:
        seconds[f"{name}_round"] = seconds[name]
        seconds[name] /= turns
    return seconds


def baking(home: Home, instance: dg.DagsterInstance) -> dict[str, float]:
    """Median seconds of a tick that counts the evidence of 100 canaries, and of one after it."""
    canaries = NAMES[0::10]
    case = usecases.load(home.usecase)
    sites = [
        site.model_copy(update={"ring": Ring.CANARY}) if site.name in canaries else site
        for site in case.sites
    ]
    usecases.dump(case.model_copy(update={"sites": tuple(sites)}), home.root / "rings.yaml")
    target = pack.newest(home.registry, home.keys)
    assert target
    path = home.root / "scored.db"
    with Outbox(path) as outbox:
        scores = np.full(10_000, 0.25)
        outbox.append([Batch(None, target.image, 1, list(blocks.of({}, {}, scores, {})))])
        outbox.unfold(len(scores), lambda predicted: "normal")
    for name in canaries:
        shutil.copyfile(path, home.site(name).outbox)
    made = Settings(home=home.root, usecase=home.root / "rings.yaml")
    defs = stack_hub.build_defs(settings=made)
    sensor = defs.get_repository_def().get_sensor_def("release_available")
    first = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    assert "bakes at ring canary" in str(first.skip_message), first.skip_message

    def again(cursor: str | None) -> object:
        return sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor))

    ways = {"count": lambda: again(None), "between": lambda: again(first.cursor)}
    return side_by_side(ways)


def tick(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, times: int) -> None:
    cursor = None
    for _ in range(times):
        cursor = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor)).cursor


def naive_loop(home: Home, names: Sequence[str]) -> list[str]:
    """Names of the sites where anything waits."""
    found = []
    for name in names:
        site = home.site(name)
        files = sorted(site.readings.iterdir())
        running, up = supervisor.status(site.root), Link(site.root).up
        with Outbox(site.outbox) as outbox:
            kept = outbox.counts().conserved
            rows, judged = outbox.untouched() or outbox.waiting(1), outbox.waiting_feedback(1)
            unsent = outbox.unsent()
        if (files and running) or rows or judged or (unsent and up) or not kept:
            found.append(name)
    return found


def conditions(home: Home) -> tuple[float, float]:
    """Median seconds of evaluating both locations' conditions when nothing happened since: 3 sites, all."""
    both = [module.build_defs(settings=settings(home)) for module in (azure, stack_hub)]
    with instance_with(NAMES[:3]) as few, instance_with(NAMES) as many:
        cursors = {
            id(instance): [dg.evaluate_automation_conditions(defs, instance).cursor for defs in both]
            for instance in (few, many)
        }

        def again(instance: dg.DagsterInstance) -> None:
            for defs, cursor in zip(both, cursors[id(instance)], strict=True):
                dg.evaluate_automation_conditions(defs, instance, cursor=cursor)

        seconds = side_by_side({"few": lambda: again(few), "many": lambda: again(many)}, rounds=9)
    return seconds["few"], seconds["many"]


def instance_with(names: Sequence[str]) -> dg.DagsterInstance:
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions(str(SITES.name), list(names))
    return instance


def settings(home: Home) -> Settings:
    return Settings(home=home.root)


if __name__ == "__main__":
    main()
