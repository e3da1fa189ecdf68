"""Azure and a site that share only a medium come to know each other, or say why they do not."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import example, given
from hypothesis import strategies as st

from edge_ai_assets import enrolment, usecase
from edge_ai_assets.delivery import ceremony, durable, pack, signing
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets.enrolment import EnrolmentError, enrol, fingerprint, invite, join
from edge_ai_assets.home import Home
from edge_ai_assets.stack_hub import provision
from edge_ai_assets.usecase import Road

TEXT = """
name: fleet
runs: {rows: 50}
features: [{name: "Flow [m³/h]"}]
label: {column: y, positive: [1]}
sites:
  - {name: narvik, road: media}
  - {name: tromso, road: diode}
  - {name: bergen}
"""
CASE = usecase.loads(TEXT)


@pytest.fixture
def azure(tmp_path):
    home = Home(tmp_path / "azure")
    ceremony.make(home.keys)
    return home


@pytest.fixture
def ship(tmp_path):
    return Home(tmp_path / "at sea" / "narvik")


@pytest.fixture
def medium(tmp_path):
    return tmp_path / "medium"


@pytest.fixture
def invitation(azure, medium):
    return invite(azure, CASE, "narvik", medium)


def changed(path, **fields):
    """The file with other fields; None takes one out."""
    given = {**json.loads(path.read_bytes()), **fields}
    path.write_text(json.dumps({name: value for name, value in given.items() if value is not None}))
    return path


def pem(private) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return private.public_key().public_bytes(encoding, form).decode()


with tempfile.TemporaryDirectory() as scratch:
    OTHER_ROOT = ceremony.make(Path(scratch)).decode()


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestTheWay:
    def test_after_it_each_side_knows_the_other_s_key_and_only_the_public_half(self, azure, ship, medium):
        found = enrol(azure, CASE, join(ship, invite(azure, CASE, "narvik", medium), medium))
        site = ship.site("narvik")
        assert found.site == "narvik" and ship.own_site == "narvik" and azure.own_site is None
        own = signing.load_private(provision.private_key(site)).public_key()
        assert signing.load_public(provision.known_key(azure, "narvik")) == own
        assert provision.root(site).read_bytes() == (azure.keys / "root.json").read_bytes()
        release = signing.load_private(azure.keys / "release.pem").public_key()
        assert provision.azure_keys(site) == [release]
        secret = [path.read_bytes() for home in (azure, ship) for path in home.root.rglob("*.pem")]
        secret = [data for data in secret if b"PRIVATE" in data]
        assert len(secret) == len(set(secret)) == 3  # root and release on Azure, the site's own

    def test_the_site_has_the_use_case_and_nothing_of_azure_s(self, ship, invitation, medium):
        join(ship, invitation, medium)
        assert usecase.load(ship.usecase) == CASE
        names = {path.name for path in ship.root.iterdir() if not path.name.startswith(".")}
        assert names == {"sites", "usecase.yaml", "joined.txt"}
        assert [path.name for path in (ship.root / "sites").iterdir()] == ["narvik"]

    def test_private_keys_are_the_owner_s_alone(self, ship, invitation, medium):
        join(ship, invitation, medium)
        for name in ("site.pem", provision.PSEUDONYM_KEY):
            assert stat.S_IMODE((ship.site("narvik").keys / name).stat().st_mode) == 0o600

    def test_nothing_secret_is_in_either_file(self, azure, ship, invitation, medium):
        answer = join(ship, invitation, medium)
        carried = invitation.read_bytes() + answer.read_bytes()
        assert b"PRIVATE" not in carried and carried.count(b"BEGIN PUBLIC KEY") == 1
        pseudonym = (ship.site("narvik").keys / provision.PSEUDONYM_KEY).read_bytes()
        bodies = [
            path.read_text().split("-----")[2].strip().encode()
            for path in (azure.keys / "release.pem", provision.private_key(ship.site("narvik")))
        ]
        for secret in (pseudonym, pseudonym.hex().encode(), *bodies):
            assert secret not in carried

    def test_done_again_each_step_changes_nothing(self, azure, ship, medium):
        def all_of_it():
            enrol(azure, CASE, join(ship, invite(azure, CASE, "narvik", medium), medium))
            return [files(folder) for folder in (azure.root, ship.root, medium)]

        assert all_of_it() == all_of_it()

    def test_joined_again_with_a_changed_use_case_the_site_has_that(self, azure, ship, invitation, medium):
        answer = join(ship, invitation, medium).read_bytes()
        other = CASE.model_copy(update={"description": "of pumps"})
        assert join(ship, invite(azure, other, "narvik", medium), medium).read_bytes() == answer
        assert usecase.load(ship.usecase) == other

    def test_every_site_gets_keys_of_its_own(self, azure, tmp_path, medium):
        for name in ("narvik", "tromso"):
            enrol(azure, CASE, join(Home(tmp_path / name), invite(azure, CASE, name, medium), medium))
        known = [signing.load_public(provision.known_key(azure, name)) for name in ("narvik", "tromso")]
        assert known[0] != known[1]


class Killed(BaseException):
    """Not an Exception: nothing may handle it."""


def test_killed_at_any_durable_step_it_is_done_by_doing_it_again(
    azure, tmp_path, invitation, medium, monkeypatch
):
    """Each durable step of joining is the last one once: no half-joined home is left for good."""
    finished, at = False, 0
    while not finished:
        at += 1
        ship, left = Home(tmp_path / f"killed at {at}"), iter([None] * (at - 1))

        def step(*_, left=left):
            if next(left, Killed) is Killed:
                raise Killed

        with monkeypatch.context() as patched, contextlib.suppress(Killed):
            patched.setattr(durable, "sync_folder", step)
            join(ship, invitation, medium)
            finished = True
        assert ship.own_site in (None, "narvik")
        if ship.own_site:
            assert usecase.load(ship.usecase) == CASE and provision.root(ship.site("narvik")).exists()
        provision.known_key(azure, "narvik").unlink(missing_ok=True)
        enrol(azure, CASE, join(ship, invitation, medium))
        own = signing.load_private(provision.private_key(ship.site("narvik"))).public_key()
        assert signing.load_public(provision.known_key(azure, "narvik")) == own
    assert at > 10


def test_killed_between_the_halves_of_its_key_the_site_still_joins(azure, ship, invitation, medium):
    join(ship, invitation, medium)
    private = provision.private_key(ship.site("narvik"))
    signing.public_path(private).unlink()
    enrol(azure, CASE, join(ship, invitation, medium))
    own = signing.load_private(private).public_key()
    assert signing.load_public(provision.known_key(azure, "narvik")) == own


class TestInviting:
    def test_a_site_nobody_declared_is_refused(self, azure, medium):
        with pytest.raises(EnrolmentError, match="site 'oslo' is not in use case 'fleet': add it there"):
            invite(azure, CASE, "oslo", medium)

    def test_before_the_first_release_there_is_nothing_to_trust(self, tmp_path, medium):
        with pytest.raises(EnrolmentError, match="the first release makes it"):
            invite(Home(tmp_path / "new"), CASE, "narvik", medium)

    def test_a_site_with_a_link_would_never_find_its_registry(self, azure, medium):
        assert CASE.at("bergen").road is Road.LINK
        with pytest.raises(EnrolmentError, match=r"'bergen' has road 'link' .* write `road: media`"):
            invite(azure, CASE, "bergen", medium)
        assert not medium.exists()

    def test_a_medium_that_takes_no_file_is_a_sentence(self, azure, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(EnrolmentError, match=r"narvik\.invitation\.json cannot be written: "):
            invite(azure, CASE, "narvik", tmp_path / "file")


JOINING = [
    # what is changed in the invitation, what is said
    ({"site": "oslo"}, "site 'oslo' is not in the use case that comes with it"),
    ({"site": "../../etc"}, "is not in the use case"),
    ({"site": 7}, "this is no invitation: Expected `str`, got `int` - at `$.site`"),
    ({"site": None}, "missing required field `site`"),
    ({"extra": 1}, "unknown field `extra`"),
    ({"format": 1}, "invitation format 1, this version reads 2: use the same on both sides"),
    ({"format": None}, "missing required field `format`"),
    ({"root": "no root"}, "the root metadata in it cannot be used: "),
    ({"root": "{}"}, "the root metadata in it cannot be used: "),
    ({"root": OTHER_ROOT.replace('"version":1', '"version":2')}, "the root metadata in it cannot be used: "),
    ({"usecase": "name: fleet"}, "Field required"),
    ({"usecase": "- a"}, "a use case is a mapping"),
    ({"usecase": "!!python/object:os.system {}"}, "no YAML"),
]


class TestJoining:
    @pytest.mark.parametrize(("fields", "said"), JOINING)
    def test_a_tampered_invitation_is_refused_and_nothing_is_made(
        self, ship, invitation, medium, fields, said
    ):
        changed(invitation, **fields)
        with pytest.raises(EnrolmentError) as raised:
            join(ship, invitation, medium)
        assert said in str(raised.value) and str(invitation) in str(raised.value)
        assert not ship.root.exists()

    @pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"null", b"{", b'{"a":' * 100_000], ids=repr)
    def test_what_is_no_invitation_is_refused(self, ship, invitation, medium, data):
        invitation.write_bytes(data)
        with pytest.raises(EnrolmentError, match="this is no invitation"):
            join(ship, invitation, medium)

    @given(cut=st.integers(0, 400), put=st.binary(max_size=3))
    @example(cut=0, put=b"\x00")
    def test_wherever_a_byte_is_wrong_it_joins_what_is_said_or_refuses(self, tmp_path_factory, cut, put):
        """Nothing but our own error, whatever the bytes: no signature is there to be checked first."""
        folder = tmp_path_factory.mktemp("cut")
        home = Home(folder / "azure")
        ceremony.make(home.keys)
        path = invite(home, CASE, "narvik", folder)
        data = path.read_bytes()
        cut = min(cut, len(data))
        path.write_bytes(data[:cut] + put + data[cut + len(put) + 1 :])
        ship = Home(folder / "ship")
        try:
            join(ship, path, folder)
        except EnrolmentError:
            assert ship.own_site is None
        else:
            assert ship.own_site in {site.name for site in usecase.load(ship.usecase).sites}

    def test_one_that_is_too_large_is_refused_before_it_is_read(self, ship, invitation, medium):
        with invitation.open("r+b") as file:
            file.truncate(enrolment.MAX_BYTES + 1)
        with pytest.raises(EnrolmentError, match="more than the 4194304 bytes"):
            join(ship, invitation, medium)

    def test_one_that_is_not_there_or_no_file(self, ship, medium):
        with pytest.raises(EnrolmentError, match="is not there"):
            join(ship, medium / "narvik.invitation.json", medium)
        medium.mkdir()
        with pytest.raises(EnrolmentError, match=r"is not a regular file|cannot be read"):
            join(ship, medium, medium)

    @pytest.mark.slow
    def test_ten_thousand_sites_fit(self, azure, ship, medium):
        sites = tuple(usecase.Site(name=f"s{number}", road=Road.MEDIA) for number in range(10_000))
        many = CASE.model_copy(update={"sites": sites})
        join(ship, invite(azure, many, "s9999", medium), medium)
        assert ship.own_site == "s9999"

    @pytest.mark.parametrize("what", ["registry", "landing", "keys/release.pem"])
    def test_azure_s_home_becomes_no_site_s(self, ship, invitation, medium, what):
        (ship.root / what).mkdir(parents=True)
        before = files(ship.root)
        with pytest.raises(EnrolmentError, match="is Azure's home: a site joins in a home of its own"):
            join(ship, invitation, medium)
        assert files(ship.root) == before and ship.own_site is None

    def test_azure_does_not_join_itself(self, azure, invitation, medium):
        with pytest.raises(EnrolmentError, match="is Azure's home"):
            join(azure, invitation, medium)

    def test_another_site_s_home_stays_that(self, azure, ship, invitation, medium):
        join(ship, invitation, medium)
        before = files(ship.root)
        with pytest.raises(EnrolmentError, match="is the home of site 'narvik': set EDGE_AI_HOME to another"):
            join(ship, invite(azure, CASE, "tromso", medium), medium)
        assert files(ship.root) == before

    def test_a_site_that_trusted_a_key_trusts_the_root_that_knows_it(self, azure, ship, invitation, medium):
        site = ship.site("narvik")
        site.keys.mkdir(parents=True)
        shutil.copy(azure.keys / "release.pub.pem", provision.release_key(site))
        assert provision.trust(site) == [signing.load_public(azure.keys / "release.pub.pem")]
        join(ship, invitation, medium)
        assert isinstance(provision.trust(site), Trust)

    def test_a_site_that_trusted_another_key_does_not(self, ship, invitation, medium):
        site = ship.site("narvik")
        site.keys.mkdir(parents=True)
        provision.release_key(site).write_text(pem(Ed25519PrivateKey.generate()))
        with pytest.raises(EnrolmentError, match="is none of the invitation's keys"):
            join(ship, invitation, medium)
        assert not provision.root(site).exists()

    def test_joined_again_after_keys_were_rotated_it_is_the_same(self, azure, ship, invitation, medium):
        join(ship, invitation, medium)
        pack.current(azure.registry, azure.keys)
        ceremony.rotate(azure.keys, azure.registry, "targets", "release", "targets-2")
        newer = invite(azure, CASE, "narvik", medium)
        site = ship.site("narvik")
        with pytest.raises(EnrolmentError, match="another root"):  # nothing leads to it yet
            join(ship, newer, medium)
        trust = provision.trust(site)
        registry = Layout(azure.registry)
        with trust.layout.editing() as tags:
            tags["trust"] = trust.checked(registry, registry.resolve("trust")).keep(trust.layout)
        join(ship, newer, medium)

    def test_a_site_that_joined_elsewhere_keeps_its_trust(self, ship, invitation, medium):
        join(ship, invitation, medium)
        before = files(ship.root)
        changed(invitation, root=OTHER_ROOT)
        with pytest.raises(
            EnrolmentError, match="another root than the invitation's: the site has joined else"
        ):
            join(ship, invitation, medium)
        assert files(ship.root) == before


ENROLLING = [
    ({"site": "oslo"}, "site 'oslo' is not in use case 'fleet'"),
    ({"site": "../release"}, "is not in use case"),
    ({"key": "no key"}, "is no public key in PEM form"),
    ({"key": pem(generate_private_key(SECP256R1()))}, "must be Ed25519"),
    ({"key": None}, "missing required field `key`"),
    ({"format": 0}, "enrolment format 0, this version reads 1"),
    ({"usecase": "x"}, "unknown field `usecase`"),
]


class TestEnrolling:
    @pytest.fixture
    def answer(self, ship, invitation, medium):
        return join(ship, invitation, medium)

    @pytest.mark.parametrize(("fields", "said"), ENROLLING)
    def test_a_tampered_enrolment_is_refused_and_nobody_is_known(self, azure, answer, fields, said):
        before = files(azure.root)
        changed(answer, **fields)
        with pytest.raises(EnrolmentError) as raised:
            enrol(azure, CASE, answer)
        assert said in str(raised.value) and str(answer) in str(raised.value)
        assert files(azure.root) == before

    def test_an_invitation_is_no_enrolment(self, azure, invitation):
        with pytest.raises(EnrolmentError, match=r"enrolment format 2, this version reads 1"):
            enrol(azure, CASE, invitation)

    def test_one_that_is_too_large_is_refused(self, azure, answer):
        with answer.open("r+b") as file:
            file.truncate(enrolment.MAX_BYTES + 1)
        with pytest.raises(EnrolmentError, match="more than the 4194304 bytes"):
            enrol(azure, CASE, answer)

    def test_another_key_takes_nobody_s_place(self, azure, ship, invitation, answer, medium):
        """A site that was set up anew, or somebody who says so: people decide."""
        first = signing.load_public(provision.known_key(azure, enrol(azure, CASE, answer).site))
        shutil.rmtree(ship.root)
        join(ship, invitation, medium)
        with pytest.raises(EnrolmentError) as raised:
            enrol(azure, CASE, answer)
        known = provision.known_key(azure, "narvik")
        assert fingerprint(first) in str(raised.value) and f"move {known} away" in str(raised.value)
        assert signing.load_public(known) == first
        known.unlink()
        enrol(azure, CASE, answer)
        assert signing.load_public(known) != first


@given(st.binary(min_size=32, max_size=32))
def test_a_fingerprint_can_be_read_out_and_is_of_that_key_alone(seed):
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    said = fingerprint(key)
    groups = said.split(" ")
    assert len(groups) == 8 and all(len(group) == 4 and int(group, 16) >= 0 for group in groups)
    assert said == fingerprint(Ed25519PublicKey.from_public_bytes(key.public_bytes_raw()))


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=2, unique=True))
def test_two_keys_have_two_fingerprints(seeds):
    one, other = (fingerprint(Ed25519PrivateKey.from_private_bytes(seed).public_key()) for seed in seeds)
    assert one != other
