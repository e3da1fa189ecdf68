"""The sensor that brings releases to the sites, and back: `rollout` decides, this asks and tells.

Where nothing but one site is, no registry is known: what is to run comes on media, and only rollbacks and
fallbacks are this sensor's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping

import dagster as dg
import msgspec

from edge_ai_assets import keys
from edge_ai_assets.delivery.errors import DeliveryError
from edge_ai_assets.delivery.listing import Withdrawal
from edge_ai_assets.home import Home
from edge_ai_assets.runs import EVERY, in_flight, turn
from edge_ai_assets.stack_hub import provision, withdrawn
from edge_ai_assets.stack_hub.automation import BATCH
from edge_ai_assets.stack_hub.fleet import alone
from edge_ai_assets.stack_hub.looking import Looking, known_sites, next_in_turn
from edge_ai_assets.stack_hub.rollout import control, telling
from edge_ai_assets.stack_hub.rollout.course import Course
from edge_ai_assets.stack_hub.rollout.evidence import Verdict, Word
from edge_ai_assets.stack_hub.rollout.rings import Decision, Kind, SiteState
from edge_ai_assets.usecase import Ring, UseCase

UNSEEN = SiteState(serving=None, linked=False)
"""Of a site that cannot be looked at: it is asked for nothing, and proves nothing."""
LOOK_SECONDS = 60.0
"""Between two counts of a ring's evidence: a ring holds hundreds of sites, and a tick comes every few
seconds."""
RECORD_SECONDS = 60.0
"""What an operator decided, and nobody recorded for so long, is recorded here: the command died between."""
CLOCKS_SECONDS = 1.0
"""Dagster keeps fewer digits of a time than `rollout.json`."""
LATELY = 100
"""Newest observations that are looked through for it."""
BECAUSE = "edge_ai/because"
"""Tag of a run with the reason why a site is asked."""
TAG = 200
"""Characters of it."""


class _Memory(msgspec.Struct):
    """The cursor. Losing it repeats what was told, and nothing else."""

    told: str = ""
    """Key of the decision that was told last."""
    last: str = ""
    """The site that was asked last."""
    fell: dict[str, str] = {}
    """Sites where a release is known to have failed, and when."""
    withdrawn: dict[str, int] = {}
    """Sites that are known to run a release that was withdrawn, and which."""
    looked: float = 0.0
    """When evidence was last counted, seconds since 1970; then, of what and what was decided."""
    release: int = 0
    kind: Kind | None = None
    ring: Ring | None = None
    reason: str = ""


def release_available(
    job: dg.UnresolvedAssetJobDefinition,
    restart: dg.UnresolvedAssetJobDefinition,
    home: Home,
    usecase: UseCase,
) -> dg.SensorDefinition:
    """See the module.

    Args:
        job: brings a release to sites and deploys it.
        restart: deploys what is on a site's disk; the two are not asked for at the same time.
    """

    alone_here = home.own_site is not None

    @dg.sensor(
        name="rolled_back" if alone_here else "release_available",
        job=job,
        minimum_interval_seconds=EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Brings the site back to an older release when an operator says so; tells of fallbacks."
        if alone_here
        else "Brings the newest release to the sites, ring by ring on evidence, and back.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """Ask the sites that `rollout.rings` names to run the newest release, BATCH a tick.

        Which release each site runs is looked up, so a restart neither skips nor repeats one; the cursor only
        keeps what was told. Each deployment is a run of its own because it waits, fails and is retried alone.
        """
        from edge_ai_assets.delivery import pack
        from edge_ai_assets.stack_hub import delivery

        if in_flight(context.instance, job.name, restart.name):
            return dg.SkipReason("a deployment is under way")
        target, nothing = None, "there is no release yet"
        taken_back: Mapping[int, Withdrawal] = {}
        try:
            if alone_here:
                taken_back = withdrawn.versions(home.site(str(home.own_site)))
            else:
                target = pack.newest(home.registry, home.keys)
                taken_back = pack.withdrawn(home.registry, home.keys)
        except DeliveryError as error:  # sites go back by what is on their disks
            nothing = f"the newest release cannot be read: {error}"
            context.log.error(nothing)
        looking, state = Looking(context.log), control.read(home)
        states: dict[str, SiteState] = {}
        for name in known_sites(context.instance, usecase):
            if not alone_here and provision.elsewhere(home, name):
                continue  # it brings itself what it runs
            states[name] = UNSEEN
            with looking.at(name):
                states[name] = delivery.state(home.site(name), target, usecase.at(name).road)
        tick = _Tick(context.cursor, states)
        # Where a newer release may go, it does, ring by ring: what brings a site back would bring that one.
        bad = [name for name in states if target is None or not state.allows(name, target.version)]
        back = {name: why for name in bad if (why := state.back(name, states[name].serving))}
        asked = {name: f"rolled back to {why.to} {why.said}" for name, why in back.items()}
        runs = {name: each.serving or 0 for name, each in states.items() if each.serving in taken_back}
        tick.tell_withdrawn(runs, taken_back)
        for name, version in runs.items():
            # An older release over the link; a newer one comes ring by ring, and for what is on the site's
            # disk `service_down` asks. Older is the newest one, or what a rollback leaves.
            takes = target is not None and state.allows(name, target.version)
            older = any(state.allows(name, each) for each in range(1, version) if each not in taken_back)
            if target is None or not older or (takes and target.version > version):
                continue
            failed = states[name].failed if takes else states[name].fell
            with looking.at(name):
                if states[name].linked and not failed and not withdrawn.way_out(home.site(name)):
                    asked.setdefault(name, f"release {version} was {taken_back[version]}")
        if home.rollout.exists():
            # What no link brings is on the site's disk already: after `resume` nothing else asks for it.
            for name in [name for name in states if not usecase.at(name).road.pulls or alone_here]:
                with looking.at(name):
                    if states[name].serving and delivery.untried(home.site(name)):
                        asked.setdefault(name, "what is on its disk is not rolled back any more")
        if target is None:
            return tick.result(asked, looking.why(nothing))
        course = Course(home, usecase, target)
        decision = tick.decide(course, state, usecase.delivery.rollout.bake_minutes)
        if decision.kind is Kind.HALTED and decision.ring and decision.judged:
            control.halt(home, decision.release, decision.ring, decision.reason)
        tick.tell(decision, course, context.instance)
        for name in decision.sites:
            asked.setdefault(name, decision.reason)
        return tick.result(asked, looking.why(decision.reason))

    return sensor


class _Tick:
    """One tick: what is told in it and asked for, and what the next one is to know of it."""

    def __init__(self, cursor: str | None, states: Mapping[str, SiteState]) -> None:
        try:
            self._memory = msgspec.json.decode(cursor or "{}", type=_Memory)
        except msgspec.DecodeError:  # another version's
            self._memory = _Memory()
        self._states = states
        self._events: list[dg.AssetObservation] = []
        fell = {name: state.fell for name, state in states.items() if state.fell}
        for name, failure in fell.items():
            if self._memory.fell.get(name) != failure.at:
                said = f"{failure.release_id} did not stay in service: {failure.reason}"
                release = states[name].serving or 0
                failed = {"failed": failure.release_id}
                self._events.append(telling.of_site("fell_back", name, release, said, failed))
        self._memory.fell = {name: failure.at for name, failure in fell.items()}

    def tell_withdrawn(self, runs: Mapping[str, int], why: Mapping[int, Withdrawal]) -> None:
        """Record once that a site runs a release that was withdrawn: it goes on until it has another."""
        for name, version in runs.items():
            if self._memory.withdrawn.get(name) != version:
                said = f"release {version} serves, and was {why[version]}"
                self._events.append(telling.of_site("withdrawn", name, version, said))
        # One that was not seen running anything now is not forgotten: it would be told again.
        unseen = {name: n for name, n in self._memory.withdrawn.items() if not self._serves(name)}
        self._memory.withdrawn = unseen | dict(runs)

    def _serves(self, name: str) -> bool:
        return name not in self._states or self._states[name].serving is not None

    def decide(self, course: Course, state: control.State, bake_minutes: int) -> Decision:
        """What is to be done, by evidence that is at most LOOK_SECONDS old."""
        memory, now = self._memory, time.time()
        fresh = bool(bake_minutes) and 0 <= now - memory.looked < LOOK_SECONDS
        if fresh and memory.release == course.release and memory.kind is not None:
            try:
                # Further sites of a ring that was asked a moment ago need no second count; another ring does.
                going_on = memory.kind is Kind.ASKED
                decision = course.decide(self._states, state, _a_moment_ago if going_on else _not_now)
                if decision.kind is not Kind.ASKED or decision.ring is memory.ring:
                    return decision
            except _NotNow:
                return Decision(memory.kind, course.release, memory.reason, memory.ring)
        decision = course.decide(self._states, state)
        if course.seen:
            memory.looked, memory.release = now, course.release
            memory.kind, memory.ring, memory.reason = decision.kind, decision.ring, decision.reason
        return decision

    def tell(self, decision: Decision, course: Course, instance: dg.DagsterInstance) -> None:
        """Record a decision, unless it was recorded. What operators decide they record themselves, if they
        get there."""
        halts = decision.kind is Kind.HALTED and bool(decision.judged)  # anew: what is halted is not judged
        if decision.key == self._memory.told and not halts:
            return
        if decision.at is not None:
            at = decision.at.timestamp()
            if 0 <= time.time() - at < RECORD_SECONDS:
                return
            if _recorded(instance, decision.kind, at):
                self._memory.told = decision.key
                return
        self._memory.told = decision.key
        self._events.append(telling.decided(decision))
        if decision.kind in (Kind.ASKED, Kind.HALTED):
            worst = sorted(decision.judged, key=lambda name: decision.judged[name].word is not Word.BAD)
            for name in [name for name in worst if name in course.seen][:BATCH]:
                verdict, seen = decision.judged[name], course.seen[name]
                self._events.append(telling.judged(name, decision.release, verdict, *seen))

    def result(self, asked: Mapping[str, str], why: str | None = None) -> dg.SensorResult:
        """Ask sites, each for a reason; or nobody, and say why."""
        # In turn: sites that cannot get there keep no other from being asked.
        batch = list(asked) if len(asked) <= BATCH else next_in_turn(sorted(asked), self._memory.last, BATCH)
        self._memory.last = batch[-1] if batch else self._memory.last
        began = hashlib.sha256(repr([(name, self._states[name].since) for name in asked]).encode())
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    run_key=f"{asked[name][:TAG]} {began.hexdigest()[:8]}/{name}/{turn()}",
                    tags={**site_tags, BECAUSE: asked[name][:TAG]},
                )
                for name, site_tags in zip(batch, alone(batch), strict=True)
            ],
            asset_events=self._events,
            cursor=msgspec.json.encode(self._memory).decode(),
            skip_reason=None if asked else why,
        )


def _recorded(instance: dg.DagsterInstance, kind: Kind, at: float) -> bool:
    """Whether what an operator decided stands in Dagster's log."""
    wanted = dg.AssetRecordsFilter(asset_key=keys.IMAGE, after_timestamp=at - CLOCKS_SECONDS)
    found = (each.asset_observation for each in instance.fetch_observations(wanted, LATELY).records)
    return any(each and telling.word(each) == str(kind) for each in found)


class _NotNow(Exception):
    """Evidence was counted a moment ago."""


def _not_now(name: str) -> Verdict:
    raise _NotNow(name)


def _a_moment_ago(name: str) -> Verdict:
    return Verdict(Word.FINE, "counted a moment ago")
