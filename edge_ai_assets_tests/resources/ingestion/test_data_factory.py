"""Data Factory against its contract stub: one run for a Dagster run, through faults, restarts, interrupts."""

import dataclasses

import pytest

from edge_ai_assets.resources.calling.control_plane import ControlPlane
from edge_ai_assets.resources.calling.patience import Patience, Refused, Unavailable
from edge_ai_assets.resources.ingestion import pipeline_run
from edge_ai_assets.resources.ingestion.data_factory import MARK, DataFactory
from edge_ai_assets.resources.ingestion.pipeline_run import PipelineFailed
from edge_ai_assets_tests.contract.control_plane_stub import (
    RESET,
    SILENCE,
    Reply,
    Time,
    Tokens,
    read_seconds,
    serving,
)
from edge_ai_assets_tests.contract.data_factory import BROKEN, SUBSCRIPTION, DataFactoryStub

BUSY = Reply(429, {"error": {"code": "TooManyRequests", "message": "Slow down."}}, {"Retry-After": "17"})
BROKE = Reply(500, {"error": {"code": "InternalServerError", "message": "Oops."}})
AWAY = Reply(503, b"<html>no</html>")
FAULTS = {"429": BUSY, "500": BROKE, "503": AWAY, "reset": RESET, "hung": SILENCE}


@pytest.fixture
def stub(tmp_path):
    with serving(tmp_path) as made:
        yield made


@pytest.fixture
def azure(stub):
    return DataFactoryStub(stub)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def factory(stub, time, request):
    plane = ControlPlane(
        stub.endpoint, Tokens(), "https://arm/.default", stub.ca, read_seconds=read_seconds(request)
    )
    patience = Patience(seconds=300, sleep=time.sleep, clock=time.clock)
    return DataFactory(plane, SUBSCRIPTION, "rg", "adf", "land readings", {"folder": "a b"}, patience)


@pytest.fixture
def run(factory):
    def run(run_id="run-1", kin=(), **options):
        said.clear()
        return pipeline_run.run(factory, run_id, kin, said.append, **options)

    said = []
    run.said = said
    return run


def test_a_run_is_started_with_parameters_and_followed_to_its_end(azure, stub, run, time):
    done = run()
    assert done.status == "Succeeded" and done.duration_in_ms == 90_000
    assert azure.runs[done.run_id]["parameters"] == {"folder": "a b", MARK: "run-1"}
    assert stub.count("createRun") == 1 and stub.count(f"GET {azure.runs[done.run_id]['id']}") == 3
    assert len(time.slept) == 2 and 4 < time.slept[0] < time.slept[1] < 30


def test_the_token_is_asked_for_this_service(azure, run, factory):
    run()
    assert set(factory.service.credential.scopes) == {"https://arm/.default"}


def test_activities_tell_what_they_did_over_all_pages(azure, run, factory):
    azure.activities = [{"activityName": f"a{n}", "status": "Succeeded"} for n in range(4)] + azure.activities
    told = factory.activities(run())
    assert [each.activity_name for each in told] == ["a0", "a1", "a2", "a3", "Look", "Copy readings"]
    copy = told[-1]
    assert copy.number("rowsCopied", "rowsWritten") == 499 and copy.number("nothing") is None
    assert copy.problem == "" and told[0].number("rowsRead") is None


@pytest.mark.parametrize(
    "fault", [BUSY, BROKE, AWAY, RESET, SILENCE], ids=["429", "500", "503", "reset", "hung"]
)
@pytest.mark.parametrize("where", ["queryPipelineRuns", "GET", "createRun"])
def test_outages_on_the_way_are_lived_through(azure, stub, run, fault, where):
    stub.fail(where, fault, fault)
    assert run().status == "Succeeded"
    assert stub.count("createRun") == (3 if where == "createRun" else 1)
    assert len(azure.runs) == 1


def test_what_the_service_asks_to_wait_is_waited(azure, stub, run, time):
    stub.fail("createRun", BUSY)
    run()
    assert time.slept[0] == 17


@pytest.mark.parametrize("lost", [RESET, BROKE, SILENCE], ids=["reset", "500", "hung"])
def test_a_run_whose_start_had_no_answer_is_found_and_not_started_again(azure, stub, run, time, lost):
    stub.fail("createRun", lost, after=True)
    assert run().status == "Succeeded"
    assert stub.count("createRun") == 1 and len(azure.runs) == 1
    assert "may have been started" in run.said[0] and time.slept[0] == 30


def test_an_outage_that_outlasts_patience_ends_with_a_sentence(azure, stub, run, time):
    stub.fail("createRun", *[AWAY] * 50)
    with pytest.raises(Unavailable, match=r"starting pipeline land readings: .* out of order \(503\)"):
        run()
    assert time.now <= 300 and max(time.slept) <= 60


def test_an_outage_while_following_leaves_the_run_and_the_next_attempt_takes_it_up(azure, stub, run):
    stub.fail("GET", *[RESET] * 50)
    with pytest.raises(Unavailable, match="out of reach"):
        run()
    assert stub.count("cancel") == 0
    stub.faults.clear()
    assert run().status == "Succeeded" and stub.count("createRun") == 1


@pytest.mark.parametrize("status", ["Queued", "InProgress", "Succeeded"])
def test_a_restarted_run_takes_up_its_own_pipeline_run(azure, stub, run, status):
    for n in range(5):
        azure.add("Succeeded", n, **{MARK: f"other-{n}"})
    found = azure.add(status, 1, **{MARK: "run-1"})
    azure.runs[found]["_course"] = [status, "Succeeded"]
    assert run().run_id == found and stub.count("createRun") == 0


@pytest.mark.parametrize("status", ["Failed", "Cancelled"])
def test_a_retry_after_a_failure_starts_anew(azure, stub, run, status):
    failed = azure.add(status, 1, **{MARK: "run-1"})
    assert run().run_id != failed and stub.count("createRun") == 1


@pytest.mark.parametrize(("status", "starts"), [("InProgress", 0), ("Succeeded", 1), ("Failed", 1)])
def test_a_re_execution_takes_up_only_what_is_under_way(azure, stub, run, status, starts):
    first = azure.add(status, 1, **{MARK: "run-0"})
    azure.runs[first]["_course"] = [status, "Succeeded"]
    run("run-1", kin={"run-0"})
    assert stub.count("createRun") == starts


def test_a_failed_activity_is_told(azure, run):
    azure.course, azure.activities = ["InProgress", "Failed"], [BROKEN]
    with pytest.raises(PipelineFailed, match="Failed: Copy readings: 2200: The source is gone"):
        run()


def test_what_a_failed_activity_says_is_cut_to_what_a_person_reads(azure, run):
    long = {**BROKEN, "error": {**BROKEN["error"], "message": "gone " * 2_000_000}}
    azure.course, azure.activities = ["InProgress", "Failed"], [long] * 40
    with pytest.raises(PipelineFailed, match="Copy readings: 2200: gone gone") as caught:
        run()
    assert len(str(caught.value)) < 12_000


def test_a_row_that_is_not_as_documented_is_a_sentence(azure, stub, run):
    azure.activities = [{"activityName": 7}]
    azure.course = ["Failed"]
    with pytest.raises(Refused, match="the answer is not as documented: Expected `str`, got `int`"):
        run()


def test_a_run_that_was_cancelled_there_failed_here(azure, run):
    azure.course, azure.activities = ["InProgress", "Canceling", "Cancelled"], []
    with pytest.raises(PipelineFailed, match="Cancelled: no reason given"):
        run()


def test_an_interrupt_cancels_a_run_too_whose_start_had_no_answer(azure, stub, run, time):
    def strike():
        raise KeyboardInterrupt

    stub.fail("createRun", RESET, after=True)
    azure.course, time.then = ["InProgress"], strike
    with pytest.raises(KeyboardInterrupt):
        run()
    assert [each["_course"] for each in azure.runs.values()] == [["Cancelled"]]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_cancels_the_pipeline_run(azure, stub, run, time, interrupt):
    def strike():
        raise interrupt

    azure.course, time.then = ["InProgress"], strike
    with pytest.raises(interrupt):
        run()
    (cancel,) = [each for each in stub.asked if each.path.endswith("/cancel")]
    assert cancel.query["isRecursive"] == "true"
    assert next(iter(azure.runs.values()))["_course"] == ["Cancelled"]


def test_an_interrupt_without_a_link_is_told_and_ends(azure, stub, run, time):
    def strike():
        if not stub.faults:
            stub.fail("cancel", *[RESET] * 50)
            raise KeyboardInterrupt

    azure.course, time.then = ["InProgress"], strike
    with pytest.raises(KeyboardInterrupt):
        run()
    assert "may go on" in run.said[-1] and time.now < 60


def test_a_run_that_takes_too_long_is_cancelled(azure, stub, run, time):
    azure.course = ["InProgress"]
    with pytest.raises(PipelineFailed, match=r"took more than 0\.2 hours"):
        run(longest=720)
    assert stub.count("cancel") == 1 and time.now <= 720


def test_an_expired_token_is_renewed_once(azure, stub, run, factory):
    stub.tokens = {"token-2"}
    assert run().status == "Succeeded" and factory.service.credential.given == 2


def test_a_token_that_is_never_taken_is_refused_with_what_to_check(azure, stub, run):
    stub.tokens = set()
    with pytest.raises(Refused, match=r"refuses the credential \(401 Expired.*clock") as told:
        run()
    assert "token-" not in str(told.value) and len(stub.asked) == 2


def test_a_credential_that_cannot_be_had_is_refused(azure, stub, run, factory):
    from azure.core.exceptions import ClientAuthenticationError

    def get_token(*scopes, **_):
        raise ClientAuthenticationError("AADSTS7000215: Invalid client secret provided.\nTrace ID: 1")

    factory.service.credential.get_token = get_token
    with pytest.raises(Refused, match=r"no token for 127.*AADSTS7000215: Invalid client secret provided\.; "):
        run()
    assert stub.asked == []


def error(code, message):
    return {"error": {"code": code, "message": message}}


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (403, error("AuthorizationFailed", "No right."), r"refuses the credential.*No right\."),
        (404, error("PipelineNotFound", "None."), r"knows no such thing \(404 PipelineNotFound\)"),
        (400, error("BadRequest", "folder?"), r"refuses \(400 BadRequest\): folder"),
        (200, {"id": 7}, "not as documented"),
    ],
)
def test_a_refusal_is_a_sentence_and_is_not_repeated(azure, stub, run, status, body, says):
    stub.fail("createRun", Reply(status, body))
    with pytest.raises(Refused, match=says):
        run()
    assert stub.count("createRun") == 1


@pytest.mark.parametrize(
    "reply", [Reply(200, b"<html>login</html>"), Reply(302, b"", {"Location": "/login"})]
)
def test_a_portal_is_no_service(azure, stub, factory, reply):
    stub.fail("GET", reply)
    with pytest.raises(Unavailable, match="a portal maybe"):
        factory.look()


def test_a_server_that_another_authority_vouches_for_is_not_talked_to(azure, stub, factory, tmp_path):
    other = dataclasses.replace(factory.service, ca=None)
    with pytest.raises(Unavailable, match="out of reach"):
        dataclasses.replace(factory, service=other).look()
    assert stub.asked == []


def test_a_pipeline_that_is_there_is_seen(azure, factory):
    factory.look()
