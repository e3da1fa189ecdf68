"""Plant assets on their way home: who may know of which, that nothing is lost by telling them apart, and that
a policy without them lets out what it did before there were any."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_ai_assets import usecase as usecases
from edge_ai_assets.returns.inbox import daily, tables
from edge_ai_assets.returns.outbox import columns, insights
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.schema import Context, ScoreRow, decode
from edge_ai_assets.returns.package import aggregates as cells
from edge_ai_assets.returns.package import packages, parts
from edge_ai_assets.returns.package.packing import pack
from edge_ai_assets_tests import blocks, sent
from edge_ai_assets_tests.returns import canaries

pytestmark = pytest.mark.usefixtures("counting")
HOUR = 3_600_000_000
START = 1_760_000_000_000_000 // HOUR * HOUR
SMALLEST = 10


def row(sequence: int, hour: int, asset: str | None, anomaly: bool, score: float) -> ScoreRow:
    record = msgspec.json.encode({"inputs": {}, "context": {"_asset": asset}})
    kind = "anomaly" if anomaly else "normal"
    return ScoreRow(
        *(sequence, START + hour * HOUR, "r1", score, int(anomaly), 0, record, 1, kind, None, None, None)
    )


def told(rows, policy):
    broken = defaultdict(list)
    found = cells.aggregates(columns.of_rows(rows, broken), policy, 60)
    assert not broken
    return found


plants = st.lists(
    st.tuples(
        st.integers(0, 1), st.sampled_from(["P-1", "P-2", "P-3", None]), st.booleans(), st.floats(0, 1)
    ),
    max_size=150,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plants, st.sampled_from(["as_is", "pseudonymised"]))
def test_the_assets_of_a_window_add_up_to_it_and_none_is_small(with_kinds, made, how):
    policy = with_kinds("aggregate", "anomaly", "normal", asset=how, score="as_is")
    rows = [row(number, *each) for number, each in enumerate(made, 1)]
    found = told(rows, policy)
    assert all(cell.rows >= SMALLEST for cell in found)
    assert len({(cell.window, cell.asset) for cell in found}) == len(found)
    named = dict(zip(["P-1", "P-2", "P-3"], _leaving(policy, ["P-1", "P-2", "P-3"]), strict=True))
    for hour in (0, 1):
        of_window = [each for each in made if each[0] == hour]
        own = {cell.asset: cell for cell in found if cell.window == START + hour * HOUR}
        counts = Counter(asset for _, asset, _, _ in of_window)
        alone = {asset for asset, count in counts.items() if asset and count >= SMALLEST}
        assert own.keys() - {None} == {named[asset] for asset in alone}
        for asset in [*alone, None]:
            some = [each for each in of_window if (each[1] if each[1] in alone else None) == asset]
            cell = own.get(named.get(asset))
            if cell is None:
                assert len(some) < SMALLEST
                continue
            assert (cell.rows, cell.anomalies) == (len(some), sum(anomaly for _, _, anomaly, _ in some))
            assert math.isclose(cell.score_sum, math.fsum(score for *_, score in some), abs_tol=1e-9)
        # What is told of a window without assets is told with them, but for fewer than a group.
        assert 0 <= len(of_window) - sum(cell.rows for cell in own.values()) < SMALLEST


def _leaving(policy, assets):
    (scores,) = columns.of_rows([row(n, 0, asset, False, 0.5) for n, asset in enumerate(assets, 1)], {})
    return policy.assets(scores)


def test_pseudonyms_are_those_that_rows_leave_with(with_kinds, contract):
    policy = with_kinds("aggregate", "normal", asset="pseudonymised")
    rows = [row(number, 0, "P-1", False, 0.5) for number in range(1, 11)]
    (cell,) = told(rows, policy)
    assert cell.asset == policy.row(rows[0], contract)["_asset"] and "P-1" not in cell.asset


def test_without_a_rule_windows_are_told_alone(with_kinds):
    rows = [row(number, 0, f"P-{number % 3}", False, 0.5) for number in range(1, 31)]
    (cell,) = told(rows, with_kinds("aggregate"))
    assert (cell.rows, cell.asset) == (30, None)


@pytest.mark.parametrize("stay", [1, SMALLEST - 1])
def test_the_rows_that_leave_do_not_give_away_the_others_of_their_asset(with_kinds, stay):
    """Of all rows of the window enough stay, of this asset too few."""
    policy = with_kinds("aggregate", "anomaly", asset="as_is", score="as_is")
    rows = [row(number, 0, "P-1", number > stay, 0.5) for number in range(1, 31)]
    rows += [row(number, 0, "P-2", False, 0.5) for number in range(31, 61)]
    assert [(cell.asset, cell.rows, cell.score_sum) for cell in told(rows, policy)] == [
        ("P-1", 30, None),
        ("P-2", 30, 15.0),
    ]


def batch(assets, *, known=True, predicted=None):
    context = [{"_run": "r"} | ({"_asset": asset} if known else {}) for asset in assets]
    records = [msgspec.json.encode({"inputs": {"Flow": 1.0}, "context": each}) for each in context]
    yes = predicted or [number % 2 == 0 for number in range(len(records))]
    return blocks.batch(records, [0.5] * len(records), yes, at=START)


def packed(folder, policy, contract, key, *batches, limit=1_000):
    """All that leaves of some batches, as the bytes of packages."""
    found = []
    folder.mkdir(exist_ok=True)
    with Outbox(folder / "o.db") as outbox:
        for each in batches:
            outbox.append([each])
        insights.derive(outbox)
        while sealed := pack(
            outbox, "bergen", policy, {"r1": contract}, key, folder / "spool", at=START, limit=limit
        ):
            found.append(sealed.path.read_bytes())
        assert outbox.counts().conserved
    return found


def test_the_outbox_keeps_the_asset_of_a_score(tmp_path):
    with Outbox(tmp_path / "o.db") as outbox:
        outbox.append([batch(["P-1", None])])
        insights.derive(outbox)
        contexts = [decode(row).context for row in outbox.rows(1, 2)]
    assert contexts == [Context(run="r", asset="P-1"), Context(run="r")]


def test_assets_that_no_rule_lets_out_change_no_byte(tmp_path, with_kinds, contract, key):
    policy = with_kinds(*canaries.KINDS, smallest=2)
    assets = [f"P-{number % 5}" for number in range(60)]
    with_assets, without = (
        packed(tmp_path / f"{known}", policy, contract, key, batch(assets, known=known))
        for known in (True, False)
    )
    assert with_assets == without and len(without) == 1


@pytest.mark.parametrize(("how", "leaks"), [("pseudonymised", []), ("as_is", True)])
def test_an_asset_that_leaves_under_a_pseudonym_is_in_no_byte(
    tmp_path, with_kinds, contract, key, how, leaks
):
    policy = with_kinds(*canaries.KINDS, smallest=2, asset=how, run=None)
    name = f"{canaries.TEXT} pump"
    (data,) = packed(tmp_path, policy, contract, key, batch([name] * 30))
    (tmp_path / "p.zip").write_bytes(data)
    found = canaries.leaks(tmp_path / "p.zip")
    assert (parts.AGGREGATES in found and parts.INSIGHTS in found) if leaks else found == []
    (cell,) = packages.read(data, [key.public_key()]).aggregates.to_pylist()
    assert cell["rows"] == 30 and (cell["asset"] == name) is (how == "as_is")


def test_from_the_outbox_to_the_daily_table_nothing_is_lost(tmp_path, with_kinds, contract, key):
    """In packages, imported twice and in any order, sums over assets are the sums of the site."""
    policy = with_kinds("aggregate", "anomaly", asset="as_is", smallest=2)
    chance = random.Random(1)
    assets = [chance.choice(["P-1", "P-2", None]) for _ in range(400)]
    made = packed(tmp_path, policy, contract, key, batch(assets[:250]), batch(assets[250:]), limit=100)
    assert len(made) == 4
    world = sent.Arrivals(tmp_path)
    world.keys["bergen"] = [key.public_key()]
    for data in reversed(made):
        number = packages.read(data, [key.public_key()]).manifest.number
        world.put((parts.name_of("bergen", number), data))
        world.receive()
    before = world.digest()
    (world.tables / "watermarks").rename(tmp_path / "lost")
    world.receive()  # all of it again
    assert world.digest() == before
    daily.refresh(world.tables, assets=True)
    found = {each["asset"]: each for each in tables.rows(world.tables, daily.NAME)}
    scored = Counter(assets)
    anomalies = Counter(asset for number, asset in enumerate(assets) if number % 2 == 0)
    assert {asset: each["scored"] for asset, each in found.items()} == scored
    assert {asset: each["anomalies"] for asset, each in found.items()} == anomalies
    assert daily.refresh(world.tables, assets=True).days_computed == 0
    assert sum(each["insights"] for each in found.values()) == tables.count(world.tables, "insights") == 200


def test_the_daily_table_of_a_use_case_without_assets_is_what_it_was(tmp_path):
    world = sent.Arrivals(tmp_path)
    world.put(*sent.chain(packages=2))
    world.receive()
    daily.refresh(world.tables)
    columns = [field.name for field in tables.existing(world.tables, daily.NAME).schema().fields]
    assert columns == [
        *("day", "site", "release", "insights", "anomalies", "mean_score", "scored", "anomalies_share")
    ]
    # The word comes later: days that receive something get assets, the others stay.
    world.put(*sent.chain(packages=3)[2:])
    world.receive()
    assert daily.refresh(world.tables, assets=True).days_computed == 1
    assert {row["asset"] for row in tables.rows(world.tables, daily.NAME)} == {None}


def test_what_a_site_signs_as_fields_breaks_no_daily_table(tmp_path):
    world = sent.Arrivals(tmp_path)
    given = [{"_asset": "P-1"}, {"_asset": 7.5}, {}, {"_asset": ""}]
    rows = [
        parts.Insight(number, START, "r1", "anomaly", 0.5, True, fields)
        for number, fields in enumerate(given, 1)
    ]
    world.put((parts.name_of("bergen", 1), sent.package("bergen", 1, "", insights=rows, aggregates=[])))
    assert world.receive().packages == 1
    daily.refresh(world.tables, assets=True)
    found = {row["asset"]: row["insights"] for row in tables.rows(world.tables, daily.NAME)}
    assert found == {"P-1": 1, "7.5": 1, None: 2}


def test_a_table_of_aggregates_without_assets_is_widened_and_takes_none_twice(tmp_path):
    from deltalake import write_deltalake

    world, elsewhere = sent.Arrivals(tmp_path), sent.Arrivals(tmp_path / "elsewhere")
    chain = sent.chain(packages=2)
    elsewhere.put(*chain[:1])
    elsewhere.receive()
    old = tables.existing(elsewhere.tables, "aggregates").to_pyarrow_table().drop_columns(["asset"])
    write_deltalake(str(world.tables / "aggregates"), old)
    world.put(*chain)
    assert world.receive().packages == 2
    assert tables.count(world.tables, "aggregates") == 2
    assert tables.existing(world.tables, "aggregates").to_pyarrow_table()["asset"].null_count == 2


def test_format_2_knows_no_assets(key):
    """Nor may a package that says it is of format 2 hold one."""
    data = sent.package("bergen", 1, "", aggregates=[parts.Aggregate("r1", START, 30, 2, 0, 1.5, "P-1")])
    (cell,) = packages.read(data, [sent.KEY.public_key()]).aggregates.to_pylist()
    assert cell["asset"] == "P-1"
    manifest, members = packages._open(data, [sent.KEY.public_key()])
    older = packages.manifests.sealed(msgspec.structs.replace(manifest, format=2), sent.KEY)
    with pytest.raises(packages.PackageError, match=r"aggregates.parquet has other columns than its format"):
        packages.read(packages._zip({packages.MANIFEST: older, **members}), [sent.KEY.public_key()])


def test_the_bundled_pumps_are_told_apart():
    case = usecases.load(usecases.BUNDLED / "pump-station.yaml")
    assert case.plant_asset and "aggregate" in case.egress.kinds
    assert "_asset" in {field.name for field in case.egress.fields}
