"""The lineage envelope: what was written is read again, what is on no list never leaves, and a line that is
torn, too long or of another version is refused."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge_ai_assets
from edge_ai_assets import interfaces
from edge_ai_assets.returns.package import lineage
from edge_ai_assets.returns.package.lineage import ALLOWED, CHECKS, Check, Event, decode, encode
from edge_ai_assets_tests.recorded import AT, run_id

GOLDEN = Path(__file__).parents[1] / "golden" / "lineage-1.jsonl"
RUN = run_id("bergen", 1)

EVENT = Event(
    n=17,
    kind="materialization",
    asset=("site", "scores"),
    partition="narvik",
    at=AT,
    run=RUN,
    job="score_sites",
    metadata={"release": 7, "anomalies": 2, "rows_per_second": 1.5},
)
CHECKED = Event(
    n=18,
    kind="check",
    asset=("site", "upload"),
    partition="narvik",
    at=AT + 1,
    run="",
    metadata={"pending": 4},
    check=Check("conservation", False, "ERROR", "does not hold at narvik"),
)
OBSERVED = Event(
    n=19,
    kind="observation",
    asset=("site", "upload"),
    partition="narvik",
    at=AT + 2,
    run="",
    metadata={"link": "disconnected", "package_names": ["narvik-00000001.zip"], "flaps": 0},
)
GOLDEN_EVENTS = [EVENT, CHECKED, OBSERVED]

words = st.from_regex(lineage.WORD, fullmatch=True)
values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    words,
    st.lists(words, max_size=5),
)


@st.composite
def events(draw):
    asset = draw(st.sampled_from(sorted(ALLOWED)))
    check, metadata = None, {}
    kind = draw(st.sampled_from(["materialization", "observation", *(["check"] if asset in CHECKS else [])]))
    names = ALLOWED[asset]
    if kind == "check":
        name = draw(st.sampled_from(sorted(CHECKS[asset])))
        says = draw(st.sampled_from(["", "all 3 sites serve", "not serving: bergen, narvik"]))
        check, names = (
            Check(name, draw(st.booleans()), draw(st.sampled_from(["WARN", "ERROR"])), says),
            CHECKS[asset][name],
        )
    metadata = draw(st.dictionaries(st.sampled_from(sorted(names)), values, max_size=5))
    return Event(
        n=draw(st.integers(1, 2**63 - 1)),
        kind=kind,
        asset=tuple(asset.split("/")),
        partition=draw(words),
        at=draw(st.integers(1, lineage.MAX_TIME - 1)),
        run=str(draw(st.one_of(st.just(""), st.uuids()))),
        job=draw(st.one_of(st.just(""), words)),
        metadata=metadata,
        check=check,
    )


@given(events())
def test_what_was_written_is_read_again(event):
    line = encode(event)
    assert decode(line) == event
    assert encode(decode(line)) == line
    assert b"\n" not in line


def test_a_line_is_canonical_json():
    line = encode(EVENT)
    assert line == json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")).encode()
    assert json.loads(line) == {
        "v": 1,
        "n": 17,
        "kind": "materialization",
        "asset": ["site", "scores"],
        "partition": "narvik",
        "at": AT,
        "run": RUN,
        "job": "score_sites",
        "metadata": {"release": 7, "anomalies": 2, "rows_per_second": 1.5},
        "check": None,
    }


def test_the_golden_lines_are_read():
    assert [decode(line) for line in GOLDEN.read_bytes().splitlines()] == GOLDEN_EVENTS


def test_the_golden_lines_are_written_byte_for_byte():
    assert b"".join(encode(event) + b"\n" for event in GOLDEN_EVENTS) == GOLDEN.read_bytes()


@given(st.integers(0, len(encode(CHECKED)) - 1))
def test_a_torn_line_is_refused(cut):
    with pytest.raises(ValueError, match="lineage"):
        decode(encode(CHECKED)[:cut])


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_refused(data):
    try:
        event = decode(data)
    except ValueError as error:
        assert str(error)
    else:
        assert decode(msgspec.json.encode(event)) == event


CHANGES = [
    ({"v": 2}, "lineage version 2, this version reads 1"),
    ({"v": None}, "lineage line"),
    ({"extra": 1}, "lineage line"),
    ({"n": 0}, "count from 1"),
    ({"n": 2**70}, "count from 1"),
    ({"kind": "run"}, "lineage line"),
    ({"asset": ["lake", "raw_telemetry"]}, "none of a site's"),
    ({"asset": []}, "none of a site's"),
    ({"partition": "a/b"}, "partition must be a name"),
    ({"partition": ""}, "partition must be a name"),
    ({"partition": "x" * 201}, "it has 201 characters"),
    ({"job": "a b"}, "job must be a name"),
    ({"run": "../index"}, "run must be the id of a run"),
    ({"run": "index"}, "run must be the id of a run"),
    ({"at": 0}, "µs from 1970"),
    ({"at": lineage.MAX_TIME}, "µs from 1970"),
    ({"asset": ["site", "scores", "x"]}, "none of a site's"),
    ({"asset": ["site", "a b"]}, "asset must be a name"),
    ({"metadata": {"a name": 1}}, "a name in metadata must be"),
    ({"metadata": {"release": "two words"}}, "'release' must be a finite number"),
    ({"metadata": {"release": "/a/path"}}, "'release' must be a finite number"),
    ({"metadata": {"release": "x" * 201}}, "'release' must be a finite number"),
    ({"metadata": {"release": ["a b"]}}, "'release' must be a finite number"),
    ({"metadata": {"release": ["a"] * (lineage.MAX_LIST + 1)}}, "'release' must be a finite number"),
    ({"metadata": {"release": {"a": 1}}}, "lineage line"),
    ({"metadata": {"release": 2**64}}, "'release' must be a finite number"),
    ({"kind": "check"}, "a check belongs to"),
    ({"check": msgspec.to_builtins(CHECKED.check)}, "a check belongs to"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_breaks_the_envelope_is_refused(change, message):
    line = json.dumps({**json.loads(encode(EVENT)), **change}).encode()
    with pytest.raises(ValueError, match=re.escape(message)):
        decode(line)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a check"}, "check must be a name"),
        ({"description": "x" * 201}, "one line of at most 200"),
        ({"description": "two\nlines"}, "one line of at most 200"),
        ({"severity": "INFO"}, "lineage line"),
        ({"passed": 1}, "lineage line"),
        ({"extra": 1}, "lineage line"),
    ],
)
def test_what_breaks_a_check_is_refused(change, message):
    line = json.loads(encode(CHECKED))
    line["check"].update(change)
    with pytest.raises(ValueError, match=re.escape(message)):
        decode(json.dumps(line).encode())


REFUSED_HERE = [
    (EVENT, {"asset": ("site", "canary")}, "'site/canary' is on no list"),
    (EVENT, {"metadata": {"canary": 1}}, "'canary' of site/scores is on no list"),
    (EVENT, {"metadata": {"pending": 1}}, "'pending' of site/scores is on no list"),
    (CHECKED, {"metadata": {"road": "link"}}, "'road' of site/upload is on no list"),
    (CHECKED, {"check": Check("canary", True, "WARN")}, "check 'canary' of site/upload is on no list"),
    (
        CHECKED,
        {"check": Check("conservation", True, "WARN", "Flow 12.3")},
        "none of the texts that may leave",
    ),
]


@pytest.mark.parametrize(("event", "change", "message"), REFUSED_HERE)
def test_what_is_on_no_list_is_not_written_and_yet_read(event, change, message):
    """A site refuses to let it leave; Azure takes it from a site whose version has it on its list."""
    changed = msgspec.structs.replace(event, **change)
    with pytest.raises(ValueError, match=re.escape(message)):
        encode(changed)
    assert decode(msgspec.json.encode(changed)) == changed


def test_a_long_line_is_refused_before_it_is_read():
    with pytest.raises(ValueError, match="65,536 are allowed"):
        decode(b'{"v":1,' + b" " * lineage.MAX_LINE)


def test_deep_nesting_is_refused():
    with pytest.raises(ValueError, match="lineage line"):
        decode(b"[" * 60_000)


def test_the_longest_list_of_longest_names_fits_a_line():
    names = ["x" * lineage.MAX_TEXT] * lineage.MAX_LIST
    event = msgspec.structs.replace(EVENT, asset=("site", "egress"), metadata={"package_names": names})
    assert decode(encode(event)) == event


CANARIES = [
    "canary 12.345",
    "/srv/canary",
    "canary\n",
    "c" * 201,
    {"canary": 1},
    [["canary"]],
    float("nan"),
    None,
    b"c",
]


@pytest.mark.parametrize("asset", sorted(ALLOWED))
def test_by_default_nothing_leaves(asset):
    unlisted = {"canary": 1, "path": "canary", "url": "canary", "interrupted": "canary"}
    assert lineage.allowed(asset, unlisted) == {}
    assert lineage.allowed("lake/raw_telemetry", {"release": 1}) == {}


@pytest.mark.parametrize(("asset", "value"), list(itertools.product(sorted(ALLOWED), CANARIES)))
def test_a_listed_name_lets_no_text_leave_that_is_no_name(asset, value):
    assert lineage.allowed(asset, dict.fromkeys(ALLOWED[asset], value)) == {}


COUNTS = {
    "site/scores": {"scored_rows": 20, "anomalies": 3, "files": 2, "rejected_rows": 1},
    "site/insights": {"rows": 20, "anomaly": 3, "normal": 17, "anomaly_rate": 0.15, "quarantined": 0},
}
VOLUMES = {"scored_rows", "files", "rejected_rows", "rows", "quarantined"}


@pytest.mark.parametrize("asset", sorted(COUNTS))
@pytest.mark.parametrize(("smallest", "all_of_it"), [(None, False), (21, False), (20, True), (2, True)])
def test_what_the_scores_of_a_run_mean_is_told_of_many_only(asset, smallest, all_of_it):
    told = lineage.allowed(asset, COUNTS[asset], smallest=smallest)
    assert set(told) == (set(COUNTS[asset]) if all_of_it else set(COUNTS[asset]) & VOLUMES)


@pytest.mark.parametrize("rows", [None, "20", 20.0, True])
def test_a_run_that_does_not_say_how_many_rows_it_had_is_a_small_one(rows):
    metadata = {**COUNTS["site/scores"], "scored_rows": rows}
    assert "anomalies" not in lineage.allowed("site/scores", metadata, smallest=1)


def test_what_is_outside_the_range_of_training_never_leaves():
    metadata = {**COUNTS["site/scores"], "outside_trained_range": 0}
    assert "outside_trained_range" not in lineage.allowed("site/scores", metadata, smallest=1)


def test_what_tells_the_meaning_of_scores_is_on_the_lists():
    assert all({rows, *names} <= ALLOWED[asset] for asset, (rows, names) in lineage.MEANING.items())


def test_of_a_list_that_is_too_long_the_newest_leave():
    names = [f"narvik-{n:08}.zip" for n in range(1, 1000)]
    [kept] = lineage.allowed("site/egress", {"package_names": names}).values()
    assert kept == names[-lineage.MAX_LIST :]


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        ("all 3 sites serve", True),
        ("not serving: bergen, narvik", True),
        ("holds at all 12 sites", True),
        ("does not hold at bergen", True),
        ("does not hold at bergen: Flow was 12.3", False),
        ("Flow was 12.3", False),
        ("not serving: " + "x" * 300, False),
        ("", False),
        (None, False),
    ],
)
def test_only_our_own_texts_leave(text, leaves):
    assert lineage.described(text) == (text if leaves else "")


def test_the_lists_are_about_the_site_chain():
    assert set(ALLOWED) == {spec.key.to_user_string() for spec in interfaces.SITE_CHAIN}
    assert set(CHECKS) <= set(ALLOWED)


def test_every_name_on_a_list_is_one_that_a_site_writes():
    folder = Path(edge_ai_assets.__file__).parent / "stack_hub"
    written = "".join(path.read_text("utf-8") for path in folder.rglob("*.py"))
    written += (
        "outbox_scored outbox_uploaded outbox_withheld outbox_quarantined outbox_expired outbox_pending"
    )
    lists = [*ALLOWED.values(), *(names for checks in CHECKS.values() for names in checks.values())]
    assert [name for name in sorted(set().union(*lists)) if not re.search(rf"\b{name}\b", written)] == []
