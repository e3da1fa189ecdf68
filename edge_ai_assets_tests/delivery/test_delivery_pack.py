"""What the release assets do: a model's folder becomes the next release once, the newest release a bundle."""

from __future__ import annotations

import json

import pytest

from edge_ai_assets.delivery import pack, signing
from edge_ai_assets.delivery.errors import DeliveryError, MissingError
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets_tests.tiny_model import tiny_release


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def model(home, number, bias=-2.0):
    folder = tiny_release(home.candidates / f"run-{number}", bias=bias, usecase=True)
    (folder / "metrics.json").write_text(json.dumps({"f1": 0.9, "rows": 10}))
    (folder / "model_card.md").write_text("A tiny model.")
    Lineage(training_run=f"run-{number}", training_set=f"set-{number}", usecase="digest").write(folder)
    return folder


def release(home, folder):
    return pack.release(folder, home.registry, home.keys, "tiny")


def test_before_the_first_there_is_none(home):
    assert pack.newest(home.registry, home.keys) is None
    with pytest.raises(MissingError, match="materialize release/image first"):
        pack.bundle(home.registry, home.keys, home.media)


def test_a_release_says_where_its_model_came_from(home):
    made = release(home, model(home, 1))
    assert (made.version, made.run_id, made.data_version) == (1, "run-1", "set-1")
    assert made.metrics["f1"] == 0.9 and made.usecase == "tiny"
    assert pack.newest(home.registry, home.keys) == made


def test_the_same_model_is_the_same_release_and_another_the_next(home):
    first, again = (release(home, model(home, 1)) for _ in range(2))
    assert again == first
    second = release(home, model(home, 2, bias=-3.0))
    assert second.version == 2 and second.image != first.image
    assert pack.newest(home.registry, home.keys) == second


def test_the_key_is_made_once(home):
    release(home, model(home, 1))
    before = (home.keys / "release.pem").read_bytes()
    release(home, model(home, 2, bias=-3.0))
    assert (home.keys / "release.pem").read_bytes() == before
    assert (home.keys / "release.pem").stat().st_mode & 0o777 == 0o600


def test_a_release_that_somebody_else_signed_is_not_the_newest(home, tmp_path):
    release(home, model(home, 1))
    other = Home(tmp_path / "other")
    signing.create(other.keys, pack.KEY)
    with pytest.raises(DeliveryError):
        pack.newest(home.registry, other.keys)


def test_the_bundle_is_one_file_and_the_same_again(home):
    release(home, model(home, 1))
    path = pack.bundle(home.registry, home.keys, home.media)
    before = path.read_bytes()
    assert pack.bundle(home.registry, home.keys, home.media) == path and path.read_bytes() == before
    assert [each for each in home.media.iterdir() if not each.name.startswith(".")] == [path]


def test_a_model_without_lineage_is_not_released(home):
    folder = model(home, 1)
    (folder / "lineage.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lineage\.json"):
        release(home, folder)
    assert not home.registry.exists() or pack.newest(home.registry, home.keys) is None


@pytest.mark.parametrize("look", [pack.newest, pack.known])
def test_who_looks_while_somebody_releases_sees_the_one_before(home, monkeypatch, look):
    """Tags and trust metadata are two reads."""
    first = release(home, model(home, 1))
    trusted = pack._trusted

    def meanwhile(*arguments):
        found = trusted(*arguments)
        monkeypatch.setattr(pack, "_trusted", trusted)
        release(home, model(home, 2, bias=-3.0))
        return found

    monkeypatch.setattr(pack, "_trusted", meanwhile)
    assert look(home.registry, home.keys) in (first, [first])
