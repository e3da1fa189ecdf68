"""Where everything is: settings from the environment, and links that are never half changed."""

import os
import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from edge_ai_assets import usecase
from edge_ai_assets.home import Home, SiteHome, point
from edge_ai_assets.settings import Settings


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.delenv("EDGE_AI_HOME", raising=False)
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_default_is_a_hidden_folder_here(tmp_path):
    assert Settings.load().folders() == Home(tmp_path / ".edge-ai")
    assert Settings.load().load_usecase().name == "pump-station"


def test_the_environment_says_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_AI_HOME", "elsewhere")
    monkeypatch.setenv("EDGE_AI_USECASE", str(usecase.BUNDLED / "skab.yaml"))
    assert Settings.load().folders().root == tmp_path / "elsewhere"
    assert Settings.load().load_usecase().name == "skab"


def test_a_variable_that_is_set_to_nothing_is_not_set(monkeypatch, tmp_path):
    """Otherwise the current folder would be the home, and be removed as one."""
    monkeypatch.setenv("EDGE_AI_HOME", "")
    monkeypatch.setenv("EDGE_AI_USECASE", "")
    assert Settings.load().folders() == Home(tmp_path / ".edge-ai")
    assert Settings.load().usecase is None


def test_the_home_s_own_use_case_comes_before_the_pump_station(tmp_path):
    home = Home(tmp_path / ".edge-ai")
    home.root.mkdir()
    usecase.dump(usecase.load(usecase.BUNDLED / "skab.yaml"), home.usecase)
    assert Settings.load().load_usecase().name == "skab"
    named = Settings(usecase=usecase.BUNDLED / "pump-station.yaml")
    assert named.load_usecase().name == "pump-station"


def test_a_use_case_that_is_not_there_is_named(tmp_path):
    with pytest.raises(usecase.UseCaseError, match=r"absent\.yaml: cannot be read"):
        Settings(usecase=tmp_path / "absent.yaml").load_usecase()


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Settings.load().home = Path("other")


def folders(of: object) -> list[Path]:
    names = [name for name, kind in vars(type(of)).items() if isinstance(kind, property)]
    return [path for name in names if isinstance(path := getattr(of, name), Path)]


@pytest.mark.parametrize("of", [Home(Path("/home")), SiteHome(Path("/home/sites/a"))], ids=["home", "site"])
def test_no_two_things_are_at_one_place_and_none_is_outside(of):
    found = folders(of)
    assert len(found) >= 8 and len(set(found)) == len(found)
    assert all(path.is_relative_to(of.root) and path != of.root for path in found)


def test_sites_do_not_share_a_folder(tmp_path):
    home = Home(tmp_path)
    assert home.site("a").name == "a"
    assert not set(folders(home.site("a"))) & set(folders(home.site("b")))


def test_a_link_is_made_changed_and_relative(tmp_path):
    link = tmp_path / "models" / "champion"
    for name in ("one", "two"):
        (tmp_path / "models" / "candidates" / name).mkdir(parents=True)
        point(link, tmp_path / "models" / "candidates" / name)
        assert link.resolve().name == name
        assert os.readlink(link) == f"candidates/{name}"
    moved = tmp_path / "moved"
    (tmp_path / "models").rename(moved)
    assert (moved / "champion").resolve() == (moved / "candidates" / "two").resolve()


def test_what_an_earlier_process_left_behind_is_no_obstacle(tmp_path):
    (tmp_path / f".link.{os.getpid()}").symlink_to("nowhere")
    point(tmp_path / "link", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link"]


def test_killed_before_the_last_step_the_link_is_as_it_was(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    (tmp_path / "old").mkdir()
    point(tmp_path / "link", tmp_path / "old")
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        point(tmp_path / "link", tmp_path / "new")
    assert (tmp_path / "link").resolve() == tmp_path / "old"


def test_a_reader_always_finds_one_or_the_other(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link, end, missed, seen = tmp_path / "link", threading.Event(), [], set()
    point(link, tmp_path / "one")

    def read():
        while not end.is_set():
            try:
                seen.add(os.readlink(link))
            except FileNotFoundError as error:
                missed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(300):
        point(link, tmp_path / ("one", "two")[turn % 2])
    end.set()
    reader.join()
    assert not missed and seen <= {"one", "two"}


def test_a_candidate_is_that_of_its_run_s_last_attempt(tmp_path):
    home = Home(tmp_path)
    home.candidates.mkdir(parents=True)
    (home.candidates / "7f3c.yaml").write_text("")
    assert home.trained("7f3c") == home.candidates / "7f3c"
    for name in ("7f3c", "7f3c-2", "7f3c-10", "8a"):
        (home.candidates / name).mkdir()
    assert home.trained("7f3c") == home.candidates / "7f3c-10"
    assert home.trained("8a") == home.candidates / "8a"
