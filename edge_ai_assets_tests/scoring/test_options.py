"""Where the service is offered and to whom: `service.toml`, the command line, and what neither may say."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.scoring import arguments, serve, supervisor
from edge_ai_assets.scoring import options as module
from edge_ai_assets.scoring.options import FILE, Exposed, OptionsError, listen, read
from edge_ai_assets.scoring.tls import TlsError
from edge_ai_assets.scoring.tokens import TokensError, add
from edge_ai_assets.usecase import SiteName
from edge_ai_assets_tests.scoring.processes import SERVE, environment_of

LOOPBACK = ["127.0.0.1", "127.8.9.10", "::1", "localhost"]
OTHERS = [
    "0.0.0.0",
    "::",
    "192.0.2.7",
    "2001:db8::1",
    "site.example",
    "",
    "::ffff:192.0.2.7",
    "localhost.example",
]


def write(folder: Path, text: str) -> Path:
    (folder / FILE).write_text(text, "utf-8")
    return folder


def test_no_file_is_no_exposed_address(tmp_path: Path):
    assert read(tmp_path) is None
    assert read(tmp_path / "nowhere") is None


def test_an_empty_file_is_loopback_as_ever(tmp_path: Path):
    assert read(write(tmp_path, "")) == Exposed()
    assert Exposed().loopback


def test_every_setting_is_read(tmp_path: Path):
    text = """
host = "0.0.0.0"
port = 8443
tls_certificate = "tls.crt"
tls_key = "/etc/tls.key"
tokens = "keys/tokens.json"
behind_proxy = true
workers = 3
"""
    found = read(write(tmp_path, text))
    assert found == Exposed(
        host="0.0.0.0",
        port=8443,
        tls_certificate=tmp_path / "tls.crt",
        tls_key=Path("/etc/tls.key"),
        tokens=tmp_path / "keys" / "tokens.json",
        behind_proxy=True,
        workers=3,
    )


WHOLE = "a whole number from {} to {}"
WRONG = [
    ("host = 1", "host must be text, it is 1"),
    ("host = ['a']", "host must be text"),
    ("port = '80'", f"port must be {WHOLE.format(0, 65535)}, it is '80'"),
    ("port = -1", "port must be"),
    ("port = 65536", "port must be"),
    ("port = 80.0", "port must be"),
    ("port = true", "port must be"),
    ("workers = 0", f"workers must be {WHOLE.format(1, 64)}, it is 0"),
    ("workers = 65", "workers must be"),
    ("workers = -2", "workers must be"),
    ("workers = false", "workers must be"),
    ("workers = '2'", "workers must be"),
    ("behind_proxy = 1", "behind_proxy must be true or false, it is 1"),
    ("behind_proxy = 'yes'", "behind_proxy must be true or false"),
    ("tls_certificate = 1", "tls_certificate must be text, it is 1"),
    ("tls_key = false", "tls_key must be text"),
    ("tokens = ['a']", "tokens must be text"),
    ("[tokens]\nfile = 'a'", "tokens must be text"),
    ("hots = '127.0.0.1'", "'hots' is not known, only host, port, tls_certificate, tls_key, tokens, "),
    ("[service]\nport = 1", "'service' is not known"),
    ("loopback = true", "'loopback' is not known"),
    ("port = ", "is no TOML"),
    ("port = 1\nport = 2", "is no TOML"),
    ("tls_certificate = 'a'", "tls_certificate and tls_key go together"),
    ("tls_key = 'a'\ntokens = 'b'", "tls_certificate and tls_key go together"),
    ("host = '0.0.0.0'", "host '0.0.0.0' is refused.*tls_certificate, tls_key.*tokens, or behind_proxy"),
    ("host = ''", "host '' is refused"),
]


@pytest.mark.parametrize(("text", "reason"), WRONG)
def test_what_cannot_be_meant_is_refused_with_the_setting_and_a_way_out(
    tmp_path: Path, text: str, reason: str
):
    with pytest.raises(OptionsError, match=reason):
        read(write(tmp_path, text))


@pytest.mark.parametrize("text", [text for text, said in WRONG if "must be" in said or "known" in said])
def test_the_file_is_named(tmp_path: Path, text: str):
    with pytest.raises(OptionsError) as refused:
        read(write(tmp_path, text))
    assert str(tmp_path / FILE) in str(refused.value)


@pytest.mark.parametrize("text", ["port = 0", "port = 65535", "workers = 1", "workers = 64"])
def test_bounds_are_within(tmp_path: Path, text: str):
    name, _, value = text.partition(" = ")
    assert getattr(read(write(tmp_path, text)), name) == int(value)


def test_bytes_that_are_no_text_are_no_toml(tmp_path: Path):
    (tmp_path / FILE).write_bytes(b"host = '\xff'")
    with pytest.raises(OptionsError, match="is no TOML"):
        read(tmp_path)


def test_a_file_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path):
    """Else an address that was guarded would quietly be gone."""
    (tmp_path / FILE).mkdir()
    with pytest.raises(OSError, match="directory"):
        read(tmp_path)


@pytest.mark.parametrize("host", LOOPBACK)
def test_addresses_of_this_machine_only(host: str):
    assert Exposed(host).loopback


@pytest.mark.parametrize("host", OTHERS)
def test_addresses_others_may_reach(host: str):
    """Or that may lead to one: a name is whatever its resolver says."""
    assert not Exposed(host).loopback


@pytest.mark.parametrize("host", [*LOOPBACK, *OTHERS])
@pytest.mark.parametrize(
    ("certificate", "key", "tokens", "proxy"),
    list(itertools.product((None, Path("a")), (None, Path("b")), (None, Path("c")), (False, True))),
)
def test_who_may_be_offered_what(host: str, certificate: Any, key: Any, tokens: Any, proxy: bool):
    """Of all combinations, exactly those in which no stranger gets in and nobody reads along."""
    exposed = Exposed(host, 0, certificate, key, tokens, proxy)
    whole = (certificate is None) == (key is None)
    guarded = certificate is not None and tokens is not None
    if whole and (host in LOOPBACK or proxy or guarded):
        exposed.check()
    else:
        with pytest.raises(OptionsError):
            exposed.check()


paths = st.none() | st.text(st.characters(categories=["L", "N"]), min_size=1).map(Path)


@given(st.sampled_from([*LOOPBACK, *OTHERS]), paths, paths, paths, st.booleans())
def test_a_serving_process_is_told_the_same(host: str, certificate: Any, key: Any, tokens: Any, proxy: bool):
    exposed = Exposed(host, 0, certificate, key, tokens, proxy)
    told = arguments.parser().parse_args(["--release", "r", *exposed.arguments()])
    assert (told.host, told.tls_certificate, told.tls_key) == (host, certificate, key)
    assert (told.tokens, told.behind_proxy) == (tokens, proxy)


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_socket_listens_where_it_should(host: str, family: socket.AddressFamily):
    try:
        listener = listen(Exposed(host))
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    with listener:
        assert listener.family == family and listener.getsockname()[0] == host
        with socket.create_connection(listener.getsockname()[:2], timeout=60):
            pass
        with pytest.raises(OSError, match="in use"):
            listen(Exposed(host, listener.getsockname()[1]))


def test_a_port_that_will_be_free_in_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    """Those whose supervisor was killed are still about to let it go."""
    held = listen(Exposed())
    where = Exposed(port=held.getsockname()[1])
    monkeypatch.setattr(supervisor, "PORT_SECONDS", 0.2)
    with held, pytest.raises(OSError, match="in use"):
        supervisor._patiently(where)
    held = listen(where)
    monkeypatch.setattr(supervisor, "PORT_SECONDS", 20.0)
    later = threading.Timer(0.2, held.close)
    later.start()
    with supervisor._patiently(where) as found:
        assert found.getsockname()[1] == where.port
    later.join()


# What `serve` makes of it.


def doors(*options: str) -> list[serve.Door]:
    return serve._doors(arguments.parser().parse_args(["--release", "r", "--port", "0", *options]))


def close(found: list[serve.Door]) -> None:
    for door in found:
        door.listener.close()


def test_by_default_it_is_loopback_without_tokens():
    (door,) = found = doors()
    assert (door.tls, door.tokens) == (None, None)
    assert door.listener.getsockname()[0] == "127.0.0.1"
    close(found)


@pytest.mark.parametrize("host", OTHERS)
def test_what_is_refused_never_listens(host: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serve, "listen", lambda exposed: pytest.fail("it listens"))
    with pytest.raises(OptionsError, match="is refused"):
        doors("--host", host)


def test_tokens_alone_do_not_guard_an_address(tmp_path: Path):
    add(tmp_path / "tokens", "panel", ["score"])
    with pytest.raises(OptionsError, match="certificate"):
        doors("--host", "0.0.0.0", "--tokens", str(tmp_path / "tokens"))


def test_behind_a_proxy_it_may_listen_anywhere():
    (door,) = found = doors("--host", "0.0.0.0", "--behind-proxy")
    assert (door.tls, door.tokens) == (None, None)
    close(found)


def test_tokens_are_asked_for_on_loopback_too_if_it_is_told(tmp_path: Path):
    add(tmp_path / "tokens", "panel", ["score"])
    (door,) = found = doors("--tokens", str(tmp_path / "tokens"))
    assert door.tokens is not None and door.tls is None
    close(found)


def test_a_socket_that_is_given_is_judged_by_its_own_address(tmp_path: Path):
    """Not by what else was said on the command line."""
    with listen(Exposed("0.0.0.0")) as everywhere, listen(Exposed()) as here:
        with pytest.raises(OptionsError, match="on loopback only"):
            doors("--fd", str(os.dup(everywhere.fileno())))
        given = ["--fd", str(os.dup(here.fileno())), "--exposed-fd", str(os.dup(everywhere.fileno()))]
        with pytest.raises(OptionsError, match=r"host '0\.0\.0\.0' is refused"):
            doors(*given)
        given = ["--fd", str(os.dup(here.fileno())), "--exposed-fd", str(os.dup(everywhere.fileno()))]
        found = doors(*given, "--behind-proxy")
        assert [door.tokens for door in found] == [None, None]
        close(found)


def test_guards_that_cannot_be_used_are_refused(tmp_path: Path):
    add(tmp_path / "tokens", "panel", ["score"])
    (tmp_path / "tokens").chmod(0o644)
    with pytest.raises(TokensError, match=r"mode 0644.*chmod 06.0"):
        doors("--tokens", str(tmp_path / "tokens"))
    with pytest.raises(TlsError, match=r"tls\.crt cannot be read"):
        doors("--tls-certificate", str(tmp_path / "tls.crt"), "--tls-key", str(tmp_path / "tls.key"))


WRONG_WAYS: list[tuple[list[str], str]] = [
    (["--workers", "0"], "--workers: must be a whole number from 1 to 64, it is '0'"),
    (["--workers", "two"], "--workers: must be a whole number from 1 to 64, it is 'two'"),
    (["--workers", "65"], "--workers: must be"),
    (["--quota", "-1"], "--quota: must be a whole number from 1 to"),
    (["--port", "http"], "--port: must be a whole number from 0 to 65535"),
    (["--port", "70000"], "--port: must be a whole number from 0 to 65535, it is '70000'"),
    (["--port", "²"], "--port: must be"),
    (["--version", "-5"], "--version: must be a whole number from 0 to 999999999"),
    (["--version", "9" * 5000], "--version: must be"),
    (["--site", ""], "--site: must be 1 to 64 letters"),
    (["--site", 'a,"b'], "--site: must be"),
    (["--site", "a" * 65], "--site: must be"),
    (["--site", "a\n"], "--site: must be"),
    (["--release-id", "x\r\nset-cookie: a=b"], "--release-id: a digest is"),
    (["--release-id", ""], "--release-id: a digest is"),
    (["--also", "folder", "digest"], "expected 3 arguments"),
    (["--also", "folder", "digest", "x"], "--also: must be a whole number from 0 to"),
    (["--also", "folder", "a b", "1"], "--also: a digest is"),
    (["--release", "nowhere"], "--release: there is no nowhere/model.onnx"),
    (["--outbox", "nowhere/outbox.db"], "--outbox: there is no folder /"),
    (["--unknown"], "unrecognized"),
]


@pytest.mark.parametrize(("options", "reason"), WRONG_WAYS, ids=lambda value: str(value)[:40])
def test_a_wrong_command_line_is_told_in_one_line_how_it_should_be(
    release: Path, options: list[str], reason: str, capsys: Any
):
    with pytest.raises(SystemExit) as ended:
        serve.main(["--release", str(release), *options])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and reason in line and line.startswith("edge-ai serve: ")


def test_a_right_command_line_is_read(release: Path, tmp_path: Path):
    given = ["--site", "Bergen-1.a_b", "--version", "999999999", "--port", "0", "--workers", "64"]
    given += ["--outbox", str(tmp_path / "outbox.db"), "--also", "former", "sha256:aa", "3"]
    found = arguments.parsed(["--release", str(release), *given])
    assert (found.site, found.version, found.port, found.workers) == ("Bergen-1.a_b", 999_999_999, 0, 64)
    assert found.also == [(Path("former"), "sha256:aa", 3)]


def test_a_site_may_be_called_what_a_use_case_may_call_it():
    patterns = [each.pattern for each in get_args(SiteName)[1].metadata if hasattr(each, "pattern")]
    assert patterns == [f"^{arguments.SITE.pattern}$"]


def other_address(tmp_path: Path) -> list[str]:
    return ["--host", "0.0.0.0"]


def open_to_others(tmp_path: Path) -> list[str]:
    add(tmp_path / "tokens", "panel", ["score"])
    (tmp_path / "tokens").chmod(0o644)
    return ["--tokens", str(tmp_path / "tokens")]


def no_tokens(tmp_path: Path) -> list[str]:
    return ["--tokens", str(tmp_path / "tokens")]


def half_tls(tmp_path: Path) -> list[str]:
    return ["--tls-key", str(tmp_path / "tls.key")]


def no_address(tmp_path: Path) -> list[str]:
    return ["--port", "1", "--host", "192.0.2.1", "--behind-proxy"]  # no address of this machine


def no_outbox(tmp_path: Path) -> list[str]:
    (tmp_path / "text").write_text("no outbox")
    return ["--outbox", str(tmp_path / "text")]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (other_address, "host '0.0.0.0' is refused"),
        (open_to_others, "is open to other users (mode 0644): chmod 06"),
        (no_tokens, "tokens cannot be read"),
        (half_tls, "tls_certificate and tls_key go together"),
        (no_address, "Cannot assign requested address"),
        (no_outbox, "the outbox cannot be opened"),
    ],
)
def test_the_command_ends_with_1_and_one_line_that_says_why(
    tmp_path: Path, release: Path, options: Callable[[Path], list[str]], reason: str
):
    command = [*SERVE, "--release", str(release), "--outbox", str(tmp_path / "o.db"), "--port", "0"]
    done = subprocess.run(
        [*command, *options(tmp_path)], capture_output=True, text=True, timeout=60, env=environment_of()
    )
    assert (done.returncode, done.stdout) == (1, "")
    line = json.loads(done.stderr.splitlines()[-1])
    assert reason in line["message"] and line["level"] == "error"
    assert "Traceback" not in done.stderr


def test_every_setting_of_the_file_has_its_bounds():
    numbers = {field for field, value in vars(Exposed()).items() if type(value) is int}
    assert numbers == module.BOUNDS.keys()
