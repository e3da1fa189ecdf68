"""What README.md and docs/ name is there: links, files, make's targets, commands with their options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from edge_ai_assets import cli
from edge_ai_assets.scoring import arguments

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAM = typer.main.get_command(cli.app)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
TARGETS |= {path.stem.replace("bench_", "bench-") for path in (ROOT / "benchmarks").glob("bench_*.py")}

BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"(?<![\w/.-])(?:benchmarks|deploy|docs|edge_ai_assets(?:_tests)?)/[\w./-]*\w")
STARTS = r"(?:^|&&|\|\||[|;(]|\s--\s)\s*(?:\w+=\S*\s+)*"  # where a shell begins a command
COMMAND = re.compile(STARTS + r"(?:\S*/)?edge-ai(?=\s|$)((?:'[^']*'|\"[^\"]*\"|[^|;&'\"])*)")
MAKE = re.compile(STARTS + r"make ([a-z-]+)")


def code(text: str) -> Iterator[str]:
    """Command lines of a page: lines of its blocks, and what stands between two backticks."""
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines()[1:-1]:
            yield re.split(r"\s#", line)[0]
    for span in SPAN.findall(BLOCK.sub("", text)):
        yield " ".join(span.split())


def check(line: str) -> None:
    """Refuse what is no command of ours, or an option or argument that it does not have."""
    command, context = PROGRAM, PROGRAM.context_class(PROGRAM, info_name="edge-ai")
    words = [word for word in shlex.split(re.sub(r"[\[\]]", " ", line)) if word != "COMMAND"]
    while words and hasattr(command, "commands"):
        assert words[0] in {*command.commands, "--help"}, f"{context.command_path} has no {words[0]!r}"
        if words[0] == "--help":
            return
        command = command.commands[words[0]]
        context = command.context_class(command, info_name=words.pop(0), parent=context)
    if command.context_settings.get("ignore_unknown_options"):  # handed on to a parser of its own
        assert not words or not arguments.parser().parse_known_args(words)[1]
        return
    given, extra, _ = command.make_parser(context).parse_args(args=words)
    assert set(extra) <= {"…"}, f"{context.command_path} has no argument for {extra}"
    for option in command.params:
        if choices := getattr(getattr(option, "type_descriptor", None), "choices", None):
            wanted = given.get(option.name) or []
            wanted = {wanted} if isinstance(wanted, str) else {*wanted}
            assert {word for word in wanted if not word.isupper()} <= {*map(str, choices)}, option.name


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request):
    return request.param


def test_every_link_leads_somewhere(page):
    for link in LINK.findall(BLOCK.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", target.read_text("utf-8")), re.MULTILINE)
            assert anchor in map(slug, headings), link


def test_every_file_of_ours_that_is_named_is_there(page):
    missing = [name for name in FILE.findall(page.read_text("utf-8")) if not (ROOT / name).exists()]
    assert not missing


def test_every_command_is_one(page):
    for line in code(page.read_text("utf-8")):
        for found in COMMAND.findall(line):
            check(found)


def test_every_target_is_one_of_the_makefile(page):
    for line in code(page.read_text("utf-8")):
        assert set(MAKE.findall(line)) <= TARGETS, line


@pytest.mark.parametrize(
    "line",
    [
        "edge-ai nothing",
        "edge-ai site nothing",
        "x && .venv/bin/edge-ai site invite narvik --too /media",
        "A=1 edge-ai link down --site narvik extra",
        "kubectl exec pod -- edge-ai doctor --loudly",
    ],
)
def test_a_wrong_command_is_found(line):
    (found,) = COMMAND.findall(line)
    with pytest.raises(Exception, match=r"has no|No such option|unexpected"):
        check(found)


def test_a_name_that_is_no_command_is_left_alone():
    assert not COMMAND.findall("az group create --name edge-ai --location westeurope")
