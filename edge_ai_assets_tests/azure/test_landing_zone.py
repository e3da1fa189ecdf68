"""The landing zone where that is a container: the sensor lists it, the asset fetches, the rest is as ever."""

import dagster as dg
import pytest

from edge_ai_assets import keys, usecase
from edge_ai_assets.azure import automation
from edge_ai_assets.azure.assets.lake import raw_telemetry
from edge_ai_assets.azure.definitions import build_defs
from edge_ai_assets.azure.landing_zone import LandingZone
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import plain
from edge_ai_assets.resources.ingestion.blob_landing import Fetched, LandingError
from edge_ai_assets.resources.mirror.home_mirror import HomeMirror
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.settings import Settings

CASE = usecase.loads("""
name: ours
runs: {column: run}
label: {column: fault, positive: [1]}
site: {column: place}
features: [{name: Flow}]
sites: [{name: bergen}]
""")
CSV = "place,run,Flow,fault\nbergen,a,1.0,0\nbergen,a,2.0,1\n"


class Zone:
    """A container that holds what it is given."""

    far = True

    def __init__(self, home):
        self.home, self.blobs, self.down = home, {}, None
        self.listed = self.fetched = 0

    def waiting(self):
        self.listed += 1
        if self.down:
            raise self.down
        return sorted((name, f"etag of {text}") for name, text in self.blobs.items())

    def fetch(self):
        self.fetched += 1
        if self.down:
            return Fetched(interrupted=str(self.down))
        for name, text in self.blobs.items():
            path = self.home.landing / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        came = tuple(self.blobs)
        self.blobs.clear()
        return Fetched(came, 7, (("taken/x.csv", "no"),))


def job(name):
    @dg.asset(name=f"{name}_of_a_zone")
    def made() -> None:
        pass

    return dg.define_asset_job(name, selection=[made])


INGEST, FIRST = job("ingest"), job("first_release")


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture
def zone(home):
    return Zone(home)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def tick(home, zone, instance):
    sensor = automation.readings_landed(INGEST, FIRST, home, zone)
    return sensor(dg.build_sensor_context(instance=instance))


def test_a_blob_asks_for_a_run_and_is_not_fetched(home, zone, instance):
    assert isinstance(tick(home, zone, instance), dg.SkipReason)
    zone.blobs["bergen/a.csv"] = CSV
    asked = [tick(home, zone, instance) for _ in range(2)]
    assert asked[0].run_key == asked[1].run_key and asked[0].job_name == "first_release"
    assert (zone.listed, zone.fetched) == (3, 0)
    zone.blobs["bergen/a.csv"] = f"{CSV}bergen,a,3.0,0\n"
    assert tick(home, zone, instance).run_key != asked[0].run_key


def test_out_of_reach_is_said_and_files_that_are_here_go_on(home, zone, instance):
    zone.down = LinkDown("acct.blob is out of reach")
    assert tick(home, zone, instance).skip_message == "acct.blob is out of reach"
    home.landing.mkdir()
    (home.landing / "a.csv").write_text(CSV)
    assert isinstance(tick(home, zone, instance), dg.RunRequest)
    zone.down = LandingError("acct.blob refuses the credential")
    with pytest.raises(LandingError, match="refuses"):  # the tick fails, in red
        tick(home, zone, instance)


def test_a_container_is_listed_less_often_than_a_folder(home, zone):
    every = [
        automation.readings_landed(INGEST, FIRST, home, each).minimum_interval_seconds
        for each in (None, LandingZone(home), zone)
    ]
    assert every == [automation.EVERY, automation.EVERY, automation.LISTING]


def test_the_asset_fetches_and_takes_in(home, zone, instance):
    zone.blobs["bergen/a.csv"] = CSV
    resources = {"home": home, "usecase": CASE, "landing_zone": zone, "mirror": HomeMirror(home)}
    assert dg.materialize([raw_telemetry], instance=instance, resources=resources).success
    said = plain(instance.get_latest_materialization_event(keys.RAW_TELEMETRY))
    assert (said["fetched_files"], said["fetched_bytes"], said["interrupted"]) == (1, 7, "no")
    assert (said["new_files"], said["new_rows"]) == (1, 2)
    zone.down = LinkDown("out of reach")
    assert dg.materialize([raw_telemetry], instance=instance, resources=resources).success
    said = plain(instance.get_latest_materialization_event(keys.RAW_TELEMETRY))
    assert (said["fetched_files"], said["interrupted"]) == (0, "out of reach")


def test_without_storage_there_is_no_container(home, tmp_path):
    zone = LandingZone(home)
    assert (zone.far, zone.waiting(), zone.fetch()) == (False, [], Fetched())
    made = build_defs(settings=Settings(home=tmp_path)).resources
    assert isinstance(made["landing_zone"], LandingZone) and isinstance(made["mirror"], HomeMirror)
