"""Batches by name: found, started once whatever happens on the way, followed through outages, cancelled."""

from __future__ import annotations

import pytest

from edge_ai_assets.resources.calling.patience import Patience, Refused, Unavailable
from edge_ai_assets.resources.spark.engine import Look
from edge_ai_assets.resources.spark.livy import Livy
from edge_ai_assets_tests.contract.control_plane_stub import RESET, Reply, Time
from edge_ai_assets_tests.contract.livy import PASSWORD, USER, cluster

SCRIPT = "abfss://lake@acct.dfs.core.windows.net/jobs/spark_features.py"
BUSY = Reply(503, {"msg": "busy"}, {"Retry-After": "7"})
PORTAL = Reply(200, b"<html>Sign in</html>", {"Content-Type": "text/html"})


@pytest.fixture
def stub(tmp_path):
    with cluster(tmp_path) as made:
        yield made


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def livy(stub, time):
    return Livy(
        stub.endpoint,
        USER,
        PASSWORD,
        stub.stub.ca,
        patience=Patience(seconds=600.0, sleep=time.sleep, clock=time.clock),
    )


def test_a_batch_is_started_with_script_arguments_and_options(stub, livy):
    livy.start("features-1", SCRIPT, ["--plan", "p"])
    (batch,) = stub.batches.values()
    assert batch["asked"] == {
        "name": "features-1",
        "file": SCRIPT,
        "args": ["--plan", "p"],
        "conf": {"spark.yarn.maxAppAttempts": "1"},
    }


@pytest.mark.parametrize(
    ("state", "look"),
    [
        ("starting", Look("starting", ended=False)),
        ("running", Look("running", ended=False)),
        ("success", Look("success", ended=True, worked=True)),
        ("dead", Look("dead", ended=True)),
        ("error", Look("error", ended=True)),
        ("killed", Look("killed", ended=True)),
    ],
)
def test_states_are_livys(stub, livy, state, look):
    stub.add("features-1", state)
    assert livy.look("features-1") == look
    assert livy.look("features-2") is None


def test_a_batch_is_found_among_many_and_of_two_with_its_name_the_newer(stub, livy):
    for number in range(250):
        stub.add(f"other-{number}" if number % 2 else None)
    stub.add("features-1", "dead")
    for number in range(120):
        stub.add(f"more-{number}")
    stub.add("features-1", "running")
    assert livy.look("features-1") == Look("running", ended=False)
    assert stub.stub.count("GET /livy/batches") == 4


@pytest.mark.parametrize(
    "fault", [RESET, BUSY, PORTAL, Reply(500, {"msg": "?"}), Reply(429), Reply(504, b"")]
)
@pytest.mark.parametrize("after", [False, True])
def test_a_batch_is_started_once_whatever_becomes_of_the_answer(stub, livy, time, fault, after):
    stub.stub.fail("POST", fault, after=after)
    livy.start("features-1", SCRIPT, [])
    assert [batch["name"] for batch in stub.batches.values()] == ["features-1"]
    assert stub.stub.count("POST") == (1 if after else 2)
    assert time.slept == [7.0] if fault is BUSY else time.slept


@pytest.mark.parametrize("fault", [RESET, BUSY, PORTAL, Reply(500, {"msg": "?"})])
def test_an_outage_is_waited_for(stub, livy, time, fault):
    stub.add("features-1")
    stub.stub.fail("GET", *[fault] * 5)
    assert livy.look("features-1") == Look("running", ended=False)
    assert len(time.slept) >= 5 and not stub.stub.faults


def test_an_outage_that_lasts_is_told_with_the_host(stub, livy, time):
    stub.stub.fail("GET", *[RESET] * 100)
    with pytest.raises(Unavailable, match=r"looking for batch features-1: 127\.0\.0\.1:\d+ is out of reach"):
        livy.look("features-1")
    assert 500 < time.now <= 600


def test_a_wrong_password_is_told_at_once_and_not_shown(stub, livy, time):
    stub.stub.tokens = {"Basic other"}
    with pytest.raises(Refused, match="refuses the credential") as caught:
        livy.look("features-1")
    assert PASSWORD not in str(caught.value) + repr(livy) and not time.slept


def test_what_livy_refuses_is_told_in_its_words(stub, livy):
    stub.stub.fail("POST", Reply(400, {"msg": "requirement failed: Local path cannot be added"}))
    with pytest.raises(Refused, match=r"starting batch features-1: .* refuses .*Local path cannot be added"):
        livy.start("features-1", SCRIPT, [])


def test_no_password_is_sent_in_the_clear():
    with pytest.raises(Refused, match="no https:// address"):
        Livy("http://127.0.0.1:1/livy", USER, PASSWORD).look("features-1")


def test_cancelling_deletes_what_is_under_way_and_nothing_else(stub, livy):
    number, done = stub.add("features-1"), stub.add("features-2", "success")
    livy.cancel("features-1")
    livy.cancel("features-2")
    livy.cancel("features-3")
    assert stub.deleted == [number] and list(stub.batches) == [done]


def test_cancelling_goes_on_after_a_lost_answer_and_gives_up_soon(stub, livy, time):
    stub.add("features-1")
    stub.stub.fail("DELETE", RESET, after=True)
    livy.cancel("features-1")
    assert not stub.batches
    stub.stub.fail("GET", *[RESET] * 100)
    with pytest.raises(Unavailable):
        livy.cancel("features-1")
    assert time.now < 60


def test_the_last_lines_say_why(stub, livy):
    stub.add("features-1", "dead")
    assert livy.why("features-1").splitlines() == [f"line {number}" for number in range(480, 500)]
    assert livy.why("features-2") == "its log is empty"


def test_a_livy_that_tells_no_names_is_followed_by_number(stub, livy):
    stub.names = False
    stub.add("other")
    livy.start("features-1", SCRIPT, [])
    assert livy.look("features-1") == Look("starting", ended=False)
    livy.cancel("features-1")
    assert stub.deleted == [2] and livy.look("features-1") is None
