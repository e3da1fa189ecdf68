"""Tokens: who gets in, what is at rest, how soon a change counts, and what a file must be."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.scoring import tokens as module
from edge_ai_assets.scoring.tokens import CHECK_SECONDS, Caller, Tokens, TokensError, add, listed, revoke

WRONG = [
    None,
    b"",
    b"Bearer",
    b"Bearer ",
    b"bearer eai_",
    b"Basic dXNlcjpwYXNz",
    b"Bearer eai_00000000_" + b"x" * 43,
    b"Bearer \xff\xfe\x00",
    b"Bearer " + b"_" * 10_000,
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds on the monotonic clock; time only passes when a test says so."""
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def bearer(token: str) -> bytes:
    return b"Bearer " + token.encode()


def test_a_token_lets_in_with_its_name_and_roles(path):
    first, second = add(path, "line 3 panel", ["score"]), add(path, "operator", ["operate", "feedback"])
    tokens = Tokens(path)
    assert tokens.caller(bearer(first)) == Caller("line 3 panel", frozenset({"score"}))
    assert tokens.caller(b"bEARER   " + second.encode()) == ("operator", frozenset({"operate", "feedback"}))


@pytest.mark.parametrize("authorization", WRONG)
def test_nobody_else_gets_in(path, authorization):
    add(path, "panel", ["score"])
    assert Tokens(path).caller(authorization) is None


@given(place=st.integers(0, 54), other=st.integers(1, 255))
def test_a_token_with_one_byte_changed_is_none(tmp_path_factory, place, other):
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    text = bytearray(add(path, "panel", ["score"]).encode())
    place %= len(text)
    text[place] ^= other
    if bytes(text).strip() != bytes(text):  # the space would be the header's, not the token's
        text[place] = ord("!")
    assert Tokens(path).caller(b"Bearer " + bytes(text)) is None


def test_parts_of_two_tokens_are_no_token(path):
    one, two = (add(path, name, ["score"]).split("_", 2) for name in ("one", "two"))
    assert Tokens(path).caller(bearer(f"eai_{one[1]}_{two[2]}")) is None


def test_every_comparison_is_in_constant_time_and_of_a_digest(path, monkeypatch):
    token = add(path, "panel", ["score"])
    compared = []
    monkeypatch.setattr(module, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    tokens = Tokens(path)
    for text in (token, token[:-1] + "!", "eai_00000000_" + "x" * 43, "", "x"):
        tokens.caller(bearer(text))
    assert [tuple(map(len, pair)) for pair in compared] == [(32, 32)] * 5


def test_only_a_digest_is_at_rest_and_nobody_else_can_read_it(path):
    token = add(path, "panel", ["score"])
    text = path.read_text("utf-8")
    assert token not in text and token.split("_", 2)[2] not in text
    assert hashlib.sha256(token.encode()).hexdigest() in text
    assert path.stat().st_mode & 0o777 == 0o600
    assert not [other for other in path.parent.iterdir() if other.suffix == ".partial"]


def test_secrets_have_256_bits_and_never_repeat(path):
    made = [add(path, "panel", ["score"]) for _ in range(50)]
    assert (
        len({text.split("_", 2)[1] for text in made}) == len({text.split("_", 2)[2] for text in made}) == 50
    )
    assert all(len(text) == len("eai_") + 8 + 1 + 43 for text in made)  # 43 characters of 6 bits


def test_a_revoked_token_is_refused_within_a_second(path, clock):
    kept, lost = add(path, "kept", ["score"]), add(path, "lost", ["score"])
    tokens = Tokens(path)
    assert revoke(path, lost.split("_")[1]).name == "lost"
    clock[0] += 1.0
    assert tokens.caller(bearer(lost)) is None and tokens.caller(bearer(kept))
    assert CHECK_SECONDS <= 1.0


def test_a_new_token_counts_without_a_restart(path, clock):
    add(path, "old", ["score"])
    tokens = Tokens(path)
    new = add(path, "new", ["operate"])
    clock[0] += 1.0
    assert tokens.caller(bearer(new)) == ("new", {"operate"})


def test_the_file_is_looked_at_now_and_then_and_read_only_when_it_changed(path, clock, monkeypatch):
    token = add(path, "panel", ["score"])
    tokens = Tokens(path)
    looks, reads = [], []
    stat, read = os.stat, module._read
    monkeypatch.setattr(module.os, "stat", lambda *a, **k: looks.append(a) or stat(*a, **k))
    monkeypatch.setattr(module, "_read", lambda p: reads.append(p) or read(p))
    for _ in range(100):
        clock[0] += CHECK_SECONDS / 10
        assert tokens.caller(bearer(token))
    assert 8 <= len(looks) <= 11 and not reads


def test_a_token_ends_when_it_ends(path, monkeypatch):
    ends = datetime.now(UTC) + timedelta(hours=1)
    token = add(path, "visitor", ["score"], ends)
    tokens = Tokens(path)
    assert tokens.caller(bearer(token))
    monkeypatch.setattr(module, "time", lambda: ends.timestamp() + 1)
    assert tokens.caller(bearer(token)) is None
    assert [found.name for found in listed(path)] == ["visitor"]  # still shown


def half(path):
    path.write_bytes(path.read_bytes()[:-20])


def foreign(path):
    path.write_text('{"tokens": 3}')


def latin(path):
    path.write_bytes(b'{"tokens": [], "format": "\xe9"}')


def newer(path):
    path.write_text('{"format": 2, "tokens": []}')


def open_to_all(path):
    path.chmod(0o644)


def writable(path):
    path.chmod(0o622)


def huge(path):
    path.write_bytes(b" " * (module.MAX_BYTES + 1))


def twice(path):
    data = json.loads(path.read_bytes())
    path.write_text(json.dumps(data | {"tokens": data["tokens"] * 2}))


def short_digest(path):
    path.write_text(path.read_text().replace('"sha256": "', '"sha256": "zz'))


def made_role(path):
    path.write_text(path.read_text().replace('"score"', '"admin"'))


BROKEN = [half, foreign, latin, newer, open_to_all, writable, huge, twice, short_digest, made_role]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda f: f.__name__)
def test_a_file_that_cannot_be_used_is_refused_with_a_reason(path, broken):
    add(path, "panel", ["score"])
    broken(path)
    for use in (Tokens, listed, lambda p: add(p, "other", ["score"]), lambda p: revoke(p, "00000000")):
        with pytest.raises(TokensError, match=str(path)):
            use(path)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda f: f.__name__)
def test_a_file_that_breaks_while_it_is_used_changes_nothing_and_is_reported_once(
    path, clock, broken, caplog
):
    kept, lost = add(path, "kept", ["score"]), add(path, "lost", ["score"])
    tokens = Tokens(path)
    revoke(path, lost.split("_")[1])
    clock[0] += 1.0
    assert tokens.caller(bearer(lost)) is None
    whole = path.read_bytes()
    broken(path)
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            clock[0] += 1.0
            assert tokens.caller(bearer(kept)) and tokens.caller(bearer(lost)) is None
    assert len(caplog.records) == 1 and str(path) in caplog.text
    path.unlink()
    path.touch(0o600)
    path.write_bytes(whole)
    new = add(path, "new", ["score"])
    clock[0] += 1.0
    assert tokens.caller(bearer(new)) and tokens.caller(bearer(kept))


def test_a_missing_file_is_refused_at_the_start_and_revokes_everything_later(path, clock, caplog):
    with pytest.raises(TokensError, match="is not there"):
        Tokens(path)
    token = add(path, "panel", ["score"])
    tokens = Tokens(path)
    path.unlink()
    clock[0] += 1.0
    assert tokens.caller(bearer(token)) is None and "no token is valid" in caplog.text


def test_a_file_of_another_user_is_refused(path, monkeypatch):
    add(path, "panel", ["score"])
    owner = path.stat().st_uid
    if owner == 0:  # root's file is trusted by everybody
        os.chown(path, owner := 4711, 4711)
    monkeypatch.setattr(module.os, "geteuid", lambda: owner + 1)
    with pytest.raises(TokensError, match=f"belongs to user {owner}"):
        Tokens(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("user", "mode"), [(0, 0o640), (4711, 0o600), (4711, 0o400)])
def test_a_file_stays_whose_it_is_when_root_changes_it(path, user, mode):
    add(path, "panel", ["score"])
    os.chown(path, user, 4712)
    path.chmod(mode)
    add(path, "other", ["score"])
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (user, 4712, mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_group_may_read_only_what_is_roots(path):
    add(path, "panel", ["score"])
    path.chmod(0o640)
    Tokens(path)
    os.chown(path, 4711, 4711)
    with pytest.raises(TokensError, match="chmod 0600"):
        Tokens(path)


@pytest.mark.parametrize("name", ["", " ", " panel", "panel\n", "\x00", "x" * 41, "a\x1b[31mb"])
def test_a_name_that_would_spoil_a_log_is_refused(path, name):
    with pytest.raises(TokensError, match="name"):
        add(path, name, ["score"])
    assert not path.exists()


@pytest.mark.parametrize("roles", [[], ["admin"], ["score", "admin"], "score"])
def test_a_role_that_is_none_is_refused(path, roles):
    with pytest.raises(TokensError, match="score, feedback, operate"):
        add(path, "panel", roles)


@pytest.mark.parametrize("expires", [datetime(2030, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)])
def test_an_end_that_is_past_or_has_no_time_zone_is_refused(path, expires):
    with pytest.raises(TokensError, match="time zone"):
        add(path, "panel", ["score"], expires)


def test_an_id_that_is_not_there_cannot_be_revoked(path):
    token = add(path, "panel", ["score"])
    with pytest.raises(TokensError, match=f"'{token}'"):  # the whole token is no id, either
        revoke(path, token)
    assert len(listed(path)) == 1


def test_a_link_to_a_file_that_is_exchanged_is_followed(path, clock):
    """As Kubernetes updates a mounted secret."""
    folders = [path.parent / "one", path.parent / "two"]
    made = []
    for folder in folders:
        folder.mkdir()
        made.append(add(folder / "tokens.json", "panel", ["score"]))
    path.symlink_to(folders[0] / "tokens.json")
    tokens = Tokens(path)
    assert tokens.caller(bearer(made[0])) and tokens.caller(bearer(made[1])) is None
    path.unlink()
    path.symlink_to(folders[1] / "tokens.json")
    clock[0] += 1.0
    assert tokens.caller(bearer(made[1])) and tokens.caller(bearer(made[0])) is None


def test_tokens_made_at_the_same_time_are_all_kept(path):
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend(add(path, "panel", ["score"]) for _ in range(5)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tokens = Tokens(path)
    assert len(made) == 20 and all(tokens.caller(bearer(token)) for token in made)
