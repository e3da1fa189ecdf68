"""Files that were landed in a real container come into the landing zone: whole, once, again when put anew."""

from __future__ import annotations

import random
import time

import pytest

from edge_ai_assets.readings import landing as zone
from edge_ai_assets.resources.ingestion.blob_landing import BlobLanding, LandingError
from edge_ai_assets.resources.storage.blob_content import BLOCK
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets_tests.integration.azurite import Azurite, azurite
from edge_ai_assets_tests.integration.faults import Proxy
from edge_ai_assets_tests.integration.watched import watched

pytestmark = pytest.mark.integration
__all__ = ["azurite"]


@pytest.fixture
def container(azurite: Azurite) -> str:
    return azurite.container(f"c{random.randrange(10**12)}")


@pytest.fixture
def put(azurite, container):
    client = azurite.account("cloud").container(container)

    def put(name: str, data: bytes | str, **metadata: str) -> None:
        data = data.encode() if isinstance(data, str) else data
        client.get_blob_client(name).upload_blob(data, overwrite=True, metadata=metadata)

    return put


def here(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in zone.waiting(folder)}


def test_a_file_comes_once_and_again_when_it_was_put_anew(azurite, container, put, tmp_path):
    far = BlobLanding(azurite.account("cloud"), container, tmp_path)
    put("bergen/2026/a.csv", "a")
    put("b.csv", "b")
    assert [name for name, _ in far.waiting()] == ["b.csv", "bergen/2026/a.csv"]
    done = far.fetch()
    assert (done.files, done.bytes, done.left) == (("b.csv", "bergen/2026/a.csv"), 2, ())
    assert here(tmp_path) == {"b.csv": b"b", "bergen/2026/a.csv": b"a"}
    (tmp_path / "b.csv").unlink()  # the lake has it
    assert far.waiting() == [] and far.fetch().files == ()
    put("b.csv", "B")
    assert [name for name, _ in far.waiting()] == ["b.csv"]
    assert far.fetch().files == ("b.csv",) and here(tmp_path)["b.csv"] == b"B"


def test_looking_is_one_request(azurite, container, put, tmp_path):
    for number in range(30):
        put(f"bergen/{number}.csv", "x" * 1_000)
    account = watched(azurite.account("cloud"))
    assert len(BlobLanding(account, container, tmp_path).waiting()) == 30
    assert [request.method for request in account.watch.seen] == ["GET"]
    assert here(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("taken/a.csv", "for itself"),
        ("unreadable/a.csv", "for itself"),
        ("bergen//a.csv", "leads elsewhere"),
        (".hidden/a.csv", "begin with a dot"),
        ("bergen/.a.csv", "begin with a dot"),
        ("long/" + "x" * 256, "more than 255 bytes"),
        ("large.csv", "the limit is 100"),
        ("folder", "that of a folder"),
        ("file/a.csv", "through that of a file"),
    ],
)
def test_what_can_be_no_file_here_is_left(azurite, container, put, tmp_path, name, reason):
    far = BlobLanding(azurite.account("cloud"), container, tmp_path, max_bytes=100)
    (tmp_path / "folder/x").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"x")
    put(name, "x" * 101 if name == "large.csv" else "x")
    put("fine.csv", "x")
    done = far.fetch()
    assert done.files == ("fine.csv",)
    ((left, why),) = done.left
    assert left == name and reason in why


def test_folders_and_what_is_being_written_do_not_count(azurite, container, put, tmp_path):
    put("bergen", b"", hdi_isfolder="true")
    put("bergen/a.csv", b"")
    far = BlobLanding(azurite.account("cloud"), container, tmp_path)
    assert far.waiting() == [] and far.fetch().files == ()
    put("bergen/a.csv", b"x")
    assert far.fetch().files == ("bergen/a.csv",)


def test_a_cut_keeps_what_came(azurite, container, put, tmp_path):
    data = random.Random(1).randbytes(3 * BLOCK + 5)
    put("bergen/a.csv", data)
    with Proxy(azurite.blobs) as proxy:
        account = azurite.account("cloud", endpoint=f"http://127.0.0.1:{proxy.port}/cloud")
        far = BlobLanding(account, container, tmp_path)
        proxy.back_after = 2 * BLOCK + 50_000
        cut = far.fetch()
        assert cut.files == () and "fetching bergen/a.csv" in str(cut.interrupted)
        assert here(tmp_path) == {}
        (partial,) = (tmp_path / ".landing/arriving").iterdir()
        came, proxy.back_after, before = partial.stat().st_size, None, proxy.came
        assert came >= BLOCK
        assert far.fetch().files == ("bergen/a.csv",)
        assert proxy.came - before < len(data) - came + 100_000
    assert here(tmp_path) == {"bergen/a.csv": data}
    assert list((tmp_path / ".landing/arriving").iterdir()) == []


def test_what_came_of_a_blob_that_was_put_anew_is_not_mixed_with_it(azurite, container, put, tmp_path):
    put("a.csv", b"1" * (2 * BLOCK))
    account = watched(azurite.account("cloud"), left=2)
    assert BlobLanding(account, container, tmp_path).fetch().interrupted
    put("a.csv", b"2" * (2 * BLOCK))
    assert BlobLanding(azurite.account("cloud"), container, tmp_path).fetch().files == ("a.csv",)
    assert here(tmp_path) == {"a.csv": b"2" * (2 * BLOCK)}
    assert list((tmp_path / ".landing/arriving").iterdir()) == []


def test_a_blob_that_is_put_anew_while_it_is_fetched_waits(azurite, container, put, tmp_path, monkeypatch):
    from edge_ai_assets.resources.storage import blob_content

    put("a.csv", b"1" * 100)
    fetch = blob_content.fetch

    def meanwhile(client, blob, partial):
        put("a.csv", b"2" * 100)
        return fetch(client, blob, partial)

    far = BlobLanding(azurite.account("cloud"), container, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(blob_content, "fetch", meanwhile)
        done = far.fetch()
    assert done.files == () and "put there anew" in done.left[0][1]
    assert far.fetch().files == ("a.csv",) and here(tmp_path) == {"a.csv": b"2" * 100}


def test_damage_on_the_way_is_seen(azurite, container, put, tmp_path):
    put("a.csv", b"x" * 100, sha256="0" * 64)
    far = BlobLanding(azurite.account("cloud"), container, tmp_path)
    done = far.fetch()
    assert done.files == () and "not what was put there" in done.left[0][1] and here(tmp_path) == {}


def test_a_server_that_hangs_and_a_container_that_is_not_there(azurite, container, put, tmp_path):
    put("a.csv", b"x")
    far = BlobLanding(azurite.account("cloud", read_seconds=1.0), container, tmp_path)
    azurite.pause()
    try:
        began = time.monotonic()
        with pytest.raises(LinkDown, match="looking for landed files"):
            far.waiting()
        assert "out of reach" in str(far.fetch().interrupted)
        assert time.monotonic() - began < 30
    finally:
        azurite.resume()
    with pytest.raises(LandingError, match="create it"):
        BlobLanding(azurite.account("cloud"), "elsewhere", tmp_path).fetch()
