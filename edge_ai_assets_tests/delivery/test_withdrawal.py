"""A release that was withdrawn is installed by nobody who heard of it, on either road and in any order."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_ai_assets.delivery import bundle, ceremony, image, metadata, release, signing, withdrawing
from edge_ai_assets.delivery.authority import Authority
from edge_ai_assets.delivery.errors import (
    DeliveryError,
    KeyFileError,
    MissingError,
    RollbackError,
    UntrustedError,
    WithdrawnError,
)
from edge_ai_assets.delivery.keyring import Keyring
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.listing import UNREAD, Withdrawal, path_of, said_of
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust

SAID = Withdrawal("ann", "the licence forbids it", datetime(2026, 3, 1, tzinfo=UTC))


class World:
    """Azure's registry, and sites by name."""

    def __init__(self, folder):
        self.folder, self.bundles = folder, 0
        ceremony.make(folder / "keys")
        self.authority = ceremony.authority(folder / "keys")
        self.key = signing.load_private(folder / "keys" / "release.pem")
        self.registry = Layout(folder / "registry")
        self.azure = Trust(self.authority.root, self.registry)

    def publish(self, content):
        model = self.folder / f"model-{content}"
        model.mkdir(exist_ok=True)
        for name in image.FILES:
            (model / name).write_text(f"{name} {content}\n")
        return release.publish(
            self.registry,
            image=image.build(model, self.registry, annotations={}),
            usecase="pump",
            run_id="run",
            data_version="v1",
            metrics={},
            key=self.key,
            created=datetime(2026, 1, 2, tzinfo=UTC),
            authority=self.authority,
        )

    def withdraw(self, version, said=SAID):
        return withdrawing.withdraw(self.registry, version, self.authority, said)

    def site(self, name):
        store = SiteStore(self.folder / name)
        return store, Trust(self.authority.root, store.layout)

    def bundle(self, version):
        self.bundles += 1
        return bundle.build(self.registry, version, self.folder / f"media-{self.bundles}", self.azure)

    def good(self):
        return [
            n for n in release.versions(self.registry.tags()) if path_of("pump", n) not in self.taken_back()
        ]

    def taken_back(self):
        return self.azure.held().withdrawn


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    for content in ("one", "two", "three"):
        made.publish(content)
    return made


class TestSaying:
    def test_who_why_and_when_stand_in_the_signed_list(self, world):
        assert world.withdraw(3) == SAID
        assert world.taken_back() == {"releases/pump/3.dsse": SAID}
        assert set(world.azure.held().targets) == {path_of("pump", number) for number in (1, 2, 3)}
        assert release.latest(world.registry, world.azure.held()).version == 2
        assert str(SAID) == "withdrawn by ann on 2026-03-01 00:00: the licence forbids it"

    def test_one_that_is_not_the_newest_moves_nothing(self, world):
        world.withdraw(2)
        assert release.latest(world.registry, world.azure.held()).version == 3

    def test_it_is_said_once_and_stays(self, world):
        world.withdraw(3)
        tags = world.registry.tags()
        other = Withdrawal("bob", "again", datetime(2027, 1, 1, tzinfo=UTC))
        assert world.withdraw(3, other) == SAID and world.registry.tags() == tags
        world.publish("four")
        tags = world.registry.tags()
        with world.registry.editing() as now:
            now[metadata.TAG] = world.authority.rooted(world.registry, now, world.authority.root)
        assert world.taken_back() == {"releases/pump/3.dsse": SAID}

    def test_of_none_that_is_there(self, world):
        with pytest.raises(MissingError, match="no tag 'release-9'"):
            world.withdraw(9)

    def test_it_takes_as_many_keys_as_a_release(self, tmp_path):
        ceremony.make(tmp_path / "keys2", ceremony.Roles(targets=("a", "b"), targets_threshold=2))
        world = World(tmp_path)
        world.authority = ceremony.authority(tmp_path / "keys2")
        world.azure = Trust(world.authority.root, world.registry)
        world.publish("one")
        (tmp_path / "keys2" / "b.pem").rename(tmp_path / "b.pem")
        world.authority = Authority(world.authority.root, Keyring([tmp_path / "keys2"]))
        before = world.registry.tags()
        with pytest.raises(KeyFileError, match="needs 2 of the keys"):
            world.withdraw(1)
        assert world.registry.tags() == before and not world.taken_back()

    def test_the_same_model_is_not_released_again(self, world):
        world.withdraw(3)
        with pytest.raises(WithdrawnError, match="as release 3 it was withdrawn by ann"):
            world.publish("three")
        assert world.publish("two").version == 2 and world.publish("four").version == 4

    def test_where_none_is_left_none_is_the_newest(self, world):
        for number in (3, 2, 1):
            world.withdraw(number)
        store, trust = world.site("new")
        with pytest.raises(WithdrawnError, match=r"release 1 refused: it was withdrawn by ann"):
            store.fetch(world.registry, trust)
        assert len(trust.held().withdrawn) == 3 and not store.releases()
        assert world.publish("four").version == 4 and store.fetch(world.registry, trust).version == 4

    @pytest.mark.parametrize(
        ("custom", "found"),
        [
            (None, None),
            ({}, None),
            ("x", None),
            ({"rings": ["canary"]}, None),
            ({"withdrawn": None}, None),
            ({"withdrawn": {**msgspec.to_builtins(SAID), "more": 1}}, SAID),
            ({"withdrawn": {"who": "ann"}}, UNREAD),
            ({"withdrawn": True}, UNREAD),
        ],
    )
    def test_it_is_read_as_one_in_whatever_form(self, custom, found):
        assert said_of(custom) == found


def test_a_reason_of_several_lines_is_one_line_of_a_log():
    said = Withdrawal("ann", "it alarms\n2026-01-01 all is well\r\n\tat night", SAID.at)
    assert str(said).endswith(": it alarms 2026-01-01 all is well at night")


class TestSites:
    def test_a_site_without_it_takes_the_one_before(self, world):
        world.withdraw(3)
        store, trust = world.site("new")
        assert store.fetch(world.registry, trust).version == 2

    def test_a_linked_site_that_has_it_goes_back_past_it_and_no_further(self, world):
        store, trust = world.site("linked")
        store.fetch(world.registry, trust)
        with pytest.raises(RollbackError):
            store.fetch(world.registry, trust, version=2)
        world.withdraw(3)
        with pytest.raises(RollbackError, match="older than the installed release 2"):
            store.fetch(world.registry, trust, version=1)
        assert store.fetch(world.registry, trust).version == 2
        assert store.newest() == 3 and store.layout.head("latest") == world.registry.head("latest")
        world.withdraw(2)
        assert store.fetch(world.registry, trust).version == 1
        assert world.publish("four").version == store.fetch(world.registry, trust).version == 4
        with pytest.raises(RollbackError):
            store.fetch(world.registry, trust, version=1)

    @pytest.mark.parametrize("allow_rollback", [False, True])
    def test_nobody_installs_it_by_its_number(self, world, allow_rollback):
        world.withdraw(3)
        store, trust = world.site("new")
        with pytest.raises(WithdrawnError, match=r"release 3 refused: it was withdrawn by ann .* licence"):
            store.fetch(world.registry, trust, version=3, allow_rollback=allow_rollback)
        assert not store.releases()

    def test_a_registry_whose_tag_is_behind_its_list(self, world):
        before = world.registry.tags()["latest"]
        world.withdraw(3)
        world.registry.tag("latest", before)  # as while a push is under way, or somebody set it back
        store, trust = world.site("new")
        assert store.fetch(world.registry, trust).version == 2

    def test_a_tag_that_is_no_release_of_the_list_is_passed_over(self, world):
        before = world.registry.tags()["latest"]
        world.withdraw(3)
        with world.registry.editing() as tags:
            tags["latest"], tags["release-99"] = before, before
        store, trust = world.site("new")
        assert store.fetch(world.registry, trust).version == 2

    def test_by_its_own_disk_it_goes_back_without_a_link(self, world):
        store, trust = world.site("ship")
        for number in (2, 3):
            bundle.import_bundle(world.bundle(number), store.layout, trust)
            store.fetch(store.layout, trust, version=number)
        world.withdraw(3)
        store.renew(world.registry, trust)
        shutil.rmtree(world.registry.path)
        assert store.fetch(store.layout, trust).version == 2

    def test_the_next_bundle_brings_the_word_and_the_release(self, world):
        store, trust = world.site("ship")
        bundle.import_bundle(world.bundle(3), store.layout, trust)
        store.fetch(store.layout, trust)
        world.withdraw(3)
        bundle.import_bundle(world.bundle(2), store.layout, trust)
        assert trust.held().withdrawn == {"releases/pump/3.dsse": SAID}
        assert store.fetch(store.layout, trust).version == 2

    def test_a_bundle_of_it_brings_the_word_alone(self, world):
        store, trust = world.site("ship")
        world.withdraw(3)
        path = world.bundle(3)
        with pytest.raises(WithdrawnError, match="release 3 refused: it was withdrawn by ann"):
            bundle.verify(path, trust)
        assert not store.layout.path.exists()
        for _ in range(2):
            with pytest.raises(WithdrawnError, match=r"bundle refused: release 3 refused"):
                bundle.import_bundle(path, store.layout, trust)
        assert trust.held().withdrawn and set(store.layout.tags()) == {metadata.TAG}

    def test_a_bundle_from_before_is_refused_by_a_site_that_heard(self, world):
        store, trust = world.site("ship")
        old = world.bundle(3)
        bundle.import_bundle(world.bundle(2), store.layout, trust)
        store.fetch(store.layout, trust, version=2)
        world.withdraw(3)
        store.renew(world.registry, trust)
        before = store.layout.tags()
        with pytest.raises(RollbackError, match="older than what is here"):
            bundle.import_bundle(old, store.layout, trust)
        assert store.layout.tags() == before

    def test_an_old_copy_of_the_registry_is_refused_by_a_site_that_heard(self, world, tmp_path):
        shutil.copytree(world.registry.path, tmp_path / "yesterday")
        store, trust = world.site("linked")
        store.fetch(world.registry, trust, version=2)
        world.withdraw(3)
        store.renew(world.registry, trust)
        for take in (store.fetch, store.renew):
            with pytest.raises(RollbackError, match="older than what is here"):
                take(Layout(tmp_path / "yesterday"), trust)
        assert [each.version for each in store.releases()] == [2] and trust.held().withdrawn

    def test_the_mark_cannot_be_taken_off(self, world):
        world.withdraw(3)
        files = dict(metadata.read(world.registry, world.registry.tags()[metadata.TAG]).files)
        name = next(name for name in files if "targets" in name)
        document = json.loads(files[name])
        del document["signed"]["targets"]["releases/pump/3.dsse"]["custom"]
        with world.registry.editing() as tags:
            tags[metadata.TAG] = metadata.put(world.registry, files | {name: json.dumps(document).encode()})
        store, trust = world.site("new")
        with pytest.raises(DeliveryError, match="trust metadata is refused"):
            store.fetch(world.registry, trust)

    def test_a_site_that_trusts_by_a_key_does_not_hear(self, world):
        """It joined before there was a list; what was tagged last it takes all the same."""
        world.withdraw(3)
        store, _ = world.site("old")
        assert store.fetch(world.registry, [world.key.public_key()]).version == 2

    def test_another_statement_is_still_refused_beside_the_mark(self, world):
        world.withdraw(3)
        with world.registry.editing() as tags, pytest.raises(DeliveryError, match="another statement"):
            world.authority.listed(world.registry, tags, {path_of("pump", 3): b"x"})
        with world.registry.editing() as tags, pytest.raises(MissingError, match="not listed"):
            world.authority.withdrawn(world.registry, tags, path_of("pump", 7), SAID)
        with pytest.raises(UntrustedError):
            release.latest(
                world.registry, [signing.load_private(world.folder / "keys" / "root.pem").public_key()]
            )


class AnyOrder(RuleBasedStateMachine):
    """Releases are published and withdrawn, sites hear by link, by bundles of any age, and old copies of the
    registry are put before them. What a site heard of as withdrawn it never installs, and never forgets."""

    @initialize()
    def begin(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.world = World(Path(self.scratch.name))
        self.sites = {name: self.world.site(name) for name in ("linked", "ship")}
        self.heard = {name: frozenset() for name in self.sites}
        self.carried, self.copies = [], []
        for content in ("0", "1", "2"):
            self.world.publish(content)
        self.count = 3

    def teardown(self):
        if hasattr(self, "scratch"):
            self.scratch.cleanup()

    @precondition(lambda self: self.count < 6)
    @rule()
    def publish(self):
        self.world.publish(str(self.count))
        self.count += 1

    @rule(data=st.data())
    def withdraw(self, data):
        self.world.withdraw(data.draw(st.integers(1, self.count)))

    @rule(data=st.data())
    def build(self, data):
        self.carried.append(self.world.bundle(data.draw(st.integers(1, self.count))))

    @precondition(lambda self: len(self.copies) < 3)
    @rule()
    def copy(self):
        target = self.world.folder / f"copy-{len(self.copies)}"
        shutil.copytree(self.world.registry.path, target)
        self.copies.append(Layout(target))

    @rule(name=st.sampled_from(["linked", "ship"]))
    def renew(self, name):
        store, trust = self.sites[name]
        store.renew(self.world.registry, trust)

    @rule(name=st.sampled_from(["linked", "ship"]), data=st.data())
    def fetch(self, name, data):
        store, trust = self.sites[name]
        source = data.draw(st.sampled_from([self.world.registry, store.layout, *self.copies]))
        version = data.draw(st.none() | st.integers(1, self.count))
        self.take(name, lambda: store.fetch(source, trust, version=version))
        if source is self.world.registry and version is None and self.world.good():
            newest = max(self.world.good())
            assert newest in [each.version for each in store.releases()]

    @precondition(lambda self: self.carried)
    @rule(name=st.sampled_from(["linked", "ship"]), data=st.data())
    def carry(self, name, data):
        store, trust = self.sites[name]
        path = data.draw(st.sampled_from(self.carried))
        self.take(
            name, lambda: bundle.import_bundle(path, store.layout, trust) and store.fetch(store.layout, trust)
        )

    def take(self, name, attempt):
        """What is installed by it was not known as withdrawn, before or after."""
        store, trust = self.sites[name]
        before = {each.version for each in store.releases()}
        known = set(self.heard[name])
        with contextlib.suppress(DeliveryError):
            attempt()
        new = {path_of("pump", each.version) for each in store.releases()} - {
            path_of("pump", n) for n in before
        }
        assert not new & (known | set(trust.held().withdrawn))

    @invariant()
    def nothing_is_forgotten(self):
        if not hasattr(self, "world"):
            return
        for name, (_, trust) in self.sites.items():
            now = frozenset(trust.held().withdrawn)
            assert now >= self.heard[name]
            self.heard[name] = now


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=20, stateful_step_count=14, deadline=None)
