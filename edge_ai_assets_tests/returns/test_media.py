"""Packages that are carried by hand."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import struct
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.egress.coverage import Coverage
from edge_ai_assets.returns.egress.ledger import Ledger, entries
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.package import foreign, packages
from edge_ai_assets.returns.package.packing import pack
from edge_ai_assets.returns.road import media
from edge_ai_assets.returns.road.media import MediaError
from edge_ai_assets_tests.parcels import POLICY, parcel, seal

FREE = namedtuple("usage", "total used free")


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def medium(tmp_path):
    folder = tmp_path / "medium"
    folder.mkdir()
    return folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "uplink"


@pytest.fixture
def export(outbox, spool, medium, tmp_path):
    def run(into=medium, **options):
        return media.export(outbox, spool, Ledger(tmp_path / "ledger.jsonl"), into, now=lambda: 77, **options)

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_sealed_is_copied_and_noted(outbox, spool, medium, export, tmp_path):
    rows = seal(outbox, spool, "bergen", [10, 3_000])
    told = []
    done = export(progress=told.append)
    assert (done.packages, done.there, done.left) == (2, 0, 0)
    assert done.bytes == sum(told) == sum(row.bytes for row in rows)
    assert {name: digest(medium / name) for name in names(medium)} == {row.name: row.digest for row in rows}
    assert [row.exported_at for row in outbox.packages()] == [77, 77]
    assert [row.uploaded_at for row in outbox.packages()] == [None, None]
    with Coverage(tmp_path / "ledger.jsonl") as coverage:
        (left,) = {tuple(coverage.of(row.name, row.digest).destinations) for row in rows}
        assert left == (f"media:{medium}",)
        assert {tuple(found.policies) for found in coverage.newest(9)} == {(POLICY,)}


def test_on_the_spools_own_disk_a_package_can_be_linked_and_leaves_no_less_noted(
    outbox, spool, medium, export, tmp_path
):
    (row,) = seal(outbox, spool, "bergen", [media.BLOCK + 9])
    told = []
    assert export(link=True, progress=told.append).bytes == sum(told) == row.bytes
    assert (medium / row.name).samefile(spool / row.name) and names(medium) == [row.name]
    ranges = [(entry.first, entry.last) for entry in entries(tmp_path / "ledger.jsonl")]
    assert ranges == [(0, media.BLOCK), (media.BLOCK, row.bytes)]
    assert export(link=True).there == 1


def test_where_there_are_no_links_it_is_copied_and_the_spools_file_stays_whole(
    outbox, spool, medium, export, monkeypatch
):
    def refused(source, partial):
        link(source, partial)  # the worst: it was made, and the answer was lost
        raise PermissionError(1, "Operation not permitted")

    link = os.link
    monkeypatch.setattr(media.os, "link", refused)
    (row,) = seal(outbox, spool, "bergen", [3_000])
    export(link=True)
    assert not (medium / row.name).samefile(spool / row.name)
    assert digest(medium / row.name) == digest(spool / row.name) == row.digest


def test_a_medium_has_the_name_that_people_gave_it(outbox, spool, export, tmp_path):
    seal(outbox, spool, "bergen", [10])
    export(label="stick 7")
    assert [entry.destination for entry in entries(tmp_path / "ledger.jsonl")] == ["media:stick 7"]


def test_again_it_copies_nothing_and_writes_no_line(outbox, spool, export, tmp_path):
    seal(outbox, spool, "bergen", [10, 20])
    export()
    before = (tmp_path / "ledger.jsonl").read_bytes()
    assert (export().packages, export().there) == (0, 2)
    assert (tmp_path / "ledger.jsonl").read_bytes() == before


def test_media_get_lost_so_all_is_copied_until_it_is_acknowledged(outbox, spool, export, tmp_path):
    rows = seal(outbox, spool, "bergen", [10, 20, 30])
    export()
    outbox.uploaded(1, 5)
    other = tmp_path / "other"
    other.mkdir()
    assert export(other).names == [row.name for row in rows]
    outbox.acknowledge(2, rows[1].digest, 6)
    third = tmp_path / "third"
    third.mkdir()
    assert export(third).names == [rows[2].name]
    assert export(third, only_new=True).there == 0


def test_what_does_not_fit_goes_on_the_next_medium(outbox, spool, export, tmp_path):
    rows = seal(outbox, spool, "bergen", [1_000] * 5)
    seen = []
    for number in range(3):
        stick = tmp_path / f"stick-{number}"
        stick.mkdir()
        done = export(stick, only_new=True, limit_bytes=2 * rows[0].bytes + 9)
        seen += done.names
        assert done.left == max(0, 3 - 2 * number)
    assert seen == [row.name for row in rows]


def test_what_is_free_on_the_medium_is_not_overrun(outbox, spool, export, medium, monkeypatch):
    rows = seal(outbox, spool, "bergen", [1_000] * 3)
    free = [media.MARGIN + rows[0].bytes]
    monkeypatch.setattr(media.shutil, "disk_usage", lambda path: FREE(0, 0, free[0] - used(medium)))
    done = export()
    assert (done.names, done.left) == ([rows[0].name], 2)
    assert (export().there, export().left) == (1, 2)
    (medium / rows[0].name).unlink()
    free[0] -= 1
    with pytest.raises(MediaError, match="no room for 3 packages"):
        export()
    assert names(medium) == []


def used(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_small_package_does_not_overtake_a_large_one(outbox, spool, export):
    rows = seal(outbox, spool, "bergen", [10, 5_000, 10])
    done = export(limit_bytes=rows[0].bytes + rows[2].bytes)
    assert (done.names, done.left) == ([rows[0].name], 2)


def test_a_folder_that_is_not_there_is_not_made(outbox, spool, export, medium):
    seal(outbox, spool, "bergen", [10])
    with pytest.raises(MediaError, match="is the medium mounted"):
        export(medium / "not mounted")
    assert names(medium) == []


@pytest.mark.parametrize("kind", ["other", "damaged", "shorter", "folder", "link"])
def test_what_has_the_name_of_a_package_is_not_overwritten(outbox, spool, export, medium, tmp_path, kind):
    (row,) = seal(outbox, spool, "bergen", [500])
    path = medium / row.name
    data = (spool / row.name).read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(spool / row.name)
    else:
        made = {"other": b"x" * len(data), "damaged": data[:-60] + b"?" + data[-59:], "shorter": data[:-1]}
        path.write_bytes(made[kind])
    before = os.lstat(path)
    with pytest.raises(MediaError, match=r"not overwritten|no regular file"):
        export()
    assert os.lstat(path) == before
    assert not (tmp_path / "ledger.jsonl").exists()
    assert outbox.packages()[0].exported_at is None


def test_a_package_that_was_changed_in_the_spool_is_not_carried(outbox, spool, export, medium):
    (row,) = seal(outbox, spool, "bergen", [500])
    (spool / row.name).write_bytes((spool / row.name).read_bytes()[:-1] + b"?")
    (reason,) = export().lost.values()
    assert "was changed and does not leave" in reason
    assert names(medium) == []


def test_a_lost_package_is_named_and_does_not_keep_the_others(outbox, spool, export, medium):
    rows = seal(outbox, spool, "bergen", [100, 200, 300])
    (spool / rows[1].name).unlink()
    done = export()
    assert done.names == names(medium) == [rows[0].name, rows[2].name]
    assert list(done.lost) == [rows[1].name]
    assert "No such file" in done.lost[rows[1].name] and "Put a copy of it back" in done.lost[rows[1].name]
    assert [row.exported_at for row in outbox.packages()] == [77, None, 77]
    (spool / rows[1].name).write_bytes(parcel("bergen", 2, 200))
    assert (export().names, export().lost) == ([rows[1].name], {})


@pytest.mark.parametrize("label", ["x" * 201, "line\nfeed", "\udcff", "nul\0"])
def test_a_label_that_the_ledger_cannot_take_is_refused_before_anything_leaves(
    outbox, spool, export, medium, label
):
    seal(outbox, spool, "bergen", [10])
    with pytest.raises(MediaError, match="at most 200, all printable"):
        export(label=label)
    assert names(medium) == [] and export(label="ø" * 200).packages == 1


def test_what_is_laid_out_cannot_be_written_to(outbox, spool, export, tmp_path, monkeypatch):
    """Under its second name it is the spool's file."""
    (row,) = seal(outbox, spool, "bergen", [100])
    (spool / row.name).chmod(0o644)  # by a version before this one
    for folder in ("linked", "copied"):
        (tmp_path / folder).mkdir()
        export(tmp_path / folder, link=True)
        assert stat.S_IMODE((tmp_path / folder / row.name).stat().st_mode) == 0o444
        monkeypatch.setattr(media, "_linked", lambda source, partial: False)
    assert (spool / row.name).samefile(tmp_path / "linked" / row.name)


def test_a_partial_file_that_is_a_link_is_not_written_through(outbox, spool, export, medium, tmp_path):
    (row,) = seal(outbox, spool, "bergen", [500])
    (tmp_path / "precious").write_text("precious")
    (medium / f".{row.name}.partial").symlink_to(tmp_path / "precious")
    export()
    assert (tmp_path / "precious").read_text() == "precious"
    assert digest(medium / row.name) == row.digest


def test_a_line_is_in_the_ledger_before_its_bytes_leave(outbox, spool, export, medium, monkeypatch):
    monkeypatch.setattr(media, "BLOCK", 1_000)
    (row,) = seal(outbox, spool, "bergen", [3_900])
    partial, seen = medium / f".{row.name}.partial", []
    whole = Ledger.append

    def append(self, entry):
        seen.append((entry.first, partial.stat().st_size))
        return whole(self, entry)

    monkeypatch.setattr(Ledger, "append", append)
    export()
    assert [first for first, _ in seen] == [0, 1_000, 2_000, 3_000, 4_000]
    assert all(size <= first for first, size in seen)


# Import.


def carried(medium, site="bergen", number=1, size=500):
    path = medium / f"{site}-{number:08}.zip"
    path.write_bytes(parcel(site, number, size))
    return path


def test_packages_are_copied_to_their_sites(medium, root):
    paths = [carried(medium, site, number) for site in ("bergen", "oslo") for number in (1, 2)]
    (medium / "pump-1.bundle").write_text("a release")
    (medium / "System Volume Information").mkdir()
    told = []
    done = media.import_(medium, root, {"bergen", "oslo"}, progress=told.append)
    assert (done.packages, done.there, done.ignored, done.rejected) == (4, 0, 2, {})
    assert done.bytes == sum(told) == sum(path.stat().st_size for path in paths)
    for path in paths:
        assert digest(root / path.name.split("-")[0] / path.name) == digest(path)
    again = media.import_(medium, root)
    assert (again.packages, again.there, again.bytes) == (0, 4, 0)
    assert list(root.glob("*/.partial/*")) == []


def test_what_the_inbox_took_away_is_copied_again(medium, root):
    path = carried(medium)
    media.import_(medium, root)
    (root / "bergen" / path.name).unlink()
    assert media.import_(medium, root).packages == 1


def test_another_file_of_that_name_keeps_it(medium, root):
    path = carried(medium)
    (root / "bergen").mkdir(parents=True)
    (root / "bergen" / path.name).write_bytes(b"damaged on the way")
    done = media.import_(medium, root)
    assert "run the inbox first" in done.rejected[path.name]
    assert (root / "bergen" / path.name).read_bytes() == b"damaged on the way"


def test_a_site_that_nobody_knows_is_rejected(medium, root):
    path = carried(medium, "oslo")
    done = media.import_(medium, root, {"bergen"})
    assert done.rejected == {path.name: "site 'oslo' is not known here"}
    assert not (root / "oslo").exists()


def _link(path, tmp_path):
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")


def _pipe(path, tmp_path):
    path.unlink()
    os.mkfifo(path)


def _folder(path, tmp_path):
    path.unlink()
    path.mkdir()


def _empty(path, tmp_path):
    path.write_bytes(b"")


def _torn(path, tmp_path):
    path.write_bytes(path.read_bytes()[:-30])


def _renamed(path, tmp_path):
    path.write_bytes(parcel("bergen", 2, 10))


def _other_site(path, tmp_path):
    path.write_bytes(parcel("oslo", 1, 10))


def _large(path, tmp_path):
    with path.open("r+b") as file:
        file.truncate(packages.MAX_BYTES + 1)


def _bomb(path, tmp_path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(packages.MANIFEST, bytes(50_000_000))


def _huge_manifest(path, tmp_path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(packages.MANIFEST, bytes(foreign.MAX_MANIFEST + 1))


def _no_manifest(path, tmp_path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("other", b"")


def _many_names(path, tmp_path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(3_000):
            archive.writestr(f"{number}", b"")


def _long_names(path, tmp_path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("x" * 5_000, b"")


def _zip64(path, tmp_path):
    """Its last record says that there are few entries, one before it how many."""
    data, end = path.read_bytes()[:-22], path.read_bytes()[-22:]
    much = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 10**6, 10**6, len(data), 0)
    path.write_bytes(data + much + struct.pack("<4sLQL", b"PK\6\7", 0, len(data), 1) + end)


def _long_site(path, tmp_path):
    path.write_bytes(parcel("x" * 100_000, 1, 10))


HOSTILE = [
    (_many_names, "3000 entries"),
    (_long_names, "directory of 5046 bytes"),
    (_zip64, "ZIP64"),
    (_long_site, "its manifest is that of package 1 of 'xxx"),
    (_link, "is a link"),
    (_pipe, "no regular file"),
    (_folder, "no regular file"),
    (_empty, "no return package"),
    (_torn, "no return package"),
    (_renamed, "package 2 of 'bergen'"),
    (_other_site, "package 1 of 'oslo'"),
    (_large, "at most"),
    (_bomb, "compressed or too large"),
    (_huge_manifest, "compressed or too large"),
    (_no_manifest, "no return package"),
]


@pytest.mark.parametrize(("change", "reason"), HOSTILE, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_no_package_is_rejected_and_the_others_are_taken(medium, root, tmp_path, change, reason):
    bad, good = carried(medium), carried(medium, number=3)
    change(bad, tmp_path)
    done = media.import_(medium, root, {"bergen"})
    assert list(done.rejected) == [bad.name] and reason in done.rejected[bad.name]
    assert len(done.rejected[bad.name]) <= 500
    assert done.names == [good.name]
    assert names(root / "bergen") == [".partial", good.name]


@pytest.mark.parametrize(
    "name", ["bergen-1.zip", "bergen-000000001.zip", "../x-00000001.zip", "-00000001.zip", "bergen.zip"]
)
def test_other_names_are_no_packages(medium, root, name):
    (medium / name.replace("/", "_")).write_bytes(b"x")
    assert (media.import_(medium, root).ignored, media.import_(medium, root).rejected) == (1, {})


def test_a_folder_that_is_not_there_is_an_error(medium, root):
    with pytest.raises(MediaError, match="is the medium mounted"):
        media.import_(medium / "none", root)


GOOD = parcel("bergen", 1, 200)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_bytes_come_importing_does_not_fail(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    bad = bytearray(GOOD)
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(bad)))
        bad[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    (folder / "bergen-00000001.zip").write_bytes(bad)
    done = media.import_(folder, folder / "uplink", {"bergen"})
    assert done.packages + len(done.rejected) == 1
    assert done.packages == 1 or bytes(bad) != GOOD


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=6), st.integers(), st.integers(1_000, 9_000))
def test_over_however_many_media_all_comes_home(tmp_path_factory, sizes, seed, limit):
    """Media of any size, some lost, some carried twice, in any order."""
    folder, chance = tmp_path_factory.mktemp("voyage"), random.Random(seed)
    with Outbox(folder / "outbox.db") as outbox:
        rows = seal(outbox, folder / "spool", "bergen", sizes)
        limit = max(limit, *(row.bytes for row in rows))
        for trip in range(60):
            stick = folder / f"stick-{trip}"
            stick.mkdir()
            new = chance.random() < 0.6
            book = Ledger(folder / "ledger.jsonl")
            media.export(outbox, folder / "spool", book, stick, limit_bytes=limit, only_new=new)
            if chance.random() < 0.3:
                shutil.rmtree(stick)  # lost
                continue
            for _ in range(chance.randint(1, 2)):
                media.import_(stick, folder / "uplink")
            came = {path.name for path in folder.glob("uplink/bergen/*.zip")}
            through = 0
            while through < len(rows) and rows[through].name in came:
                through += 1
            if through:  # Azure merges what has no gap, and says so
                outbox.acknowledge(through, rows[through - 1].digest, 9)
            if through == len(rows):
                break
        else:
            pytest.fail("it never came home")
    for row in rows:
        assert digest(folder / "uplink/bergen" / row.name) == row.digest


def test_packages_of_every_format_are_carried(medium, root):
    golden = Path(__file__).parents[1] / "golden"
    written = sorted(golden.glob("bergen-*.zip"))
    for path in written:
        shutil.copy(path, medium)
    assert len(written) >= 2
    done = media.import_(medium, root, {"bergen"})
    assert (done.names, done.rejected) == ([path.name for path in written], {})


@pytest.mark.usefixtures("counting")
def test_what_was_packed_comes_to_the_inbox_as_it_was_signed(
    outbox, batch, policy, contract, key, spool, export, medium, root
):
    for _ in range(3):
        outbox.append([batch(4)])
        insights.derive(outbox)
        pack(outbox, "bergen", policy, {"r1": contract}, key, spool, at=5)
    assert export().packages == 3
    assert outbox.counts().uploaded == 0
    media.import_(medium, root, {"bergen"})
    found = [packages.read(path, [key.public_key()]) for path in sorted((root / "bergen").glob("*.zip"))]
    assert [package.manifest.number for package in found] == [1, 2, 3]
    assert outbox.acknowledge(3, found[-1].digest, 9) == 3
    assert outbox.counts().uploaded == sum(package.insights.num_rows for package in found) > 0
    assert export() == media.Exported(0, 0, 0, 0, [])
