"""The chain of assets, played once on a small plant with real training, signatures and services; the tests
look at it."""

import json
import shutil
import sys

import dagster as dg
import pandas as pd
import pytest

from edge_ai_assets import cli, explain, keys, status
from edge_ai_assets import usecase as usecases
from edge_ai_assets.azure import arrivals, page, watch
from edge_ai_assets.azure.assets import model, release
from edge_ai_assets.azure.far_registry import FarRegistry
from edge_ai_assets.delivery import pack
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.signing import load_public
from edge_ai_assets.home import Home
from edge_ai_assets.ml import lineage
from edge_ai_assets.resources.mirror.home_mirror import HomeMirror
from edge_ai_assets.resources.training import TrainingHere
from edge_ai_assets.returns.inbox import daily, tables
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.stack_hub import delivery, returning, waiting
from edge_ai_assets.usecase import Road
from edge_ai_assets_tests.chain import changed, deliver, lines, played
from edge_ai_assets_tests.delivery.conftest import all_releases


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    with played(tmp_path_factory.mktemp("chain")) as found:
        yield found


@pytest.fixture
def edge_ai(chain, monkeypatch, capsys):
    """The command line on this home: exit code, standard output, standard error."""
    monkeypatch.setenv("EDGE_AI_HOME", str(chain.home.root))
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["edge-ai", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


def only(chain, step, key):
    return chain.made(step, key)[None]


@pytest.mark.parametrize(
    "step", ["first", "deploy", "insights", "link again", "home", "home again", "retrain"]
)
def test_what_should_work_works(chain, step):
    assert chain.results[step].success


class TestFromFilesToARelease:
    def test_the_lake_holds_good_rows_and_counts_the_others(self, chain):
        made = only(chain, "too strict", keys.RAW_TELEMETRY)
        assert made["dagster/row_count"] == made["new_rows"] == 2 * 8 * 60
        assert made["quarantined_rows"] == 2 and made["new_files"] == 3 and made["simulated"] is False
        check = chain.checks("too strict")["contract"]
        assert not check.passed and check.severity == dg.AssetCheckSeverity.WARN
        assert check.metadata["unreadable_files"].value == 1

    def test_a_second_look_takes_nothing_twice(self, chain):
        made = only(chain, "first", keys.RAW_TELEMETRY)
        assert (made["new_rows"], made["dagster/row_count"]) == (0, 960)

    def test_the_training_set_says_what_is_in_it(self, chain):
        made = only(chain, "first", keys.TRAINING_SET)
        frame = pd.read_parquet(chain.home.training_sets / f"{made['version']}.parquet")
        assert made["dagster/row_count"] == len(frame) == 960 - 16 * 2 and made["runs"] == 16
        assert [column.name for column in made["dagster/column_schema"].columns] == list(frame.columns)

    def test_an_export_that_differs_blocks_what_follows(self, chain):
        assert not chain.results["too strict"].success
        check = chain.checks("too strict")["parity"]
        assert not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
        assert not chain.made("too strict", keys.CHAMPION) and not chain.made("too strict", keys.IMAGE)

    def test_the_first_candidate_that_passes_is_champion_and_knows_where_it_came_from(self, chain):
        made = only(chain, "first", keys.CHAMPION)
        assert made["promoted"] is True and made["f1"] >= chain.usecase.gates.f1
        assert made["f1"] == made["challenger_f1"] and chain.checks("first")["gate"].passed
        run = chain.results["first"].run_id
        came = lineage.read(chain.home.candidates / run)
        assert came.training_run == run and came.usecase == chain.usecase.digest
        assert came.training_set == only(chain, "first", keys.TRAINING_SET)["version"]

    def test_champion_against_challenger_shows_both(self, chain):
        made = only(chain, "retrain", keys.CHAMPION)
        assert 0 < made["former_f1"] <= 1 and 0 < made["challenger_f1"] <= 1 and made["decision"]
        better = made["former_f1"] < made["challenger_f1"]
        assert made["promoted"] is better  # both pass the gates
        assert made["f1"] == max(made["former_f1"], made["challenger_f1"])
        expected = chain.results["retrain" if better else "first"].run_id
        assert chain.home.champion.resolve().name == expected

    def test_no_champion_and_none_that_passes_is_a_failure_with_the_figures(self, chain, tmp_path):
        home = Home(tmp_path / "home")
        for folder in ("models", "lake"):
            shutil.copytree(chain.home.root / folder, home.root / folder, symlinks=True)
        home.champion.unlink()
        case = changed(tmp_path, f1=1.0, false_alarm_rate=0.0)
        resources = {"home": home, "usecase": usecases.load(case), "mirror": HomeMirror(home)}
        resources |= {"training": TrainingHere()}
        with pytest.raises(dg.Failure, match=r"there is no model to release: .* below the gate of 1"):
            dg.materialize([model.champion], resources=resources)
        assert not home.champion.exists()

    def test_the_same_champion_is_the_same_release(self, chain):
        before = pack.newest(chain.home.registry, chain.home.keys)
        resources = {"home": chain.home, "usecase": chain.usecase, "far_registry": FarRegistry()}
        done = dg.materialize([release.image], resources=resources)
        (event,) = done.get_asset_materialization_events()
        assert event.materialization.metadata["release"].value == before.version
        assert pack.newest(chain.home.registry, chain.home.keys) == before

    def test_releases_are_as_many_as_champions(self, chain):
        key = load_public(chain.home.keys / "release.pub.pem")
        promoted = [only(chain, step, keys.CHAMPION)["promoted"] for step in ("first", "retrain")]
        assert len(list(all_releases(Layout(chain.home.registry), [key]))) == sum(promoted)


class TestAtTheSites:
    def test_a_site_that_fails_does_not_hold_up_the_others(self, chain):
        step = "one without a link"
        assert not chain.results[step].success
        assert set(chain.made(step, keys.SITE_RELEASE)) == {"north", "south"}
        (failed,) = [event for event in chain.results[step].all_events if event.is_step_failure]
        assert "site west has nothing to run: its link is down" in str(failed.event_specific_data.error)

    def test_both_sites_serve_the_release(self, chain):
        made = chain.made("deploy", keys.SITE_DEPLOYMENT)
        assert {site: (m["release"], m["former_release"], m["ring"]) for site, m in made.items()} == {
            "north": (1, 0, "canary"),
            "south": (1, 0, "early"),
        }
        assert chain.checks("deploy")["serving"].metadata["not_serving"].value == 1  # west

    def test_rows_are_scored_rejected_or_of_the_baseline(self, chain):
        made = chain.made("one without a service", keys.SITE_SCORES)
        names = ("scored_rows", "rejected_rows", "baseline_rows", "files", "unreadable_files")
        assert {site: tuple(m[name] for name in names) for site, m in made.items()} == {
            "north": (116, 1, 4, 1, 0),
            "south": (174, 0, 6, 1, 1),
        }
        assert made["south"]["outside_trained_range"] == 174 and made["north"]["release"] == 1

    def test_what_the_policy_keeps_stays(self, chain):
        made = chain.made("insights", keys.SITE_EGRESS)["north"]
        assert made["packed_rows"] + made["withheld_rows"] == 116 and made["withheld_rows"] > 0
        assert made["removed"].records == []
        assert made["packed_feedback"] == 2 and made["package_names"] == ["north-00000001.zip"]
        left = [json.loads(row["fields"]) for row in tables.rows(chain.home.tables, "insights")]
        assert left and all("Secret recipe" not in fields and "Mode" not in fields for fields in left)

    def test_a_cut_link_lets_packages_wait_and_then_go(self, chain):
        cut = chain.made("insights", keys.SITE_UPLOAD)["south"]
        assert (cut["packages"], cut["waiting_packages"]) == (0, 1) and "link is down" in cut["interrupted"]
        again = chain.made("link again", keys.SITE_UPLOAD)["south"]
        assert (again["packages"], again["waiting_packages"], again["interrupted"]) == (1, 0, "no")
        assert again["package_names"] == chain.made("insights", keys.SITE_EGRESS)["south"]["package_names"]

    @pytest.mark.parametrize("step", ["insights", "link again"])
    def test_every_score_is_accounted_for(self, chain, step):
        assert chain.checks(step)["conservation"].passed
        for site in ("north", "south"):
            counts = returning.counts(chain.home.site(site))
            assert (
                counts.conserved
                and counts == returning.recount(chain.home.site(site))
                and counts.pending == 0
            )

    def test_nothing_waits_any_more(self, chain):
        for site in map(chain.home.site, ("north", "south", "west")):
            assert waiting.readings(site) is None
            assert returning.counts(site).conserved

    def test_the_state_of_a_site_for_the_rollout(self, chain):
        target = pack.newest(chain.home.registry, chain.home.keys)
        north, west = (delivery.state(chain.home.site(name), target, Road.LINK) for name in ("north", "west"))
        assert (north.serving, north.linked, north.failed, north.fell) == (1, True, None, None)
        assert (west.serving, west.linked, west.fell) == (None, False, None)


class TestWhatCameHome:
    def test_insights_and_feedback_once(self, chain):
        made = only(chain, "home", keys.INBOX)
        assert made["packages"] == 2 and made["feedback"] == 4
        assert (
            made["insights"] == made["dagster/row_count"] == tables.count(chain.home.tables, "insights") > 174
        )
        assert chain.checks("home")["once"].passed
        again = only(chain, "home again", keys.INBOX)
        assert (again["packages"], again["insights"], again["dagster/row_count"]) == (0, 0, made["insights"])

    def test_a_refused_file_and_a_gap_are_seen(self, chain):
        check = chain.checks("home")["completeness"]
        assert not check.passed and check.severity == dg.AssetCheckSeverity.WARN
        (refused,) = check.metadata["refused"].records
        (gap,) = check.metadata["gaps"].records
        assert (
            refused.data["package"] == "north/stray.zip"
            and "not the name of a package" in refused.data["reason"]
        )
        assert gap.data == {"site": "south", "missing_package": 2}
        assert arrivals.new_packages(chain.home) == ["south-00000009.zip"]

    def test_the_daily_table_adds_up(self, chain):
        made = only(chain, "home", keys.INSIGHTS)
        assert made["insights"] == tables.count(chain.home.tables, "insights") and made["days_computed"] == 1
        assert only(chain, "home again", keys.INSIGHTS)["days_computed"] == 0
        assert daily.refresh(chain.home.tables).days_computed == 0

    def test_drift_is_where_it_is(self, chain):
        made = only(chain, "home", keys.DRIFT)
        assert made[watch.SITES] == ["south"] and made["sites_judged"] == 2
        assert not chain.checks("home")["no_drift"].passed

    def test_the_page_escapes_and_loads_nothing(self, chain):
        text = page.publish(chain.home, chain.usecase).read_text("utf-8")
        assert "A &lt;mill&gt; &amp; its pumps" in text and "<mill>" not in text
        assert "https:" not in text and "src=" not in text and "url(" not in text
        assert all(f">{site.name}<" in text for site in chain.usecase.sites) and "nothing came yet" in text


class TestCommandLine:
    def test_status(self, chain, edge_ai):
        code, out, _ = edge_ai("status", "--json")
        found = json.loads(out)
        assert code == 0 and set(found) == {"sites", "global"}
        parts = {"scored", "uploaded", "withheld", "quarantined", "expired", "pending"}
        for site in found["sites"].values():
            assert set(site) >= parts | {"release", "link", "serving"} and status.conserved(site)
        assert set(found["global"]) >= {"insights", "duplicates", "releases", "retrainings"}
        assert found["sites"]["west"] == dict.fromkeys(parts, 0) | {
            "here": True,
            "error": None,
            "removed": [],
            "release": None,
            "link": "down",
            "trust": {"state": "no lease", "until": None},
            "serving": False,
            "page": None,
        }
        code, out, _ = edge_ai("status")
        assert code == 0 and "north" in out and "116" in out

    def test_numbers_that_do_not_add_up_are_exit_code_1(self, edge_ai, monkeypatch):
        monkeypatch.setattr(returning, "as_dict", lambda counts: dict.fromkeys(counts.__struct_fields__, 1))
        code, out, _ = edge_ai("status")
        assert code == 1 and "NO" in out

    def test_explain_goes_back_to_the_runs(self, chain, edge_ai):
        code, out, _ = edge_ai("explain", "south/50", "--json")
        found = json.loads(out)
        assert code == 0 and set(found) >= {
            "insight",
            "package",
            "ledger",
            "score",
            "release",
            "model",
            "runs",
        }
        runs = {
            what: chain.results[step].run_id for what, step in {"inbox": "home", "training": "first"}.items()
        }
        assert found["runs"].items() >= runs.items()
        assert found["runs"]["upload"] == chain.results["link again"].run_id
        assert found["runs"]["scoring"] == chain.results["one without a service"].run_id
        assert found["ledger"]["verified"] and found["elsewhere"] == {}  # both sides are in this home
        assert found["completeness"]["releases"][0].startswith("1 since ")
        assert "Flow [m³/h]" in edge_ai("explain", "south/50")[1]  # the unit is no markup

    def test_explain_tells_of_a_score_that_stayed(self, chain, edge_ai):
        with Outbox(chain.home.site("north").outbox) as outbox:
            stayed = next(row for row in outbox.newest(116) if row.disposition == "withheld")
        code, out, _ = edge_ai("explain", f"north/{stayed.sequence}", "--json")
        found = json.loads(out)
        assert code == 0 and found["insight"]["came"] == f"no: withheld: {stayed.reason}"
        assert found["release"]["version"] == 1 and found["training_set"]["rows"] > 0

    @pytest.mark.parametrize(
        "insight", ["south/999999", "south", "south/-1", "south/²", f"south/{'9' * 30}", "/1"]
    )
    def test_an_insight_that_is_none_is_wrong_usage(self, edge_ai, insight):
        code, out, error = edge_ai("explain", "--", insight)
        assert (code, out) == (2, "") and error.startswith("edge-ai: ") and error.count("\n") == 1

    def test_score_and_the_same_again(self, chain, edge_ai, tmp_path):
        deliver(tmp_path, "mine.csv", lines("north", range(20, 21)))
        code, out, _ = edge_ai("score", tmp_path / "mine.csv", "--site", "north", "--json")
        names = {"site", "release", "scored", "anomalies", "outside_trained_range", "rejected", "baseline"}
        assert code == 0 and set(json.loads(out)) >= names and json.loads(out)["scored"] == 58
        assert (
            json.loads(edge_ai("score", tmp_path / "mine.csv", "--site", "north", "--json")[1])["scored"] == 0
        )

    def test_score_says_what_is_wrong(self, chain, edge_ai, tmp_path):
        (tmp_path / "mine.csv").write_text("site,run\nnorth,1\n")
        code, _, error = edge_ai("score", tmp_path / "mine.csv", "--site", "north")
        assert code == 2 and "'time' is missing" in error and "Flow" not in error
        assert not [path for path in chain.home.site("north").readings.iterdir() if path.is_file()]
        assert edge_ai("score", tmp_path / "mine.csv", "--site", "west")[0] == 3  # nothing serves there
        assert edge_ai("score", tmp_path / "mine.csv", "--site", "nowhere")[0] == 2

    def test_an_insight_whose_package_is_half_received(self, chain, monkeypatch):
        found = tables.insight(chain.home.tables, "south", 50)
        monkeypatch.setattr(tables, "insight", lambda *_: {**found, "package": None})
        with pytest.raises(explain.UnknownInsight, match="being received"):
            explain.explain(chain.home, "south/50")
