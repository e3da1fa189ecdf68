"""`edge-ai returns` and `edge-ai ledger`: packages carried by hand, and what left."""

from __future__ import annotations

import json
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from edge_ai_assets import cli
from edge_ai_assets.azure import arrivals
from edge_ai_assets.cli import exit_code
from edge_ai_assets.commands import ledger as ledger_cli
from edge_ai_assets.commands import returns as returns_cli
from edge_ai_assets.commands.here import NotHere
from edge_ai_assets.home import Home
from edge_ai_assets.returns.egress.ledger import LedgerError
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Batch, Outbox, OutboxError
from edge_ai_assets.returns.road import acks, media
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.returns.road.media import MediaError
from edge_ai_assets.returns.road.uplink import FolderUplink
from edge_ai_assets.stack_hub import connecting, provision
from edge_ai_assets.usecase import UseCaseError
from edge_ai_assets_tests import blocks
from edge_ai_assets_tests.parcels import parcel, seal

USECASE = """
name: pump
runs: {column: run}
label: {column: fault, positive: [1]}
features: [{name: Flow}]
sites: [{name: bergen}, {name: oslo, road: media}]
"""
AZURE = Ed25519PrivateKey.from_private_bytes(b"azure release key, of the tests!")
PLAIN = {"TERM": "dumb", "COLUMNS": "160", "NO_COLOR": "1"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    home = Home(tmp_path / "home")
    monkeypatch.setenv("EDGE_AI_HOME", str(home.root))
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)
    site = home.site("bergen")
    site.keys.mkdir(parents=True)
    home.usecase.write_text(USECASE, "utf-8")
    pem = AZURE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    provision.release_key(site).write_bytes(pem)
    return home


@pytest.fixture
def rows(home):
    site = home.site("bergen")
    with Outbox(site.outbox) as outbox:
        return seal(outbox, site.spool, "bergen", [10, 2_000, 30])


@pytest.fixture
def stick(tmp_path):
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


def run(app, *arguments):
    """Run a command; what it raises is `edge-ai`'s to tell."""
    result = CliRunner().invoke(app, [*map(str, arguments)], env=PLAIN)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def returns(*arguments):
    return run(returns_cli.returns, *arguments)


def ledger(*arguments):
    return run(ledger_cli.ledger, *arguments)


def answer(result, code=0):
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_packages_go_to_a_medium_and_from_it_to_the_inbox(home, rows, stick):
    found = answer(returns("export", "--site", "bergen", "--to", stick, "--json"))
    assert (found["packages"], found["left"], found["names"]) == (3, 0, [row.name for row in rows])
    found = answer(returns("import", stick, "--json"))
    assert (found["packages"], found["rejected"], found["bytes"]) == (3, {}, sum(row.bytes for row in rows))
    assert sorted(path.name for path in (home.uplink / "bergen").glob("*.zip")) == [row.name for row in rows]
    assert answer(returns("import", stick, "--json"))["there"] == 3


def test_people_are_told_in_words(home, rows, stick):
    told = returns("export", "--site", "bergen", "--to", stick).stderr
    assert "3 packages" in told and "0 were there already" in told
    assert "3 packages" in returns("import", stick).stderr


def test_what_does_not_fit_ends_with_1_and_says_what_to_do(rows, stick, tmp_path):
    result = returns("export", "--site", "bergen", "--to", stick, "--megabytes", "0.001")
    assert (
        result.exit_code == 1 and "2 packages did not fit" in result.stderr and "--only-new" in result.stderr
    )
    other = tmp_path / "other"
    other.mkdir()
    found = answer(returns("export", "--site", "bergen", "--to", other, "--only-new", "--json"))
    assert found["names"] == [row.name for row in rows[1:]]
    with pytest.raises(MediaError, match="no room for 3 packages"):
        tiny = tmp_path / "tiny"
        tiny.mkdir()
        returns("export", "--site", "bergen", "--to", tiny, "--megabytes", "0.0001")


def test_a_label_names_the_medium(rows, stick):
    returns("export", "--site", "bergen", "--to", stick, "--label", "stick 7")
    found = answer(ledger("show", "--site", "bergen", "--json"))
    assert [each["destinations"] for each in found["bergen"]] == [["media:stick 7"]] * 3


def test_what_was_not_taken_ends_with_1_and_a_reason(home, stick):
    (stick / "bergen-00000001.zip").write_bytes(b"torn")
    (stick / "paris-00000001.zip").write_bytes(parcel("paris", 1, 10))
    found = answer(returns("import", stick, "--json"), 1)
    assert "no return package" in found["rejected"]["bergen-00000001.zip"]
    assert "'paris' is not known" in found["rejected"]["paris-00000001.zip"]
    assert "paris-00000001.zip was not taken" in returns("import", stick).stderr


def test_a_sites_own_home_takes_no_packages(home, rows, stick):
    answer(returns("export", "--site", "bergen", "--to", stick, "--json"))
    home.joined.write_text("bergen")
    with pytest.raises(
        NotHere, match="home of site 'bergen': set EDGE_AI_HOME to that of Azure's side"
    ) as no:
        returns("import", stick)
    assert exit_code(no.value) == 2 and not home.uplink.exists()


def test_packages_of_a_site_that_is_not_enrolled_are_taken_with_a_warning(home, rows, stick):
    returns("export", "--site", "bergen", "--to", stick)
    said = returns("import", stick).stderr
    assert "no key of site 'bergen' is known" in said and "edge-ai site enrol bergen.enrolment.json" in said
    (home.uplink / "bergen" / rows[0].name).unlink()
    assert answer(returns("import", stick, "--json"))["not_enrolled"] == ["bergen"]
    known = provision.known_key(home, "bergen")
    known.parent.mkdir(parents=True)
    known.write_bytes(provision.release_key(home.site("bergen")).read_bytes())
    (home.uplink / "bergen" / rows[0].name).unlink()
    assert answer(returns("import", stick, "--json"))["not_enrolled"] == []
    assert "is known" not in returns("import", stick).stderr


def test_what_was_refused_before_the_site_was_enrolled_is_imported_again(home, rows, stick):
    returns("export", "--site", "bergen", "--to", stick)
    returns("import", stick)
    reasons = [reason for _, reason in arrivals.receive_all(home).refused]
    assert len(reasons) == 3 and all("edge-ai site enrol" in reason for reason in reasons)
    assert all("edge-ai returns import" in reason for reason in reasons)
    assert answer(returns("import", stick, "--json"))["packages"] == 3


def test_each_package_is_listed_with_its_way(home, rows, stick):
    site = home.site("bergen")
    with Outbox(site.outbox) as outbox:
        outbox.exported(2, 1_760_000_000_000_000)
        outbox.acknowledge(1, rows[0].digest, 9)
    found = answer(returns("list", "--site", "bergen", "--json"))
    assert [row["state"] for row in found["packages"]] == ["acknowledged", "exported", "waiting"]
    assert found["totals"] == {"waiting": 1, "exported": 1, "uploaded": 0, "acknowledged": 1}
    assert found["packages"][1]["exported"] == "2025-10-09T08:53:20+00:00"
    assert found["packages"][2]["bytes"] == rows[2].bytes
    found = answer(returns("list", "--site", "bergen", "--last", "1", "--json"))
    assert [row["number"] for row in found["packages"]] == [3]
    assert sum(found["totals"].values()) == 3
    result = returns("list", "--site", "bergen")
    assert "bergen-00000002.zip" in result.stdout and "1 waiting" in result.stderr


def test_an_acknowledgement_by_hand(home, rows, tmp_path):
    file = tmp_path / "bergen.ack"
    file.write_bytes(acks.make("bergen", 2, rows[1].digest, 9, AZURE))
    found = answer(returns("acknowledge", file, "--site", "bergen", "--json"))
    assert found == {"site": "bergen", "through": 2, "packages": 2, "refused": None}
    assert "packages 1 to 2 are home; 0 of them" in returns("acknowledge", file, "--site", "bergen").stderr


def test_a_forged_one_ends_with_1(home, rows, tmp_path):
    file = tmp_path / "bergen.ack"
    file.write_bytes(acks.make("bergen", 2, rows[1].digest, 9, Ed25519PrivateKey.generate()))
    found = answer(returns("acknowledge", file, "--site", "bergen", "--json"), 1)
    assert "signature" in found["refused"] and found["packages"] == 0


def test_the_acknowledgement_of_a_bundle(home, rows, tmp_path, monkeypatch):
    from edge_ai_assets.delivery import bundle

    held = {"bergen": acks.make("bergen", 3, rows[2].digest, 9, AZURE)}
    monkeypatch.setattr(bundle, "acks", lambda path: held)
    file = tmp_path / "pump-1.bundle"
    file.write_bytes(b"x")
    assert answer(returns("acknowledge", file, "--site", "bergen", "--json"))["packages"] == 3
    held.clear()
    found = answer(returns("acknowledge", file, "--site", "bergen", "--json"), 1)
    assert "holds no acknowledgement for site bergen" in found["refused"]


def uploaded(home):
    site = home.site("bergen")
    connecting.send(site, FolderUplink(home.uplink, "bergen", Link(site.root)))
    return site


def test_a_ledger_that_holds(home, rows):
    uploaded(home)
    found = answer(ledger("verify", "--json"))
    assert list(found) == ["bergen"]  # nothing of oslo is on this disk
    assert found["bergen"] == {
        "lines": 3,
        "packages": 3,
        "uncovered": 0,
        "names": [],
        "error": None,
        "holds": True,
    }
    assert "yes" in ledger("verify", "--site", "bergen").stdout


def test_a_ledger_that_was_cut_off_at_its_end_ends_with_1(home, rows):
    site = uploaded(home)
    lines = site.ledger.read_bytes().splitlines(keepends=True)
    site.ledger.write_bytes(b"".join(lines[:1]))
    found = answer(ledger("verify", "--json"), 1)["bergen"]
    assert (found["lines"], found["uncovered"], found["error"]) == (1, 2, None)
    assert found["names"] == [row.name for row in rows[1:]]
    assert rows[2].name in ledger("verify").stderr
    site.ledger.unlink()
    assert answer(ledger("verify", "--json"), 1)["bergen"]["uncovered"] == 3


def test_a_ledger_that_was_changed_ends_with_1_and_names_the_line(home, rows):
    site = uploaded(home)
    site.ledger.write_bytes(site.ledger.read_bytes().replace(rows[1].name.encode(), b"bergen-00000009.zip"))
    found = answer(ledger("verify", "--json"), 1)["bergen"]
    assert "jsonl:2: the entry was changed" in found["error"] and not found["holds"]
    assert "holds" in ledger("verify").stdout  # the table of all sites comes all the same
    (shown,) = answer(ledger("show", "--site", "bergen", "--json"), 1)["bergen"]
    assert shown["package"] == rows[0].name
    said = ledger("show", "--site", "bergen")
    assert rows[0].name in said.stdout and "jsonl:2: the entry was changed" in said.stderr
    said = ledger("show", "--package", "bergen-00000009.zip")
    assert said.exit_code == 1 and "jsonl:2: the entry was changed" in said.stderr


def test_a_line_that_a_crash_cut_short_is_no_damage(home, rows):
    site = uploaded(home)
    with site.ledger.open("ab") as file:
        file.write(site.ledger.read_bytes()[:90])
    found = answer(ledger("verify", "--json"))["bergen"]
    assert (found["lines"], found["holds"]) == (3, True)
    assert len(answer(ledger("show", "--json"))["bergen"]) == 3


def test_what_cannot_be_read_again_stays_and_ends_with_1(home, rows):
    with Outbox(home.site("bergen").outbox) as outbox:
        outbox.append([Batch(None, "r1", 5, [(2, blocks.TORN)])])
        insights.derive(outbox)
    before = answer(returns("dead", "--site", "bergen", "--json"))["scores"]
    assert list(before.values()) == [2] and all("it is damaged" in why for why in before)
    assert answer(returns("dead", "--site", "bergen", "--retry", "--json"), 1)["scores"] == before


def test_what_left_is_shown_package_by_package_and_line_by_line(home, rows):
    uploaded(home)
    found = answer(ledger("show", "--last", "2", "--json"))["bergen"]
    assert [(each["package"], each["covered"]) for each in found] == [
        (row.name, row.bytes) for row in reversed(rows[1:])
    ]
    (line,) = answer(ledger("show", "--package", rows[1].name, "--json"))["bergen"]
    assert (line["first"], line["last"], line["digest"]) == (0, rows[1].bytes, rows[1].digest)
    assert rows[1].name in ledger("show").stdout
    with pytest.raises(NotHere, match=r"nothing of 'x\.zip' left"):
        ledger("show", "--package", "x.zip")


@pytest.mark.parametrize(
    "command",
    [
        lambda stick: returns("export", "--site", "paris", "--to", stick),
        lambda stick: returns("list", "--site", "paris"),
        lambda stick: ledger("verify", "--site", "paris"),
    ],
)
def test_a_site_that_is_not_there_is_wrong_usage(home, stick, command):
    with pytest.raises(NotHere, match="'paris' is not in use case 'pump': it has bergen, oslo") as raised:
        command(stick)
    assert exit_code(raised.value) == 2


def test_without_a_home_it_is_wrong_usage(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_AI_HOME", str(tmp_path / "none"))
    with pytest.raises(NotHere, match="make demo"):
        ledger("verify")


def test_a_site_that_scored_nothing_yet_is_an_error_of_its_own(home, stick):
    with pytest.raises(OutboxError, match="no outbox"):
        returns("export", "--site", "oslo", "--to", stick)


def test_a_medium_that_is_not_there_is_wrong_usage(home, tmp_path):
    assert returns("export", "--site", "bergen", "--to", tmp_path / "none").exit_code == 2
    assert returns("import", tmp_path / "none").exit_code == 2


def test_a_medium_that_cannot_be_written_is_one_line(home, rows, stick, monkeypatch, capsys):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system", str(stick / "x.zip"))

    monkeypatch.setattr(media, "export", refuse)
    monkeypatch.setattr(sys, "argv", ["edge-ai", "returns", "export", "--site", "bergen", "--to", str(stick)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 1 and len(said) == 1
    assert said[0].startswith("edge-ai: ") and "Read-only file system" in said[0] and "x.zip" in said[0]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotHere(""), 2),
        (UseCaseError(""), 2),
        (MediaError(""), 1),
        (LedgerError(""), 1),
        (OutboxError(""), 1),
        (PermissionError(13, "Permission denied", "/media/stick"), 1),
        (OSError(30, "Read-only file system", "/media/stick"), 1),
        (OSError(28, "No space left on device"), 1),
        (KeyError(""), None),
    ],
)
def test_errors_have_their_exit_codes(error, code):
    assert exit_code(error) == code


def test_what_was_put_aside_is_listed_and_tried_again(home, rows):
    with Outbox(home.site("bergen").outbox) as outbox:
        block = blocks.block([({"inputs": {"Flow": 1.5}, "context": {}}, 0.5, True, False)] * 2)
        outbox.append([Batch(None, "r1", 5, [block])])
        insights.derive(outbox)
        outbox.dispose("quarantined", {"it could not be read": [1, 2]})
    assert answer(returns("dead", "--site", "bergen", "--json"))["scores"] == {"it could not be read": 2}
    assert "it could not be read" in returns("dead", "--site", "bergen").output
    again = answer(returns("dead", "--site", "bergen", "--retry", "--json"))
    assert again["retried"] == {"scores": 2, "letters": 0, "left": []} and again["scores"] == {}
    assert "0 scores and 0 letters are put aside" in returns("dead", "--site", "bergen").output
