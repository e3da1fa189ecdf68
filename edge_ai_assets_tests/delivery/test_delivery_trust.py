"""What a site takes and refuses by its root metadata, on either road."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from datetime import timedelta

import pytest

from edge_ai_assets.delivery import archive, bundle, ceremony, metadata, release, signed
from edge_ai_assets.delivery.authority import Authority
from edge_ai_assets.delivery.errors import (
    DeliveryError,
    ForeignError,
    MalformedError,
    MismatchError,
    MissingError,
    RollbackError,
    StaleError,
    UntrustedError,
)
from edge_ai_assets.delivery.keyring import Keyring
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust

LEASE = timedelta(days=180)


@pytest.fixture
def folder(tmp_path):
    ceremony.make(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def key(folder):
    from edge_ai_assets.delivery import signing

    return signing.load_private(folder / "release.pem")


@pytest.fixture
def authority(folder):
    return ceremony.authority(folder)


@pytest.fixture
def publish_listed(registry, publish, authority):
    def run(content="one", **changes):
        return publish(registry, content, **{"authority": authority, **changes})

    return run


@pytest.fixture
def store(tmp_path):
    return SiteStore(tmp_path / "site")


@pytest.fixture
def trusting(store, authority):
    return Trust(authority.root, store.layout)


@pytest.fixture
def azure(authority, registry):
    return Trust(authority.root, registry)


@pytest.fixture
def carry(registry, azure, tmp_path):
    """Builds the bundle of a version into a folder of its own."""

    def run(version, **given):
        return bundle.build(
            registry, version, tmp_path / f"media-{len(os.listdir(tmp_path))}", azure, **given
        )

    return run


def everything(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.name.endswith("lock")}


def members_of(path):
    with path.open("rb") as file:
        return [(m.name, b"".join(m.chunks)) for m in archive.members(file, "it")]


def rewrite(path, members):
    path.write_bytes(b"".join(archive.pack(archive.Member(n, len(d), [d]) for n, d in members)))


def docs(layout):
    return dict(metadata.read(layout, layout.tags()[metadata.TAG]).files)


def serve(source, files):
    """Let a source offer these documents."""
    top = metadata.put(source, files)
    with source.editing() as tags:
        tags[metadata.TAG] = top


class TestBothRoads:
    def test_a_linked_site_installs_what_is_listed(self, registry, publish_listed, store, trusting):
        made = publish_listed()
        assert store.fetch(registry, trusting) == made
        assert trusting.held().targets.keys() == {"releases/pump/1.dsse"}
        assert trusting.lease().until - trusting.lease().issued == LEASE

    def test_a_carried_bundle_ends_in_the_same_place(
        self, registry, publish_listed, store, trusting, carry, tmp_path
    ):
        made = publish_listed()
        path = carry(1)
        assert bundle.inspect(path)["format"] == 3
        assert bundle.verify(path, trusting) == made and not store.layout.path.exists()
        assert bundle.import_bundle(path, store.layout, trusting) == made
        assert store.fetch(store.layout, trusting) == made
        linked = SiteStore(tmp_path / "linked")
        linked.fetch(registry, Trust(trusting.root, linked.layout))
        assert linked.layout.tags() == store.layout.tags() and linked.layout.blobs() == store.layout.blobs()

    def test_the_bundle_is_the_same_again(self, publish_listed, carry):
        publish_listed()
        assert carry(1).read_bytes() == carry(1).read_bytes()

    def test_an_update_leaves_out_what_the_site_has(self, publish_listed, store, trusting, carry):
        publish_listed()
        bundle.import_bundle(carry(1), store.layout, trusting)
        publish_listed("two")
        path = carry(2, have=store.layout.blobs())
        assert bundle.import_bundle(path, store.layout, trusting).version == 2
        assert trusting.held().targets.keys() == {f"releases/pump/{n}.dsse" for n in (1, 2)}

    def test_what_is_not_listed_is_no_release(self, registry, publish_listed, publish, store, trusting):
        publish_listed()
        publish(registry, "two", keys=[])  # signed by the online key, but nobody listed it
        with pytest.raises(UntrustedError, match=r"releases/pump/2\.dsse is not listed"):
            store.fetch(registry, trusting)
        assert not store.releases()

    def test_another_statement_under_a_listed_version_is_refused(
        self, registry, publish_listed, publish, store, trusting, tmp_path
    ):
        publish_listed()
        other = Layout(tmp_path / "other")
        publish(other, "two")
        serve(other, docs(registry))
        with pytest.raises(UntrustedError, match="the trusted metadata lists"):
            store.fetch(other, trusting)

    def test_a_site_that_trusts_by_a_key_takes_it_all_the_same(self, publish_listed, carry, store, keys):
        made = publish_listed()
        assert bundle.import_bundle(carry(1), store.layout, keys) == made
        assert metadata.TAG not in store.layout.tags()

    def test_a_bundle_without_metadata_is_refused(self, registry, publish, keys, trusting, store, tmp_path):
        publish(registry)
        path = bundle.build(registry, 1, tmp_path, keys)
        with pytest.raises(UntrustedError, match="format 1, which brings no trust metadata"):
            bundle.import_bundle(path, store.layout, trusting)
        with pytest.raises(MissingError, match=r"no tag 'trust' in .* trust metadata is demanded"):
            store.fetch(registry, trusting)

    def test_the_operator_goes_back_to_an_older_release_under_newer_metadata(
        self, registry, publish_listed, store, trusting
    ):
        first = publish_listed()
        publish_listed("two")
        store.fetch(registry, trusting)
        with pytest.raises(RollbackError):
            store.fetch(registry, trusting, version=1)
        assert store.fetch(registry, trusting, version=1, allow_rollback=True) == first


class TestRefused:
    @pytest.fixture
    def installed(self, registry, publish_listed, store, trusting, carry):
        """A site with release 1, and the bundle of release 2."""
        publish_listed()
        bundle.import_bundle(carry(1), store.layout, trusting)
        store.fetch(store.layout, trusting)
        publish_listed("two")
        return carry(2)

    @pytest.mark.slow
    @pytest.mark.parametrize("part", range(4))
    def test_every_flipped_byte_changes_nothing(self, installed, trusting, store, part):
        before, size = everything(store.folder), installed.stat().st_size
        with installed.open("r+b") as file:
            handle = file.fileno()
            for position in range(size * part // 4, size * (part + 1) // 4):
                (byte,) = os.pread(handle, 1, position)
                os.pwrite(handle, bytes([byte ^ (1 << position % 8)]), position)
                with pytest.raises(DeliveryError):
                    bundle.import_bundle(installed, store.layout, trusting)
                os.pwrite(handle, bytes([byte]), position)
        assert everything(store.folder) == before
        assert bundle.import_bundle(installed, store.layout, trusting).version == 2

    @pytest.mark.slow
    def test_cut_anywhere_changes_nothing(self, installed, trusting, store):
        before, whole = everything(store.folder), installed.read_bytes()
        for length in range(len(whole) - 1, -1, -1):
            os.truncate(installed, length)
            with pytest.raises(MalformedError, match=r"torn|end"):
                bundle.import_bundle(installed, store.layout, trusting)
        assert everything(store.folder) == before

    @pytest.mark.parametrize(
        ("name", "kind", "linked"),
        [
            ("../evil", tarfile.REGTYPE, ""),
            ("/etc/evil", tarfile.REGTYPE, ""),
            ("blobs/../../evil", tarfile.REGTYPE, ""),
            ("blobs", tarfile.SYMTYPE, "/etc"),
            ("evil", tarfile.LNKTYPE, "bundle.json"),
            ("evil", tarfile.CHRTYPE, ""),
            ("evil", tarfile.DIRTYPE, ""),
        ],
    )
    @pytest.mark.parametrize("place", [0, 3, -1])
    def test_what_would_lead_outside(self, installed, trusting, store, name, kind, linked, place):
        before, members = everything(store.folder), members_of(installed)
        members.insert(place if place >= 0 else len(members), None)
        with tarfile.open(installed, "w", format=tarfile.GNU_FORMAT) as tar:
            for member in members:
                info = tarfile.TarInfo(member[0] if member else name)
                if member is None:
                    info.type, info.linkname = kind, linked
                data = member[1] if member else b""
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        with pytest.raises(MalformedError, match="refused"):
            bundle.import_bundle(installed, store.layout, trusting)
        assert everything(store.folder) == before and not list(store.folder.parent.rglob("evil"))

    @pytest.mark.parametrize("position", range(12))
    def test_an_oversize_member_is_refused_before_it_is_read(self, installed, trusting, store, position):
        """A sparse file of a TiB whose header says so: neither memory nor time is spent on it."""
        before, members = everything(store.folder), members_of(installed)
        name = members[position][0]
        head = b"".join(archive.pack(archive.Member(n, len(d), [d]) for n, d in members[:position]))[:-1024]
        info = tarfile.TarInfo(name)
        info.size = 1 << 40
        with installed.open("wb") as file:
            file.write(head + info.tobuf(tarfile.GNU_FORMAT))
            file.truncate(len(head) + 512 + (1 << 40) + 1024)
        with pytest.raises(DeliveryError, match="are allowed"):
            bundle.import_bundle(installed, store.layout, trusting)
        assert everything(store.folder) == before

    def test_an_older_bundle_on_either_road(self, registry, publish_listed, store, trusting, carry, tmp_path):
        publish_listed()
        old = carry(1)
        shutil.copytree(registry.path, tmp_path / "yesterday")
        publish_listed("two")
        store.fetch(registry, trusting)
        before = everything(store.folder)
        with pytest.raises(RollbackError, match="older than what is here"):
            bundle.import_bundle(old, store.layout, trusting)
        with pytest.raises(RollbackError, match="older than what is here"):
            store.fetch(Layout(tmp_path / "yesterday"), trusting)
        assert everything(store.folder) == before

    @pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
    @pytest.mark.parametrize("newer", [False, True])
    def test_documents_of_two_times_do_not_mix(self, registry, publish_listed, store, trusting, role, newer):
        """One document of the other time: an old one among new ones, or a new one among old ones."""
        publish_listed()
        first = docs(registry)
        publish_listed("two")
        second = docs(registry)
        base, other = (first, second) if newer else (second, first)
        name, foreign = (next(n for n in files if role in n) for files in (base, other))
        for as_name in {name, foreign}:
            serve(registry, {n: d for n, d in base.items() if n != name} | {as_name: other[foreign]})
            with pytest.raises(DeliveryError, match="trust metadata is refused"):
                store.fetch(registry, trusting)
        assert not store.layout.blobs() and not store.releases()

    def test_a_strangers_metadata(self, registry, publish_listed, store, tmp_path):
        publish_listed()
        ceremony.make(tmp_path / "stranger")
        stranger = Trust(ceremony.first_root(tmp_path / "stranger"), store.layout)
        with pytest.raises(UntrustedError):
            store.fetch(registry, stranger)
        assert not store.layout.blobs()

    def test_a_root_that_its_former_did_not_sign(self, registry, publish_listed, store, trusting, tmp_path):
        publish_listed()
        ceremony.make(tmp_path / "stranger")
        evil = json.loads(ceremony.first_root(tmp_path / "stranger"))
        evil["signed"]["version"] = 2
        serve(registry, docs(registry) | {"2.root.json": json.dumps(evil).encode()})
        with pytest.raises(UntrustedError):
            store.fetch(registry, trusting)

    @pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "1.root"])
    @pytest.mark.parametrize("change", ["signature", "expires", "none"])
    def test_a_changed_document(self, registry, publish_listed, store, trusting, role, change):
        publish_listed()
        files = docs(registry)
        name = next(n for n in files if role in n)
        document = json.loads(files[name])
        if change == "signature":
            document["signatures"][0]["sig"] = "00" * 64
        elif change == "expires":
            document["signed"]["expires"] = "2099-01-01T00:00:00Z"
        else:
            document["signatures"] = []
        serve(registry, files | {name: json.dumps(document).encode()})
        if role == "1.root":  # the site has its own
            store.fetch(registry, trusting)
            return
        with pytest.raises(DeliveryError):
            store.fetch(registry, trusting)
        assert not store.layout.blobs()

    @pytest.mark.parametrize(
        "change",
        [
            lambda files: files.pop("timestamp.json"),
            lambda files: files.update({"timestamp.json": b"{"}),
            lambda files: files.update({"timestamp.json": b'{"a":' * 50_000}),
            lambda files: files.update({"9.targets.json": files["1.targets.json"], "1.targets.json": b""}),
        ],
    )
    def test_what_is_no_metadata(self, registry, publish_listed, store, trusting, change):
        publish_listed()
        files = docs(registry)
        change(files)
        serve(registry, files)
        with pytest.raises(DeliveryError):
            store.fetch(registry, trusting)
        assert not store.layout.blobs()

    @pytest.mark.parametrize("name", ["../timestamp.json", "x.json", "0.root.json", "1.evil.json", ""])
    def test_a_document_of_no_name(self, registry, name):
        with pytest.raises(MalformedError, match="is no document"):
            metadata.put(registry, {name: b"x"})

    def test_a_huge_document(self, registry, publish_listed, store, trusting):
        publish_listed()
        serve(registry, docs(registry) | {"2.root.json": b" " * (metadata.MAX_SIZE + 1)})
        with pytest.raises(DeliveryError, match="are allowed"):
            store.fetch(registry, trusting)

    def test_metadata_that_was_taken_in_meanwhile_is_not_set_back(
        self, registry, publish_listed, store, trusting, carry, monkeypatch
    ):
        publish_listed()
        old = carry(1)
        publish_listed("two")
        new = carry(2)
        checked = bundle.checked

        def slow(path, *given):
            result = checked(path, *given)
            if path == old:
                bundle.import_bundle(new, store.layout, trusting)
            return result

        monkeypatch.setattr(bundle, "checked", slow)
        with pytest.raises(MismatchError, match="taken in meanwhile"):
            bundle.import_bundle(old, store.layout, trusting)
        assert release.latest(store.layout, trusting.held()).version == 2

    def test_state_of_a_site_that_was_tampered_with(self, registry, publish_listed, store, trusting):
        publish_listed()
        store.fetch(registry, trusting)
        files = docs(store.layout)
        name = next(n for n in files if "targets" in n)
        document = json.loads(files[name])
        document["signed"]["version"] = 7
        serve(store.layout, files | {name: json.dumps(document).encode()})
        with pytest.raises(UntrustedError):
            trusting.held()

    def test_another_use_case_of_the_same_azure(
        self, registry, publish_listed, authority, publish, store, trusting, tmp_path
    ):
        publish_listed()
        store.fetch(registry, trusting)
        other = Layout(tmp_path / "valve")
        with other.editing() as tags:
            tags[metadata.TAG] = metadata.put(other, docs(registry))
        publish(other, "two", usecase="valve", authority=authority)
        with pytest.raises(ForeignError):
            store.fetch(other, trusting)


class TestLease:
    @pytest.fixture
    def clock(self, monkeypatch):
        import time_machine

        with time_machine.travel("2026-01-01T00:00:00Z", tick=False) as travelling:
            yield travelling

    def days(self, clock, number):
        clock.move_to("2026-01-01T00:00:00Z")
        clock.shift(timedelta(days=number))

    def test_before_its_end_all_is_well_after_it_nothing_new_is_taken(
        self, clock, registry, publish_listed, store, trusting, carry
    ):
        publish_listed()
        path = carry(1)
        self.days(clock, 179)
        bundle.verify(path, trusting)
        self.days(clock, 180)
        with pytest.raises(StaleError, match=r"signed 2026-01-01, good until 2026-06-30.* says 2026-06-30"):
            bundle.verify(path, trusting)
        with pytest.raises(StaleError):
            store.fetch(registry, trusting)
        assert not store.layout.blobs()

    def test_a_site_past_it_still_has_what_it_has(self, clock, registry, publish_listed, store, trusting):
        made = publish_listed()
        store.fetch(registry, trusting)
        self.days(clock, 1000)
        shutil.rmtree(store.path(made))
        assert store.fetch(store.layout, trusting) == made

    def test_a_fresh_bundle_ends_it(self, clock, registry, publish_listed, store, trusting, carry, folder):
        publish_listed()
        store.fetch(registry, trusting)
        self.days(clock, 400)
        with registry.editing() as tags:
            tags[metadata.TAG] = ceremony.authority(folder).current(registry, tags)
        bundle.import_bundle(carry(1), store.layout, trusting)
        assert trusting.lease().until.isoformat().startswith("2027-08-04")

    def test_it_is_signed_anew_when_a_tenth_is_over(self, clock, registry, publish_listed, authority):
        publish_listed()
        before = registry.tags()[metadata.TAG]
        for days, renewed in ((0, False), (17, False), (18, True)):
            self.days(clock, days)
            with registry.editing() as tags:
                assert (authority.current(registry, tags) != before) is renewed

    def test_another_lease_is_signed_at_once(self, clock, registry, publish_listed, folder):
        publish_listed()
        shorter = ceremony.authority(folder, timedelta(days=30))
        with registry.editing() as tags:
            tags[metadata.TAG] = shorter.current(registry, tags)
        stamp = signed.parsed(docs(registry)["timestamp.json"], "timestamp").signed
        assert stamp.expires.isoformat().startswith("2026-01-31")

    def test_the_same_metadata_for_ever_is_noticed(self, clock, registry, publish_listed, store, trusting):
        """Freeze: somebody keeps giving the site what it has."""
        publish_listed()
        store.fetch(registry, trusting)
        self.days(clock, 100)
        store.fetch(registry, trusting)
        self.days(clock, 181)
        with pytest.raises(StaleError):
            store.fetch(registry, trusting)

    @pytest.mark.parametrize("years", [-1, 1])
    def test_a_clock_that_is_off_by_a_year(self, clock, registry, publish_listed, store, trusting, years):
        """Ahead it seems expired, and the refusal names both times. Behind it is taken, for versions need no
        clock."""
        publish_listed()
        self.days(clock, 365 * years)
        if years > 0:
            with pytest.raises(StaleError, match="or set the clock if it is wrong"):
                store.fetch(registry, trusting)
        else:
            store.fetch(registry, trusting)


class TestRotation:
    def test_a_site_that_skipped_roots_follows(
        self, registry, publish_listed, store, trusting, folder, carry
    ):
        publish_listed()
        store.fetch(registry, trusting)
        for number in range(2, 12):
            role = ("root", "targets", "timestamp", "snapshot")[number % 4]
            old = ceremony.listed(folder, registry.path)["roles"][role]["keys"][0]["name"]
            ceremony.rotate(folder, registry.path, role, old, f"{role}-{number}")
        assert ceremony.listed(folder, registry.path)["version"] == 11
        publish_listed("two", authority=ceremony.authority(folder))
        path = carry(2)
        assert sum(name.endswith(".root.json") for name in docs(registry)) == 11
        assert bundle.import_bundle(path, store.layout, trusting).version == 2
        assert store.fetch(store.layout, trusting).version == 2

    def test_after_a_key_was_taken_back_what_it_signs_is_refused(
        self, registry, publish_listed, store, trusting, folder, authority, publish, tmp_path
    ):
        publish_listed()
        stolen = Layout(tmp_path / "stolen")
        shutil.copytree(registry.path, stolen.path)
        ceremony.rotate(folder, registry.path, "targets", "release", "targets-2")
        store.fetch(registry, trusting)
        (folder / "targets-2.pem").rename(tmp_path / "away.pem")
        # The thief has the online key, and signs with it for all roles that it had.
        publish(stolen, "two", authority=authority)
        serve(stolen, docs(stolen) | {n: d for n, d in docs(registry).items() if "root" in n})
        with pytest.raises(DeliveryError):
            store.fetch(stolen, trusting)
        assert [each.version for each in store.releases()] == [1]

    def test_a_threshold_of_root_keys_in_folders_that_are_carried_away(self, tmp_path, registry):
        sticks = [tmp_path / f"stick-{number}" for number in (1, 2, 3)]
        keys = tmp_path / "azure"
        ceremony.make(keys, ceremony.Roles(root=sticks, root_threshold=2))
        assert not list(keys.glob("root*.pem")) and [len(list(s.glob("root-?.pem"))) for s in sticks] == [
            1,
            1,
            1,
        ]
        found = ceremony.listed(keys, registry.path)
        assert found["roles"]["root"]["threshold"] == 2
        assert [key["here"] for key in found["roles"]["root"]["keys"]] == [False] * 3
        with pytest.raises(DeliveryError, match="needs 2 root keys, 1 are here: bring the folder"):
            ceremony.rotate(keys, registry.path, "targets", "release", "t", bring=sticks[:1])
        ceremony.rotate(keys, registry.path, "targets", "release", "t2", bring=sticks[1:])
        # One stick was lost: the others revoke its key, and two of two are left.
        after = ceremony.revoke(keys, registry.path, "root", "root-1", bring=sticks[1:])
        assert {key["name"] for key in after["roles"]["root"]["keys"]} == {"root-2", "root-3"}
        with pytest.raises(DeliveryError, match="would have 1 keys, of which 2 must sign"):
            ceremony.revoke(keys, registry.path, "root", "root-2", bring=sticks[1:])

    def test_a_threshold_of_targets_keys(self, tmp_path, registry, publish, store, key):
        keys = tmp_path / "azure"
        ceremony.make(keys, ceremony.Roles(targets=("ann", "bob"), targets_threshold=2))
        authority = ceremony.authority(keys)
        publish(registry, authority=authority)
        trusting = Trust(authority.root, store.layout)
        store.fetch(registry, trusting)
        (keys / "bob.pem").rename(tmp_path / "bob.pem")
        with pytest.raises(DeliveryError, match="targets metadata needs 2 of the keys"):
            publish(registry, "two", authority=authority)
        assert release.versions(registry.tags()) == [1]  # nothing half released

    def test_keys_are_made_once_and_go_on_after_a_crash(self, tmp_path):
        with pytest.raises(DeliveryError, match="of which 2 must sign"):
            ceremony.make(tmp_path / "k", ceremony.Roles(root_threshold=2))
        root = ceremony.make(tmp_path / "k")
        assert ceremony.first_root(tmp_path / "k") == root
        with pytest.raises(DeliveryError, match="there already"):
            ceremony.make(tmp_path / "k")

    @pytest.mark.parametrize("name", ["nobody", "", "rel"])
    def test_a_key_of_no_name_is_not_revoked(self, registry, folder, name):
        with pytest.raises(DeliveryError, match="it has: release"):
            ceremony.revoke(folder, registry.path, "targets", name)

    def test_private_halves_never_travel(self, publish_listed, carry):
        publish_listed()
        assert b"PRIVATE" not in carry(1).read_bytes()


def test_the_authority_reads_no_more_than_it_needs(registry, publish_listed, authority):
    """A machine without any private key still reads the list."""
    publish_listed()
    blind = Authority(authority.root, Keyring([]))
    assert blind.latest_root(registry) == authority.root
    with pytest.raises(DeliveryError, match="the private halves of 0 are here"), registry.editing() as tags:
        blind.listed(registry, tags, {"releases/pump/9.dsse": b"x"})
