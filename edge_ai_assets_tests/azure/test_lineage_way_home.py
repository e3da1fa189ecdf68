"""From a site's own Dagster to Azure's, by signed packages, with everything between as it really is."""

from __future__ import annotations

import hashlib
import random

import dagster as dg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_ai_assets import eventlog, keys
from edge_ai_assets.azure.replay import replay
from edge_ai_assets.partitions import SITES
from edge_ai_assets.returns.inbox import history, inbox, tables
from edge_ai_assets.returns.package import packages
from edge_ai_assets.returns.package.parts import EventMark, name_of
from edge_ai_assets.stack_hub.events import source

SITE = "bergen"
KEY = Ed25519PrivateKey.from_private_bytes(b"a key of these tests, 32 bytes..")
LONG_AGO = 1_750_000_000.0


def live(instance, rounds):
    """The site's life: it scores, sends, and its check fails in every third round."""
    for number in range(rounds):
        at = LONG_AGO + 3600 * number
        for event in (
            dg.AssetMaterialization(keys.SITE_DEPLOYMENT, partition=SITE, metadata={"release": number}),
            dg.AssetMaterialization(keys.SITE_SCORES, partition=SITE, metadata={"scored_rows": number}),
            dg.AssetCheckEvaluation(keys.SITE_UPLOAD, "conservation", passed=number % 3 != 1),
            dg.AssetObservation(keys.SITE_UPLOAD, partition=SITE, metadata={"link": "connected"}),
        ):
            eventlog.report(instance, event, at)


def packed(instance, each):
    """The site's packages, by name."""
    after, mark, previous, found = source(instance, SITE), EventMark(), "", {}
    while True:
        lines, mark = after(mark, each)
        if not lines:
            return found
        number = len(found) + 1
        data = packages.build(
            site=SITE,
            number=number,
            previous=previous,
            policy="",
            created_at=0,
            first=0,
            last=0,
            lineage=lines,
            lineage_last=mark.number,
            key=KEY,
        )
        found[name_of(SITE, number)] = data
        previous = hashlib.sha256(data).hexdigest()


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "site")) as instance:
        live(instance, 9)
        yield instance


def log(instance):
    """What is newest of each asset, and all failed checks, as (edge time, metadata that left)."""
    newest, failed = {}, []
    for record in eventlog.records(instance, 0):
        made, at = eventlog.recorded(record.event_log_entry), record.timestamp
        told = {n: v.value for n, v in made.metadata.items() if not n.startswith("edge_ai/")}
        if isinstance(made, dg.AssetCheckEvaluation):
            if not made.passed:
                failed.append(at)
        else:
            newest[type(made).__name__, made.asset_key, made.partition] = (at, told)
    return newest, failed


@pytest.mark.parametrize("seed", range(4))
def test_packages_in_any_order_and_twice_show_what_the_site_shows(site, tmp_path, seed):
    names = list((sealed := packed(site, each=5)).items())
    chance = random.Random(seed)
    arriving = names + chance.choices(names, k=4)
    chance.shuffle(arriving)
    folder = tmp_path / "uplink" / SITE
    folder.mkdir(parents=True)
    with dg.DagsterInstance.ephemeral() as azure:
        for name, data in arriving:
            (folder / name).write_bytes(data)
            inbox.receive(
                tmp_path / "uplink", tmp_path / "tables", {SITE: [KEY.public_key()]}, tmp_path / "no"
            )
            replay(azure, tmp_path / "tables", [SITE])
        assert log(azure) == log(site)
        assert azure.get_dynamic_partitions(SITES.name) == [SITE]
        assert azure.get_materialized_partitions(keys.SITE_SCORES) == {SITE}
    assert tables.count(tmp_path / "tables", "lineage") == 36 == history.heads(tmp_path / "tables")[SITE]
    assert [row["release"] for row in history.deployments(tmp_path / "tables", SITE)] == list(range(9))
    assert not (tmp_path / "no").exists()
    assert len(sealed) == 8


def test_a_home_with_both_sides_sends_nothing_back(site, tmp_path):
    """What was replayed into a log is left out when that log's own events are packed."""
    folder = tmp_path / "uplink" / SITE
    folder.mkdir(parents=True)
    for name, data in packed(site, each=100).items():
        (folder / name).write_bytes(data)
    inbox.receive(tmp_path / "uplink", tmp_path / "tables", {SITE: [KEY.public_key()]}, tmp_path / "no")
    with dg.DagsterInstance.ephemeral() as azure:
        assert replay(azure, tmp_path / "tables", [SITE]).reported
        assert packed(azure, each=100) == {}
