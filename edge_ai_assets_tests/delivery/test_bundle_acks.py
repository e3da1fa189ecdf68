"""Acknowledgements that ride along in a bundle: bytes with a digest, whoever made them."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_ai_assets.delivery import archive, bundle, bundlefile
from edge_ai_assets.delivery.errors import DeliveryError, MalformedError, MismatchError, TooLargeError
from edge_ai_assets.delivery.layout import Layout

ACKS = {"oslo": b'{"payload":"of oslo"}', "bergen": b'{"payload":"of bergen"}', "a.b-c_1": b"x"}


@pytest.fixture
def published(registry, publish):
    return publish(registry)


@pytest.fixture
def build(registry, published, keys, tmp_path):
    def run(acks, folder="media"):
        return bundle.build(registry, 1, tmp_path / folder, keys, acks=acks)

    return run


@pytest.fixture
def path(build):
    return build(ACKS)


@pytest.fixture
def site(tmp_path):
    return Layout(tmp_path / "site")


def members_of(path):
    with path.open("rb") as file:
        return [(m.name, b"".join(m.chunks)) for m in archive.members(file, "it")]


def rewrite(path, members):
    path.write_bytes(b"".join(archive.pack(archive.Member(n, len(d), [d]) for n, d in members)))


def test_they_stand_between_the_index_and_the_blobs_in_the_order_of_their_sites(path):
    names = [name for name, _ in members_of(path)]
    assert names[:6] == [
        "bundle.json",
        "oci-layout",
        "index.json",
        "acks/a.b-c_1.dsse",
        "acks/bergen.dsse",
        "acks/oslo.dsse",
    ]
    assert all(name.startswith("blobs/") for name in names[6:])


def test_they_are_handed_out_as_they_are(path, build):
    assert bundle.acks(path) == ACKS
    assert bundle.acks(build({}, "other")) == {}


def test_a_bundle_without_is_of_format_1_byte_for_byte(build, registry, keys, tmp_path):
    plain = bundle.build(registry, 1, tmp_path / "plain", keys).read_bytes()
    assert build({}, "none").read_bytes() == build(None, "nothing").read_bytes() == plain
    assert bundle.inspect(build({}, "none"))["format"] == 1
    assert "acks" not in bundle.inspect(build({}, "none"))


def test_a_bundle_with_some_says_so_and_brings_its_release(path, published, keys, site):
    found = bundle.inspect(path)
    assert found["format"] == 2
    assert [ack["site"] for ack in found["acks"]] == sorted(ACKS)
    assert bundle.verify(path, keys) == published
    assert bundle.import_bundle(path, site, keys) == published
    assert not list(site.path.glob("**/*.dsse"))


def test_the_same_acknowledgements_in_another_order_give_the_same_bytes(path, build):
    assert build(dict(reversed(ACKS.items())), "other").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "-a", "a b", "å", "x" * 65, "acks/../oslo"])
def test_only_names_of_sites_are_allowed(build, path, keys, name):
    with pytest.raises(MalformedError, match="no name of a site"):
        build({name: b"x"})
    members = members_of(path)
    contents = json.loads(members[0][1])
    contents["acks"][0]["site"] = name
    rewrite(path, [("bundle.json", dumped(contents)), *members[1:]])
    for call in (lambda: bundle.acks(path), lambda: bundle.verify(path, keys)):
        with pytest.raises(DeliveryError, match="refused"):
            call()


def dumped(contents):
    return json.dumps(contents, separators=(",", ":")).encode()


@pytest.mark.parametrize("size", [0, bundlefile.MAX_ACK + 1])
def test_one_that_is_empty_or_too_large_is_refused(build, size):
    with pytest.raises(TooLargeError, match=f"for oslo has {size} bytes"):
        build({"oslo": bytes(size)})
    build({"oslo": bytes(bundlefile.MAX_ACK)})


def test_all_together_are_bounded(build, path, monkeypatch):
    size = sum(map(len, ACKS.values()))
    monkeypatch.setattr(bundlefile, "MAX_ACKS", size)
    assert bundle.acks(path) == ACKS
    monkeypatch.setattr(bundlefile, "MAX_ACKS", size - 1)
    for call in (lambda: build(ACKS, "more"), lambda: bundle.acks(path)):
        with pytest.raises(TooLargeError, match=f"{size} bytes"):
            call()


def _damaged(contents, members):
    members[3] = (members[3][0], b"y")


def _other_size(contents, members):
    members[3] = (members[3][0], b"xx")


def _lost(contents, members):
    members.pop(4)


def _swapped(contents, members):
    members[3], members[4] = members[4], members[3]


def _renamed(contents, members):
    members[3] = ("acks/nobody.dsse", members[3][1])


def _unlisted(contents, members):
    members.insert(3, ("acks/Extra.dsse", b"x"))


def _listed_twice(contents, members):
    contents["acks"].insert(0, contents["acks"][0])
    members.insert(3, members[3])


def _another_order(contents, members):
    contents["acks"].reverse()
    members[3:6] = reversed(members[3:6])


def _behind_the_blobs(contents, members):
    members.append(members.pop(3))


def _format_1(contents, members):
    contents["format"] = 1


def _empty(contents, members):
    contents["acks"] = []
    del members[3:6]


def _no_list(contents, members):
    del contents["acks"]
    del members[3:6]


def _other_digest(contents, members):
    contents["acks"][0]["digest"] = "sha256:" + "0" * 64


def _other_field(contents, members):
    contents["acks"][0]["new"] = 1


CHANGES = [
    _damaged,
    _other_size,
    _lost,
    _swapped,
    _renamed,
    _unlisted,
    _listed_twice,
    _another_order,
    _behind_the_blobs,
    _format_1,
    _empty,
    _no_list,
    _other_digest,
    _other_field,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_bundle_put_together_otherwise_is_refused_and_nothing_written(path, keys, site, change):
    members = members_of(path)
    contents = json.loads(members[0][1])
    change(contents, members)
    members[0] = ("bundle.json", dumped(contents))
    rewrite(path, members)
    with pytest.raises((MalformedError, MismatchError), match="refused"):
        bundle.import_bundle(path, site, keys)
    assert not site.path.exists()


def test_every_flipped_byte_in_front_of_the_blobs_is_refused(path, keys):
    size = path.read_bytes().index(b"blobs/sha256/", 4096)
    with path.open("r+b") as file:
        handle = file.fileno()
        for position in range(size):
            (byte,) = os.pread(handle, 1, position)
            os.pwrite(handle, bytes([byte ^ (1 << position % 8)]), position)
            with pytest.raises(DeliveryError):
                bundle.verify(path, keys)
            os.pwrite(handle, bytes([byte]), position)
    bundle.verify(path, keys)


def test_a_bundle_cut_anywhere_is_refused(path, keys, site):
    good = path.read_bytes()
    for length in range(0, len(good), 61):
        path.write_bytes(good[:length])
        with pytest.raises(MalformedError, match=r"torn|end"):
            bundle.import_bundle(path, site, keys)
    assert not site.path.exists()


def test_they_are_not_looked_for_in_what_is_no_bundle(tmp_path):
    (tmp_path / "x.bundle").write_bytes(bytes(1024))
    with pytest.raises(DeliveryError):
        bundle.acks(tmp_path / "x.bundle")
    with pytest.raises(DeliveryError):
        bundle.acks(tmp_path / "none.bundle")


names = st.from_regex(bundlefile.SITE, fullmatch=True)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(acks=st.dictionaries(names, st.binary(min_size=1, max_size=2_000), max_size=8))
def test_whatever_they_hold_comes_back(build, keys, acks):
    path = build(acks)
    assert bundle.acks(path) == acks
    bundle.verify(path, keys)
