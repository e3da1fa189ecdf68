"""A folder and its far end on a real server: whole at every moment, sent once, brought back."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge_ai_assets.resources.mirror.blob_mirror import BlobMirror, MirrorError
from edge_ai_assets.resources.storage.blob_content import BLOCK
from edge_ai_assets.resources.storage.blob_put import WHOLE
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets_tests.integration.azurite import KEYS, Azurite, azurite
from edge_ai_assets_tests.integration.faults import Proxy
from edge_ai_assets_tests.integration.watched import watched
from edge_ai_assets_tests.ports import free_port

pytestmark = pytest.mark.integration
__all__ = ["azurite"]
TABLE = "global/insights"
COMMITS = 5


@pytest.fixture
def container(azurite: Azurite) -> str:
    return azurite.container(f"c{random.randrange(10**12)}")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with one Delta table: COMMITS commits of one row each, a checkpoint before the last."""
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    lake = tmp_path_factory.mktemp("lake")
    for version in range(COMMITS):
        write_deltalake(lake / TABLE, pa.table({"n": [version]}), mode="append")
        if version == COMMITS - 2:
            DeltaTable(lake / TABLE).create_checkpoint()
    return lake


def mirror(account, container, folder, notes=None, **options):
    return BlobMirror(account, container, folder, notes or folder.parent / f"{folder.name}-notes", **options)


def fill(folder: Path, sizes: dict[str, int]) -> None:
    for seed, (name, size) in enumerate(sizes.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(random.Random(seed).randbytes(size))


def contents(folder: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def far_version(azurite: Azurite, container: str) -> int | None:
    """See `version`, of the table in a container."""
    return version(
        f"az://{container}/{TABLE}",
        azure_storage_account_name="cloud",
        azure_storage_account_key=KEYS["cloud"],
        azure_storage_endpoint=f"http://127.0.0.1:{azurite.blobs}/cloud",
        allow_http="true",
    )


def version(place: Path | str, **options: str) -> int | None:
    """The version that a reader of a table finds, having read it all; None while it is no table."""
    from deltalake import DeltaTable

    if not DeltaTable.is_deltatable(str(place), storage_options=options):
        return None
    found = DeltaTable(str(place), storage_options=options)
    rows = sorted(found.to_pyarrow_table()["n"].to_pylist())
    assert rows == list(range(found.version() + 1))
    return int(found.version())


@pytest.fixture
def cleaned(table, tmp_path) -> Path:
    """The same lake after deltalake cleaned away what its checkpoint has in it."""
    import shutil

    lake = shutil.copytree(table, tmp_path / "cleaned")
    for version in range(COMMITS - 2):
        (lake / TABLE / "_delta_log" / f"{version:020}.json").unlink()
    return lake


@pytest.mark.parametrize(
    ("which", "answered", "first"), [("table", True, 0), ("table", False, 0), ("cleaned", True, COMMITS - 2)]
)
def test_a_table_is_whole_after_every_request(azurite, tmp_path, request, which, answered, first):
    table, found = request.getfixturevalue(which), list[int | None]()
    for left in range(100):
        container = azurite.container(f"c{random.randrange(10**12)}")
        account = watched(azurite.account("cloud"), left=left, answered=answered)
        try:
            mirror(account, container, table, tmp_path / str(left)).push(table)
        except LinkDown:
            found.append(far_version(azurite, container))
            continue
        break
    found.append(far_version(azurite, container))
    known = [-1 if version is None else version for version in found]
    assert known == sorted(known) and set(known) == {-1, *range(first, COMMITS)}


def test_a_table_that_grows_is_whole_after_every_request(azurite, container, tmp_path):
    """Commits that come one by one, each push cut after one request more, and gone on with."""
    import pyarrow as pa
    from deltalake import write_deltalake

    lake, found = tmp_path / "lake", [-1]
    for version in range(3):
        write_deltalake(lake / TABLE, pa.table({"n": [version]}), mode="append")
        for _ in range(20):
            account = watched(azurite.account("cloud"), left=1)
            try:
                mirror(account, container, lake).push(lake)
            except LinkDown:
                seen = far_version(azurite, container)
                found.append(-1 if seen is None else seen)
                continue
            break
        assert far_version(azurite, container) == version
    assert found == sorted(found)


def test_what_is_there_is_not_asked_for(azurite, container, table, tmp_path):
    account = watched(azurite.account("cloud"))
    first = mirror(account, container, table, tmp_path).push(table)
    assert first.files == 2 * COMMITS + 2  # data, entries, checkpoint and its pointer
    account.watch.seen.clear()
    assert mirror(account, container, table, tmp_path).push(table).files == 0
    assert account.watch.seen == []
    # Without notes all is compared, and nothing replaced.
    again = mirror(account, container, table, tmp_path / "other").push(table)
    assert again.files <= 1  # the pointer


def test_another_writer_of_a_table_is_found_out(azurite, container, table, tmp_path):
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    mirror(azurite.account("cloud"), container, table, tmp_path / "notes").push(table)
    there = far_version(azurite, container)
    other = tmp_path / "other"
    for version in range(3 * COMMITS):
        write_deltalake(other / TABLE, pa.table({"n": [-version]}), mode="append")
    DeltaTable(other / TABLE).create_checkpoint()
    far = mirror(azurite.account("cloud"), container, other)
    for _ in range(2):
        with pytest.raises(
            MirrorError, match=r"0\.json .* another writer has put this version into the table"
        ):
            far.push(other)
        assert far_version(azurite, container) == there == COMMITS - 1


def test_what_was_made_anew_is_replaced_and_pointers_last(azurite, container, tmp_path):
    lake, account = tmp_path / "lake", watched(azurite.account("cloud"))
    fill(lake, {"raw_telemetry/a.parquet": 100, "training_set/b.parquet": 10, "training_set/newest.json": 9})
    assert mirror(account, container, lake).push(lake).files == 3
    fill(lake, {"training_set/newest.json": 8, "raw_telemetry/a.parquet": 101})
    account.watch.seen.clear()
    assert mirror(account, container, lake).push(lake).files == 2
    assert [request.url.rpartition("/")[2] for request in account.watch.seen] == ["a.parquet", "newest.json"]
    blob = azurite.account("cloud").container(container).get_blob_client("raw_telemetry/a.parquet")
    assert blob.download_blob().readall() == (lake / "raw_telemetry/a.parquet").read_bytes()


def test_a_page_is_handed_out_as_one(azurite, container, tmp_path):
    from edge_ai_assets.resources.mirror import mirrored

    site = tmp_path / "report"
    fill(site, {"index.html": 10, "data.json": 10, "fleet.js": 3})
    done = mirror(azurite.account("cloud"), container, site, kinds=mirrored.of_site, cache="no-cache").push(
        site
    )
    assert (done.files, done.bytes) == (3, 23)
    found = azurite.account("cloud").container(container).get_blob_client("index.html").get_blob_properties()
    settings = found.content_settings
    assert (settings.content_type, settings.cache_control) == ("text/html; charset=utf-8", "no-cache")
    assert found.metadata["sha256"] == hashlib.sha256((site / "index.html").read_bytes()).hexdigest()
    assert bytes(settings.content_md5) == hashlib.md5((site / "index.html").read_bytes()).digest()


SIZES = {"models/candidates/one/model.onnx": 2 * BLOCK + 5, "models/candidates/one/contract.json": 200}


@pytest.fixture
def models(tmp_path) -> Path:
    fill(tmp_path / "home", SIZES)
    for link in ("candidate", "champion"):
        (tmp_path / "home/models" / link).symlink_to("candidates/one")
    return tmp_path / "home"


def test_a_link_stands_for_its_folder_and_itself(azurite, container, models, tmp_path):
    far = mirror(azurite.account("cloud"), container, models)
    fill(models, {"models/candidates/two/half-written": 10})
    assert far.push(models / "models/champion").files == 3
    back = tmp_path / "back"
    assert mirror(azurite.account("cloud"), container, back).pull("models").files == 3
    assert (back / "models/champion/contract.json").read_bytes() == (
        models / "models/champion/contract.json"
    ).read_bytes()
    assert not (back / "models/candidate").exists() and not (back / "models/candidates/two").exists()
    fill(models, {"models/candidates/two/contract.json": 20})
    (models / "models/champion").unlink()
    (models / "models/champion").symlink_to("candidates/two")
    assert far.push(models / "models/champion").files == 3


@pytest.mark.parametrize("cut", [0, 500, BLOCK // 2, BLOCK + 9_000, 2 * BLOCK + 3_000])
def test_after_a_cut_blocks_that_came_are_not_sent_again(azurite, container, models, cut):
    folder = models / "models/candidates/one"
    with Proxy(azurite.blobs, cut_after=cut) as proxy:
        account = azurite.account("cloud", endpoint=f"http://127.0.0.1:{proxy.port}/cloud")
        with pytest.raises(LinkDown, match=r"sending models/.*127\.0\.0\.1"):
            mirror(account, container, models).push(folder)
        proxy.restore()
        mirror(account, container, models).push(folder)
        assert len(proxy.sent) < sum(SIZES.values()) + BLOCK + 50_000
    blob = azurite.account("cloud").container(container).get_blob_client("models/candidates/one/model.onnx")
    assert blob.download_blob().readall() == (folder / "model.onnx").read_bytes()


def test_a_home_comes_back_whole_after_cuts(azurite, container, table, models, tmp_path):
    import shutil

    home, back = tmp_path / "all", tmp_path / "back"
    shutil.copytree(table, home)
    shutil.copytree(models / "models", home / "models", symlinks=True)
    far = mirror(azurite.account("cloud"), container, home)
    far.push(home / "global")
    for link in ("candidate", "champion"):
        far.push(home / "models" / link)
    found = []
    for _ in range(100):
        account = watched(azurite.account("cloud"), left=3)
        try:
            mirror(account, container, back).pull("global", "models")
        except LinkDown:
            seen = version(back / TABLE)
            found.append(-1 if seen is None else seen)
            continue
        break
    assert found == sorted(found) and len(set(found)) > 3 and contents(back) == contents(home)
    account = watched(azurite.account("cloud"))
    assert mirror(account, container, back).push(back / "models/champion").files == 0
    assert account.watch.seen == []


def test_of_a_log_with_a_gap_comes_what_is_before_it(azurite, container, table, tmp_path):
    """As in a listing that is read while another home pushes: later entries, not all before them."""
    mirror(azurite.account("cloud"), container, table, tmp_path / "notes").push(table)
    client = azurite.account("cloud").container(container)
    client.delete_blob(f"{TABLE}/_delta_log/{2:020}.json")
    for blob in client.list_blobs(f"{TABLE}/_delta_log/"):
        if "checkpoint" in blob.name:
            client.delete_blob(blob.name)
    mirror(azurite.account("cloud"), container, tmp_path / "back").pull("global")
    assert version(tmp_path / "back" / TABLE) == 1


def test_of_a_log_with_a_gap_before_a_checkpoint_comes_all_that_is_in_that(azurite, container, tmp_path):
    """The account was out of reach for so long that old entries were cleaned away in the meantime."""
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    lake = tmp_path / "lake"
    log = lake / TABLE / "_delta_log"
    for n in range(8):
        write_deltalake(lake / TABLE, pa.table({"n": [n]}), mode="append")
        if n in (1, 7):
            mirror(azurite.account("cloud"), container, lake).push(lake)
        if n == 6:
            DeltaTable(lake / TABLE).create_checkpoint()
            for entry in range(6):
                (log / f"{entry:020}.json").unlink()
    back = tmp_path / "back"
    mirror(azurite.account("cloud"), container, back).pull("global")
    assert sorted(DeltaTable(back / TABLE).to_pyarrow_table()["n"].to_pylist()) == list(range(8))
    write_deltalake(back / TABLE, pa.table({"n": [8]}), mode="append")
    assert mirror(azurite.account("cloud"), container, back).push(back).files == 2


def test_what_comes_back_is_checked(azurite, container, tmp_path):
    lake = tmp_path / "lake"
    fill(lake, {"global/t/a.parquet": 100})
    mirror(azurite.account("cloud"), container, lake).push(lake)
    client = azurite.account("cloud").container(container)
    client.get_blob_client("global/t/a.parquet").upload_blob(
        b"y" * 100, overwrite=True, metadata={"sha256": "0" * 64}
    )
    with pytest.raises(MirrorError, match="is not what was put there"):
        mirror(azurite.account("cloud"), container, tmp_path / "back").pull("global")
    assert contents(tmp_path / "back") == {}


def test_names_and_links_that_lead_elsewhere_stay_there(azurite, container, tmp_path):
    client = azurite.account("cloud").container(container)
    for name in ("global//x", "global/.hidden", "global/fine"):
        client.get_blob_client(name).upload_blob(b"x")
    back = tmp_path / "deep/back"
    done = mirror(azurite.account("cloud"), container, back).pull("global")
    assert contents(back) == {"global/fine": b"x"}
    assert {name for name, _ in done.left} == {"global//x", "global/.hidden"}
    client.get_blob_client("models/champion").upload_blob(b"../../../etc", metadata={"link": "1"})
    with pytest.raises(MirrorError, match="not below"):
        mirror(azurite.account("cloud"), container, back).pull("models")


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b",), ("c",)])
def test_a_name_that_is_a_file_and_a_folder_is_said(azurite, container, tmp_path, names):
    """As blobs can be, and files cannot."""
    back = tmp_path / "back"
    fill(back, {"raw_telemetry/a": 1, "raw_telemetry/c/d": 1} if len(names) == 1 else {})
    for name in names:
        azurite.account("cloud").container(container).upload_blob(f"raw_telemetry/{name}", b"x")
    with pytest.raises(MirrorError, match="is a folder here, or goes through a file"):
        mirror(azurite.account("cloud"), container, back).pull("raw_telemetry")


def test_another_file_here_is_not_written_over(azurite, container, tmp_path):
    lake, back = tmp_path / "lake", tmp_path / "back"
    fill(lake, {"raw_telemetry/a.parquet": 100})
    mirror(azurite.account("cloud"), container, lake).push(lake)
    fill(back, {"raw_telemetry/a.parquet": 99})
    with pytest.raises(MirrorError, match="pull into an empty home"):
        mirror(azurite.account("cloud"), container, back).pull("raw_telemetry")
    assert len((back / "raw_telemetry/a.parquet").read_bytes()) == 99


def test_killed_at_any_time_it_goes_on(azurite, container, tmp_path):
    lake = tmp_path / "lake"
    fill(lake, {f"raw_telemetry/{n}.parquet": 40_000 for n in range(60)} | {"training_set/newest.json": 5})
    program = (
        "import sys; from pathlib import Path;"
        "from azure.core.credentials import AzureNamedKeyCredential as K;"
        "from edge_ai_assets.resources.storage.account import Account;"
        "from edge_ai_assets.resources.mirror.blob_mirror import BlobMirror;"
        "end, key, c, lake = sys.argv[1:]; lake = Path(lake);"
        "BlobMirror(Account(end, K('cloud', key)), c, lake, lake.parent / 'lake-notes').push(lake)"
    )
    client, kills = azurite.account("cloud").container(container), 0
    with Proxy(azurite.blobs, pause=0.05) as proxy:
        endpoint = f"http://127.0.0.1:{proxy.port}/cloud"
        for enough in (5, 25):
            process = subprocess.Popen(
                [sys.executable, "-c", program, endpoint, KEYS["cloud"], container, str(lake)]
            )
            deadline = time.monotonic() + 120
            while sum(1 for _ in client.list_blob_names()) < enough and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            kills += process.wait(60) == -signal.SIGKILL
        there = set(client.list_blob_names())
        assert kills == 2 and "training_set/newest.json" not in there
        proxy.pause = 0.0
        # Of those in flight, six each time, the notes do not know.
        assert mirror(azurite.account("cloud", endpoint=endpoint), container, lake).push(lake).files <= (
            len(contents(lake)) - len(there) + 2 * 6
        )
    back = tmp_path / "back"
    mirror(azurite.account("cloud"), container, back).pull("raw_telemetry", "training_set")
    assert contents(back) == contents(lake)


def test_of_two_that_push_at_once_each_finds_all_there(azurite, container, tmp_path):
    lake = tmp_path / "lake"
    fill(lake, {f"raw_telemetry/{n}.parquet": 1_000 for n in range(40)})
    far = [mirror(azurite.account("cloud"), container, lake) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda each: each.push(lake), far))
    assert sorted(each.files for each in done) == [0, 40]


def test_memory_is_a_few_blocks_whatever_is_sent(azurite, container, tmp_path):
    lake = tmp_path / "lake"
    fill(lake, {f"raw_telemetry/{n}.parquet": 5 * BLOCK for n in range(4)})
    far = mirror(azurite.account("cloud"), container, lake)
    tracemalloc.start()
    far.push(lake)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 3 * BLOCK


def test_nobody_listens(tmp_path, azurite):
    port = free_port()
    fill(tmp_path / "lake", {f"raw_telemetry/{n}": 10 for n in range(200)})
    account = azurite.account("cloud", endpoint=f"http://127.0.0.1:{port}/cloud")
    began = time.monotonic()
    with pytest.raises(LinkDown, match=r"sending raw_telemetry/\d+: 127\.0\.0\.1.* is out of reach"):
        mirror(account, "lake", tmp_path / "lake").push(tmp_path / "lake")
    with pytest.raises(LinkDown, match="listing"):
        mirror(account, "lake", tmp_path / "lake").pull("raw_telemetry")
    assert time.monotonic() - began < 30


def test_a_server_that_hangs(azurite, container, tmp_path):
    lake = tmp_path / "lake"
    fill(lake, {f"raw_telemetry/{n}": 10 for n in range(50)} | {"raw_telemetry/large": WHOLE + BLOCK})
    far = mirror(azurite.account("cloud", read_seconds=1.0), container, lake)
    azurite.pause()
    try:
        began = time.monotonic()
        with pytest.raises(LinkDown, match="out of reach"):
            far.push(lake)
        assert time.monotonic() - began < 30
    finally:
        azurite.resume()
    mirror(azurite.account("cloud"), container, lake).push(lake)
    back = tmp_path / "back"
    mirror(azurite.account("cloud"), container, back).pull("raw_telemetry")
    assert contents(back) == contents(lake)


def test_a_slow_link_is_no_cut(azurite, container, tmp_path):
    """A file takes longer than the time-outs, and comes through: they are about silence, not about size."""
    lake = tmp_path / "lake"
    fill(lake, {"raw_telemetry/large": 1024 * 1024, "raw_telemetry/small": WHOLE})
    with Proxy(azurite.blobs, pause=0.06) as proxy:
        slow = azurite.account(
            "cloud", endpoint=f"http://127.0.0.1:{proxy.port}/cloud", connect_seconds=1.5, read_seconds=1.5
        )
        began = time.monotonic()
        assert mirror(slow, container, lake).push(lake).files == 2
    assert time.monotonic() - began > 3


def test_an_expired_signature_is_said_as_such(azurite, container, tmp_path):
    from datetime import UTC, datetime, timedelta

    from azure.core.credentials import AzureSasCredential

    from edge_ai_assets.resources.storage.hub_sas import container_sas

    key = azurite.account("cloud").credential
    expired = container_sas(key, container, "rcwl", datetime.now(UTC) - timedelta(hours=1), https=False)
    account = azurite.account("cloud", credential=AzureSasCredential(expired))
    fill(tmp_path / "lake", {"raw_telemetry/a": 10})
    for call in (
        lambda: mirror(account, container, tmp_path / "lake").push(tmp_path / "lake"),
        lambda: mirror(account, container, tmp_path / "back").pull("raw_telemetry"),
    ):
        with pytest.raises(MirrorError, match="has not expired") as raised:
            call()
        assert "sig=" not in str(raised.value)


def test_a_container_that_is_not_there(azurite, tmp_path):
    fill(tmp_path / "lake", {"raw_telemetry/a": 10})
    with pytest.raises(MirrorError, match=r"no such place \(ContainerNotFound\): create it"):
        mirror(azurite.account("cloud"), "elsewhere", tmp_path / "lake").push(tmp_path / "lake")
