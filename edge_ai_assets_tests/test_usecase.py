"""A use case file: what is wrong with it is said with line, field, value and bound, and what is right comes
back as it went in."""

import copy

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets import usecase
from edge_ai_assets.usecase import BUNDLED, Ring, Road, UseCase, UseCaseError, load, loads

GOOD = """\
name: mill
source:
  missing: [-200]
time: {columns: [time]}
runs: {column: run}
features:
  - name: Flow
    range: [0, 10]
  - name: Mode
    kind: category
    categories: [eco, full]
label:
  column: fault
  positive: [1]
gates:
  f1: 0.5
drift:
  bins: 10
egress:
  fields:
    - {name: Flow, leaves: as_is}
sites:
  - name: north
  - name: south
"""
BAD = [
    # what is written, what instead, line, field, what is said
    ("name: south", "name: south\n    value: north", 24, "sites.1", "'north' is given more"),
    (
        "name: south",
        "name: south\n    value: x\n  - {name: x, value: y}",
        25,
        "sites.1.value",
        "another site's name",
    ),
    ("as_is}", "pseudonymised}", 21, "egress.fields.0.leaves", "cannot be pseudonymised"),
    (
        "{name: Flow, leaves: as_is}",
        "{name: _time, leaves: pseudonymised}",
        21,
        "egress.fields.0.leaves",
        "cannot be pseudo",
    ),
    ("name: mill", "name: Mill!", 1, "name", "'Mill!'"),
    ("name: mill", "nmae: mill", 1, "name", "Field required"),
    ("name: mill", "nmae: mill", 1, "nmae", "Extra inputs are not permitted (it is 'mill')"),
    ("name: mill", "name: mill\nextra: 1", 2, "extra", "not permitted (it is 1)"),
    ("[-200]", "[null]", 3, "source.missing.0", "valid number or"),
    ("missing: [-200]", "delimiter: ab", 3, "source.delimiter", "at most 1 character (it is 'ab')"),
    ("missing: [-200]", "decimal: ;", 3, "source.decimal", "(it is ';')"),
    ("missing: [-200]", "{delimiter: ',', decimal: ','}", 3, "source.delimiter", "both ','"),
    ("missing: [-200]", "encoding: klingon", 3, "source.encoding", "'klingon' is no encoding"),
    ("{columns: [time]}", "{columns: []}", 4, "time.columns", "at least 1"),
    ("{columns: [time]}", "{columns: time}", 4, "time.columns", "(it is 'time')"),
    ("{column: run}", "{}", 5, "runs", "exactly one of column, every and rows"),
    ("{column: run}", "{column: run, rows: 50}", 5, "runs", "exactly one of"),
    ("{column: run}", "{every: 0d}", 5, "runs.every", "(it is '0d')"),
    ("{column: run}", "{rows: 9}", 5, "runs.rows", "greater than or equal to 10 (it is 9)"),
    ("name: Flow\n", "name: _time\n", 7, "features.0", "'_time': names that begin with an underscore"),
    ("name: Flow\n", "name: ''\n", 7, "features.0.name", "at least 1 character (it is '')"),
    ("name: Flow\n", f"name: {'x' * 201}\n", 7, "features.0.name", "at most 200 characters"),
    ("name: Flow\n", "name: fault\n", 7, "features.0.name", "'fault' is a feature and also the label"),
    ("name: Flow\n", "name: run\n", 7, "features.0.name", "'run' is a feature and also"),
    ("range: [0, 10]", "range: [10, 0]", 7, "features.0", "range [10.0, 0.0] must rise"),
    ("range: [0, 10]", "range: [.nan, 0]", 7, "features.0", "range [nan, 0.0] must rise"),
    ("range: [0, 10]", "range: [0]", 8, "features.0.range.1", "Field required"),
    ("range: [0, 10]", "range: [0, ten]", 8, "features.0.range.1", "valid number, unable to parse"),
    ("range: [0, 10]", "categories: [a]", 7, "features.0", "a number has no categories"),
    ("name: Mode\n", "name: Flow\n", 9, "features.1", "feature 'Flow' is given more than once"),
    ("kind: category", "kind: text", 10, "features.1.kind", "(it is 'text')"),
    ("categories: [eco, full]", "unit: bar", 9, "features.1", "a category needs its categories"),
    ("categories: [eco, full]", "categories: [1]", 11, "features.1.categories.0", "valid string (it is 1)"),
    ("positive: [1]", "above: .nan", 14, "label.above", "finite number (it is nan)"),
    ("positive: [1]", "positive: null", 12, "label", "exactly one of positive and above"),
    ("positive: [1]", "positive: [1]\n  above: 2", 12, "label", "exactly one of positive and above"),
    ("f1: 0.5", "f1: 1.5", 16, "gates.f1", "less than or equal to 1 (it is 1.5)"),
    ("f1: 0.5", "f1: .nan", 16, "gates.f1", "finite number (it is nan)"),
    ("f1: 0.5", "parity: 0", 16, "gates.parity", "greater than 0 (it is 0)"),
    ("bins: 10", "bins: 1", 18, "drift.bins", "greater than or equal to 2 (it is 1)"),
    ("bins: 10", "factor: .inf", 18, "drift.factor", "finite number (it is inf)"),
    (
        "{name: Flow, leaves: as_is}",
        "{name: Flwo, leaves: as_is}",
        21,
        "egress.fields.0.name",
        "'Flwo' is no",
    ),
    ("leaves: as_is", "leaves: freely", 21, "egress.fields.0.leaves", "(it is 'freely')"),
    ("leaves: as_is", "leaves: rounded", 21, "egress.fields.0", "rounded needs it"),
    ("leaves: as_is", "leaves: as_is, digits: 3", 21, "egress.fields.0", "digits goes with rounded"),
    ("leaves: as_is", "leaves: rounded, digits: 13", 21, "egress.fields.0.digits", "12 (it is 13)"),
    ("as_is}", "as_is}\n    - {name: Flow, leaves: as_is}", 22, "egress.fields.1", "more than once"),
    ("fields:", "minimum_group_size: 1\n  fields:", 20, "egress.minimum_group_size", "to 2 (it is 1)"),
    ("name: south", "name: north", 24, "sites.1", "site 'north' is given more than once"),
    ("name: south", "name: so/uth", 24, "sites.1.name", "(it is 'so/uth')"),
    ("name: south", "name: south\n    ring: last", 25, "sites.1.ring", "(it is 'last')"),
    (
        "name: south",
        "name: south\n    road: sea",
        25,
        "sites.1.road",
        "'link', 'queue', 'diode' or 'media' (it is 'sea')",
    ),
    ("fields:", "kinds: [everything]\n  fields:", 20, "egress.kinds.0", "(it is 'everything')"),
    ("gates:", "returns: {quota_megabytes: 63}\ngates:", 15, "returns.quota_megabytes", "to 64 (it is 63)"),
    ("gates:", "returns: {when_full: delete}\ngates:", 15, "returns.when_full", "(it is 'delete')"),
    ("gates:", "returns: {retention_days: -1}\ngates:", 15, "returns.retention_days", "to 0 (it is -1)"),
    ("gates:", "returns: {window_minutes: 1441}\ngates:", 15, "returns.window_minutes", "1440 (it is 1441)"),
    (
        "gates:",
        "returns: {kilobytes_per_second: 0}\ngates:",
        15,
        "returns.kilobytes_per_second",
        "than 0 (it is 0)",
    ),
    ("gates:", "returns: {stale_days: .nan}\ngates:", 15, "returns.stale_days", "finite number (it is nan)"),
    ("gates:", "returns: {publish: never}\ngates:", 15, "returns.publish", "(it is 'never')"),
    ("gates:", "windows: {rows: [1]}\ngates:", 15, "windows.rows.0", "equal to 2 (it is 1)"),
    ("gates:", "windows: {statistics: [mode]}\ngates:", 15, "windows.statistics.0", "(it is 'mode')"),
    ("gates:", "estimator: {name: oracle}\ngates:", 15, "estimator.name", "(it is 'oracle')"),
    ("gates:", "retraining: {cron: monthly}\ngates:", 15, "retraining.cron", "(it is 'monthly')"),
    ("gates:", "history: [1]\ngates:", 15, "history", "valid number or"),
]


@pytest.mark.parametrize(("good", "bad", "line", "field", "said"), BAD)
def test_what_is_wrong_is_said_with_line_field_value_and_bound(tmp_path, good, bad, line, field, said):
    path = tmp_path / "mill.yaml"
    assert good in GOOD
    path.write_text(GOOD.replace(good, bad, 1), "utf-8")
    with pytest.raises(UseCaseError) as raised:
        load(path)
    assert any(
        found.startswith(f"{path}:{line}: {field}: ") and said in found
        for found in str(raised.value).splitlines()
    ), str(raised.value)


@pytest.mark.parametrize("part", ["features", "sites"])
def test_an_item_that_is_wrong_is_not_also_one_that_is_missing(part):
    text = yaml.safe_dump({**yaml.safe_load(GOOD), part: [{"nmae": "x"}]})
    with pytest.raises(UseCaseError) as raised:
        loads(text)
    assert len(str(raised.value).splitlines()) == 2  # no name, and one that is not known
    assert "at least 1" not in str(raised.value)


@pytest.mark.parametrize("part", ["features", "sites"])
def test_none_at_all_is_too_few(part):
    with pytest.raises(UseCaseError, match=f"{part}: .* at least 1 item"):
        loads(yaml.safe_dump({**yaml.safe_load(GOOD), part: []}))


@pytest.mark.parametrize("hours", ["6h", "1d"])
def test_runs_by_time_need_a_time(hours):
    given = yaml.safe_load(GOOD) | {"runs": {"every": hours}}
    del given["time"]
    with pytest.raises(UseCaseError, match=r"runs\.every: runs\.every needs time\.columns"):
        loads(yaml.safe_dump(given))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "case: is empty"),
        ("# only a comment\n", "case: is empty"),
        ("- a\n- b\n", "case:1: a use case is a mapping, this is a list"),
        ("text", "case:1: a use case is a mapping, this is a str"),
        ("a: [1\nb: 2\n", "case:2: no YAML"),
        ("a: 1\n---\na: 2\n", "case:2: no YAML"),
        ("a: !!python/object:os.system {}\n", "case:1: no YAML: could not determine a constructor"),
        ("a: 1\n\na: 2\n", "case:3: a: is given twice, first in line 1"),
        ("a: {b: 1, b: 2}\n", "case:1: b: is given twice, first in line 1"),
        ("a:\n- {b: 1}\n- {c: 1,\n  c: 1}\n", "case:4: c: is given twice, first in line 3"),
        ("a: 1\nhistory: 2020-13-45\n", "case:2: '2020-13-45' is no value: month must be in 1..12"),
        (f"a: {'1' * 5000}\n", "is no value: Exceeds the limit"),
        ("[" * 100_000, "case:1: values are nested more than 50 deep"),
        ("a: &a [*a]\n", "case:1: more than 250,000 values"),
        ("? [a]\n: 1\n", "case:1: no YAML: found unhashable key"),
    ],
)
def test_what_is_no_usable_yaml_is_refused(text, said):
    with pytest.raises(UseCaseError) as raised:
        loads(text, "case")
    assert said in str(raised.value)


def test_a_few_anchors_that_stand_for_a_billion_values_are_refused():
    text = "a0: &a0 [0,0,0,0,0,0,0,0,0,0]\n" + "".join(
        f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
    )
    with pytest.raises(UseCaseError, match="more than 250,000 values"):
        loads(text)


def test_anchors_and_merged_keys_mean_what_they_mean():
    case = loads(
        GOOD.replace("name: Flow\n", "&flow\n    name: Flow\n").replace(
            "  - name: Mode", "  - {<<: *flow, name: Flow 2}\n  - name: Mode"
        )
    )
    assert [(f.name, f.range) for f in case.numbers] == [("Flow", (0, 10)), ("Flow 2", (0, 10))]


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(UseCaseError, match="cannot be read"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(UseCaseError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(GOOD.replace("Flow", "Flüsse").encode("latin-1"))
    with pytest.raises(UseCaseError, match=r"latin.yaml: cannot be read"):
        load(tmp_path / "latin.yaml")


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "readings.csv"
    with path.open("wb") as file:
        file.truncate(10 * usecase.MAX_BYTES)
    with pytest.raises(UseCaseError, match=r"readings.csv: has more than the 2,097,152 bytes"):
        load(path)


def test_a_byte_order_mark_is_no_part_of_it(tmp_path):
    (tmp_path / "windows.yaml").write_text(GOOD.replace("\n", "\r\n"), "utf-8-sig")
    assert load(tmp_path / "windows.yaml") == loads(GOOD)


def test_ten_thousand_sites_are_fine():
    given = yaml.safe_load(GOOD) | {"sites": [{"name": f"s{number}"} for number in range(10_000)]}
    assert len(loads(yaml.dump(given, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))).sites) == 10_000


def test_an_unquoted_date_of_history_is_a_time():
    assert loads(GOOD + "history: 2020-03-01\n").history == "2020-03-01"
    assert loads(GOOD + "history: 0.25\n").history == 0.25


def test_a_range_may_be_open():
    assert loads(GOOD.replace("[0, 10]", "[0, .inf]")).feature("Flow").range == (0, float("inf"))


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_bundled_ones_are_fine_and_come_back(path, tmp_path):
    usecase.check_egress(load(path))
    case = load(path)
    usecase.dump(case, tmp_path / "again.yaml")
    assert load(tmp_path / "again.yaml") == case
    assert load(tmp_path / "again.yaml").digest == case.digest


PUMPS = GOOD.replace("runs:", "plant_asset: {column: pump}\nruns:")


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        (
            "name: Flow\n",
            "name: pump\n",
            "'pump' is a feature and also the label, a time, site, plant asset or",
        ),
        ("{column: pump}", "{columns: [pump]}", "plant_asset.column: Field required"),
        (
            "{name: Flow, leaves: as_is}",
            "{name: _asset, leaves: aggregated}",
            "'_asset' leaves as_is or pseud",
        ),
        ("plant_asset: {column: pump}", "description: x", "egress field '_asset' is no feature and none of"),
    ],
)
def test_a_plant_asset_that_cannot_be(good, bad, said):
    text = PUMPS.replace("{name: Flow, leaves: as_is}", "{name: _asset, leaves: as_is}")
    text = text if "Flow" not in good or "leaves" not in good else PUMPS
    with pytest.raises(UseCaseError) as raised:
        loads(text.replace(good, bad, 1))
    assert said in str(raised.value)


def test_who_names_no_plant_asset_has_the_digest_of_before_there_were_any():
    """Frozen: training sets, plans and files in the lake are named by it."""
    text = (
        (BUNDLED / "skab.yaml")
        .read_text("utf-8")
        .replace("_run, leaves: pseudonymised", "_run, leaves: as_is")
    )
    assert loads(text).digest == "d00f26e765d8fa1dda0c03fefea306b118497c4612f1a8067d7c2cf9a5f31832"
    assert "plant_asset" not in usecase.dumps(loads(GOOD))
    assert loads(usecase.dumps(loads(PUMPS))).plant_asset == usecase.PlantAsset(column="pump")


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("{name: _run, leaves: as_is}", "'_run' is free text: list the `values`"),
        ("{name: _role, leaves: as_is}", "'_role' is free text"),
        ("{name: _note, leaves: rounded, digits: 1}", "'_note' cannot be rounded: it is no number"),
        ("{name: Mode, leaves: rounded, digits: 1}", "'Mode' cannot be rounded"),
        ("{name: _time, leaves: aggregated}", "'_time' cannot be aggregated"),
        ("{name: _run, leaves: as_is, values: [r1]}", None),
        ("{name: _run, leaves: pseudonymised}", None),
        ("{name: _score, leaves: rounded, digits: 1}", None),
    ],
)
def test_what_a_policy_cannot_mean_is_refused_for_what_is_to_be_released(field, said):
    case = loads(GOOD.replace("{name: Flow, leaves: as_is}", field))
    if said is None:
        return usecase.check_egress(case)
    with pytest.raises(UseCaseError, match=r"^mill: egress\.fields\.0: ") as found:
        usecase.check_egress(case, "mill")
    assert said in str(found.value)


def test_lookups():
    case = loads(GOOD.replace("name: south", "name: south\n    ring: canary"))
    assert case.ring(Ring.CANARY) == ["south"] and case.ring(Ring.BROAD) == ["north"]
    assert case.feature("Mode").categories == ("eco", "full")
    with pytest.raises(KeyError, match="Pressure"):
        case.feature("Pressure")
    assert case.at("south").ring == Ring.CANARY
    with pytest.raises(KeyError, match="oslo"):
        case.at("oslo")


def test_a_site_knows_itself_alone_and_all_else_as_it_was():
    case = loads(GOOD.replace("name: south", "name: south\n    road: media"))
    alone = case.alone("south")
    assert [site.name for site in alone.sites] == ["south"] and alone.at("south").road is Road.MEDIA
    assert alone.model_copy(update={"sites": case.sites}) == case and len(case.sites) == 2
    assert loads(usecase.dumps(alone)) == alone
    with pytest.raises(KeyError, match="oslo"):
        case.alone("oslo")


def test_the_way_home_that_nobody_declared_is_a_link_without_bounds():
    case = loads(GOOD)
    assert {site.road for site in case.sites} == {Road.LINK}
    assert case.egress.kinds == ("anomaly", "feedback")
    assert (case.returns.quota_megabytes, case.returns.kilobytes_per_second) == (None, None)
    assert (case.returns.when_full, case.returns.publish) == ("refuse", "always")


@pytest.mark.parametrize("road", Road)
def test_each_road_comes_back(road):
    case = loads(GOOD.replace("name: south", f"name: south\n    road: {road}"))
    assert case.at("south").road is road and loads(usecase.dumps(case)) == case


def test_lineage_leaves_only_if_somebody_says_so():
    kinds = ["aggregate", "anomaly", "feedback", "histogram", "lineage", "normal", "sketch"]
    assert loads(GOOD.replace("egress:\n", f"egress:\n  kinds: {kinds}\n")).egress.kinds == tuple(kinds)
    assert not {"lineage", "sketch", "aggregate"} & set(loads(GOOD).egress.kinds)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
NAMES = TEXT.filter(lambda name: not name.startswith("_") and name not in ("fault", "time", "run"))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def cases(draw) -> UseCase:
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    features = [
        draw(
            st.one_of(
                st.fixed_dictionaries(
                    {"name": st.just(name), "unit": TEXT},
                    optional={"range": st.tuples(NUMBERS, NUMBERS).filter(lambda pair: pair[0] < pair[1])},
                ),
                st.fixed_dictionaries(
                    {
                        "name": st.just(name),
                        "kind": st.just("category"),
                        "categories": st.lists(TEXT, min_size=1, max_size=3),
                    }
                ),
            )
        )
        for name in names
    ]
    scalars = st.one_of(TEXT, st.integers(-(2**53), 2**53), NUMBERS, st.booleans())
    given = {
        "name": draw(st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)),
        "description": draw(TEXT),
        "time": {"columns": ["time"], "format": draw(st.none() | TEXT)},
        "runs": draw(st.sampled_from([{"column": "run"}, {"every": "6h"}, {"rows": 100}])),
        "features": features,
        "label": {"column": "fault", "positive": draw(st.lists(scalars, max_size=3))},
        "source": {"missing": draw(st.lists(scalars, max_size=3))},
        "gates": {"f1": draw(st.floats(0, 1))},
        "history": draw(st.one_of(NUMBERS, st.just("2020-01-01"))),
        "egress": {
            "fields": [{"name": name, "leaves": "aggregated"} for name in names],
            "notes": [draw(TEXT)],
        },
        "returns": draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "quota_megabytes": st.none() | st.integers(64, 10**6),
                    "when_full": st.sampled_from(["refuse", "expire"]),
                    "retention_days": st.integers(0, 10**4),
                    "window_minutes": st.integers(1, 1440),
                    "kilobytes_per_second": st.none() | st.floats(0.1, 1e6),
                    "stale_days": st.floats(0.1, 1e4),
                    "publish": st.sampled_from(["always", "complete"]),
                },
            )
        ),
        "sites": [{"name": "a", "value": draw(st.none() | TEXT), "road": draw(st.sampled_from(list(Road)))}],
    }
    return UseCase.model_validate(given)


@given(cases())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back_equal(tmp_path_factory, case):
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    usecase.dump(case, path)
    again = load(path)
    assert again == case and again.digest == case.digest


def test_the_digest_is_of_what_is_declared_and_not_of_how():
    given = yaml.safe_load(GOOD)
    backwards = yaml.safe_dump(dict(reversed(given.items())), sort_keys=False, default_flow_style=True)
    said = copy.deepcopy(given) | {"drift": {"bins": 10, "share": 0.5}}  # the default, spelled out
    assert loads(GOOD).digest == loads(backwards).digest == loads(yaml.safe_dump(said)).digest


@pytest.mark.parametrize(("good", "other"), [("0.5", "0.6"), ("mill", "mills"), ("[0, 10]", "[0, 11]")])
def test_another_declaration_is_another_digest(good, other):
    assert loads(GOOD.replace(good, other, 1)).digest != loads(GOOD).digest
