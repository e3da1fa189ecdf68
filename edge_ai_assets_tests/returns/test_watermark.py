"""How complete a site is, in a sentence; and where its chain stands, as kept in a table."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.inbox import heads, tables, watermark
from edge_ai_assets.returns.inbox.heads import Head
from edge_ai_assets.returns.inbox.watermark import DAY, gaps, mark
from edge_ai_assets_tests import sent

NOW = 1_760_000_000_000_000
HEAD = Head(7, "d" * 64, 8_812, 0, 3, NOW, NOW)


def said(head=HEAD, days=0.0, **options):
    return mark("bergen", head, stale_days=7, now=NOW + round(days * DAY), **options)


def test_the_sentence_of_a_site_with_everything_wrong():
    found = said(days=14, arrived=[9, 13], refused=[8])
    assert found.sentence == (
        "complete through 8,812; 14 days stale; 2 gaps (package 8, 10 to 12); package 8 refused"
    )
    assert not found.whole


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (HEAD, "complete through 8,812"),
        (Head(), "nothing came yet"),
        (Head(1_234, "d" * 64, None, None, 0, NOW, NOW), "complete through package 1,234"),
        (Head(7, "d" * 64, 0, 41_000, 0, NOW, NOW), "complete through 0; 41,000 scores still at the site"),
        (
            Head(7, "d" * 64, 5, 0, 0, NOW + 366 * DAY, NOW),
            "complete through 5; its clock is 366.0 days ahead",
        ),
        (
            Head(7, "d" * 64, 5, 0, 0, NOW + DAY // 24, NOW),
            "complete through 5; its clock is 60 minutes ahead",
        ),
        (Head(7, "d" * 64, 5, 0, 0, NOW + DAY // 24 // 60, NOW), "complete through 5"),
        (Head(7, "d" * 64, 5, 0, 0, NOW - 366 * DAY, NOW), "complete through 5"),
    ],
)
def test_the_sentence_of_a_site_of_which_nothing_is_missing(head, sentence):
    found = said(head)
    assert found.sentence == sentence and found.whole


@pytest.mark.parametrize(("days", "stale"), [(0, False), (7, False), (7.01, True), (-400, False)])
@pytest.mark.parametrize("skew", [-366 * DAY, 0, 366 * DAY])
def test_staleness_is_by_our_clock_only(days, stale, skew):
    head = Head(7, "d" * 64, 5, 0, 0, NOW + skew, NOW)
    assert said(head, days).stale == stale == ("stale" in said(head, days).sentence)


@pytest.mark.parametrize(("registered", "stale"), [(None, False), (NOW, True), (NOW + 10 * DAY, False)])
def test_a_site_that_never_sent_anything_is_stale_from_its_registration_on(registered, stale):
    found = said(Head(), 14, registered_at=registered)
    assert (found.stale, found.whole) == (stale, not stale)
    assert found.sentence.startswith("nothing came yet")


def test_what_was_refused_is_forgotten_when_a_good_copy_came():
    assert said(refused=[3, 7]).refused == () and said(refused=[9, 9, 8]).refused == (8, 9)


@given(st.integers(0, 10**12), st.sets(st.integers(0, 10**12), max_size=20))
def test_gaps_are_what_is_missing_below_the_highest(last, arrived):
    found = gaps(last, arrived)
    highest = max({number for number in arrived if number > last}, default=last)
    missing = sum(stop - start + 1 for start, stop in found)
    assert missing == highest - last - len({number for number in arrived if number > last})
    assert all(last < start <= stop and stop + 1 in arrived for start, stop in found)
    assert list(found) == sorted(found)


HEADS = st.dictionaries(
    st.sampled_from("abc"),
    st.builds(
        Head,
        number=st.integers(1, 2**62),
        digest=st.text("0123456789abcdef", min_size=64, max_size=64),
        complete=st.none() | st.integers(0, 2**62),
        waiting=st.none() | st.integers(0, 2**62),
        lineage=st.integers(0, 2**62),
        created_at=st.integers(0, 2**47),
        received_at=st.integers(0, 2**47),
    ),
    min_size=1,
)


def test_what_is_written_is_read(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")

    @settings(max_examples=15, deadline=None)
    @given(HEADS)
    def check(some):
        heads.write(folder, some)
        assert heads.read(folder) == some

    assert heads.read(folder) == {}
    check()


def test_tables_of_a_version_without_watermarks_have_them_from_the_packages(tmp_path):
    world = sent.Arrivals(tmp_path)
    world.put(*sent.chain(packages=3))
    world.put(*sent.chain("narvik", 2, events=0), site="narvik")
    world.receive(limit=2)
    world.receive()
    before = heads.read(tmp_path / "tables")
    assert before["bergen"].number == 3 and before["bergen"].lineage == 6 and before["narvik"].complete == 6
    (tmp_path / "tables" / "watermarks").rename(tmp_path / "gone")
    assert heads.read(tmp_path / "tables") == before
    assert world.receive().packages == 0
    assert not tables.existing(tmp_path / "tables", "watermarks")
    assert watermark.mark("bergen", before["bergen"], stale_days=1, now=0).whole
