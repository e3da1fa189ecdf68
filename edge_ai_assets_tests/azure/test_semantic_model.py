"""The semantic model against the contract stub of Power BI: one refresh after another, through faults."""

import dataclasses

import dagster as dg
import pytest

from edge_ai_assets import keys
from edge_ai_assets.azure.assets import publishing
from edge_ai_assets.metadata import plain
from edge_ai_assets.profiles import Publishing
from edge_ai_assets.resources import powerbi
from edge_ai_assets.resources.calling.control_plane import ControlPlane
from edge_ai_assets.resources.calling.patience import Patience, Refused, Unavailable
from edge_ai_assets.resources.identity import credentials
from edge_ai_assets.resources.powerbi import SCOPE, RefreshFailed, SemanticModel
from edge_ai_assets_tests.contract.control_plane_stub import (
    RESET,
    SILENCE,
    Reply,
    Time,
    Tokens,
    read_seconds,
    serving,
)
from edge_ai_assets_tests.contract.powerbi import MODEL, WORKSPACE, PowerBiStub

BUSY = Reply(429, {"error": {"code": "TooManyRequests", "message": "Slow down."}}, {"Retry-After": "40"})
FAULTS = {"429": BUSY, "500": Reply(500), "503": Reply(503), "reset": RESET, "hung": SILENCE}
ASK, LIST = "POST /v1.0", "GET /v1.0"


@pytest.fixture
def stub(tmp_path):
    with serving(tmp_path) as made:
        yield made


@pytest.fixture
def azure(stub):
    return PowerBiStub(stub)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def model(stub, time, request):
    service = ControlPlane(stub.endpoint, Tokens(), SCOPE, stub.ca, read_seconds=read_seconds(request))
    patience = Patience(seconds=300, sleep=time.sleep, clock=time.clock)
    return SemanticModel(service, WORKSPACE, MODEL, patience)


@pytest.fixture
def refresh(model):
    return lambda: model.refresh([].append)


@pytest.mark.parametrize("headers", [{"Location", "x-ms-request-id"}, {"Location"}, {"x-ms-request-id"}])
def test_a_refresh_is_asked_for_and_waited_for(azure, stub, refresh, model, headers):
    azure.headers = headers
    azure.add("Failed")
    done = refresh()
    assert (done.status, done.seconds, done.request_id) == (
        "Completed",
        90.0,
        azure.refreshes[0]["requestId"],
    )
    assert stub.count(ASK) == 1 and set(model.service.credential.scopes) == {SCOPE}


def test_one_that_goes_on_is_waited_for_and_ours_comes_after_it(azure, stub, refresh):
    azure.add("Unknown", "Unknown", "Unknown", "Completed")
    done = refresh()
    assert len(azure.refreshes) == 2 and done.request_id == azure.refreshes[0]["requestId"]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("where", [ASK, LIST])
def test_outages_are_lived_through(azure, stub, refresh, fault, where):
    stub.fail(where, fault, fault)
    assert refresh().status == "Completed" and len(azure.refreshes) == 1


def test_a_lost_answer_costs_one_refresh_more_at_most(azure, stub, refresh):
    stub.fail(ASK, RESET, after=True)
    assert refresh().status == "Completed" and len(azure.refreshes) == 2


def test_what_the_service_asks_to_wait_is_waited(azure, stub, refresh, time):
    stub.fail(ASK, BUSY)
    refresh()
    assert time.slept[0] == 40


def test_a_failure_is_told_in_the_service_s_words(azure, refresh):
    azure.course = ["Unknown", "Failed"]
    with pytest.raises(RefreshFailed, match=r"Failed: .*ModelRefreshFailed_CredentialsNotSpecified"):
        refresh()


def test_nobody_waits_for_ever(azure, model, time):
    azure.course = ["Unknown"]
    with pytest.raises(RefreshFailed, match="takes more than 1 hours"):
        dataclasses.replace(model, longest=3600).refresh([].append)
    assert time.now <= 3600


def test_a_refusal_is_a_sentence(azure, stub, refresh):
    limit = {"error": {"code": "RefreshLimit", "message": "Eight a day."}}
    stub.fail(ASK, Reply(400, limit))
    with pytest.raises(Refused, match=r"refuses \(400 RefreshLimit\): Eight a day"):
        refresh()
    assert stub.count(ASK) == 1


def test_an_answer_that_names_no_refresh_is_not_followed(azure, refresh):
    azure.headers = set()
    with pytest.raises(Refused, match="names no refresh"):
        refresh()


def test_an_expired_token_is_renewed(azure, stub, refresh):
    stub.tokens = {"token-2"}
    assert refresh().status == "Completed"


def test_an_outage_that_outlasts_patience(azure, stub, refresh, time):
    stub.fail(LIST, *[Reply(503)] * 50)
    with pytest.raises(Unavailable, match=r"following the refresh .*out of order \(503\)"):
        refresh()


def test_a_model_that_is_there_is_seen(azure, model):
    model.look()


class TestAsset:
    @pytest.fixture
    def made(self, stub, monkeypatch):
        monkeypatch.setattr(credentials, "token", lambda *_: Tokens())
        monkeypatch.setattr(powerbi, "POLL", Patience(first=0.01, most=0.02))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stub.ca))
        section = Publishing(workspace=WORKSPACE, semantic_model=MODEL, endpoint=stub.endpoint)
        with dg.DagsterInstance.ephemeral() as instance:
            resources = {"publishing": section}

            def made():
                given = {"instance": instance, "resources": resources, "raise_on_error": False}
                return dg.materialize([publishing.semantic_model], **given)

            made.instance = instance
            yield made

    def test_it_is_refreshed(self, azure, made):
        assert made().success
        told = plain(made.instance.get_latest_materialization_event(keys.SEMANTIC_MODEL))
        assert (told["status"], told["seconds"]) == ("Completed", 90.0)
        assert told["refresh"] == azure.refreshes[0]["requestId"]

    def test_a_failed_refresh_fails_it_once(self, azure, stub, made):
        azure.course = ["Failed"]
        assert not made().success and stub.count(ASK) == 1


class TestWhen:
    @pytest.fixture
    def defs(self):
        @dg.asset(key=keys.INSIGHTS)
        def insights(): ...

        @dg.asset(key=keys.DRIFT)
        def drift(): ...

        return dg.Definitions([insights, drift, publishing.semantic_model], resources={"publishing": None})

    def test_it_follows_what_is_published_at_most_eight_times_a_day(self, defs):
        from datetime import UTC, datetime, timedelta

        asked, cursor, start = 0, None, datetime(2026, 1, 1, tzinfo=UTC)
        with dg.DagsterInstance.ephemeral() as instance:
            for key in (keys.INSIGHTS, keys.DRIFT, keys.SEMANTIC_MODEL):
                instance.report_runless_asset_event(dg.AssetMaterialization(key))
            for quarter in range(24 * 4):
                instance.report_runless_asset_event(dg.AssetMaterialization(keys.INSIGHTS))
                now = start + timedelta(minutes=15 * quarter)
                result = dg.evaluate_automation_conditions(defs, instance, cursor=cursor, evaluation_time=now)
                asked, cursor = asked + result.get_num_requested(keys.SEMANTIC_MODEL), result.cursor
        assert asked == 8
