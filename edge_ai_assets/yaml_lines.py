"""YAML whose every value knows its line, without what YAML lets pass and nobody means.

What the values ought to be is for the caller to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

MAX_NODES = 250_000
"""Values in a document, anchors expanded: a few lines of them can stand for more than fits into memory."""

MAX_DEPTH = 50
"""Lists in lists; PyYAML's C part takes the process down with it when it meets thousands."""

if TYPE_CHECKING:
    _Base = yaml.SafeLoader
else:
    # Ten times as fast where PyYAML has its C part; every run of a site reads the use case.
    _Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class NoYaml(ValueError):
    """A document that cannot be used; `line` counts from 1, None when there is no place to point at."""

    def __init__(self, said: str, line: int | None) -> None:
        super().__init__(said)
        self.line = line


class _Loader(_Base):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:  # such as the 13th month
            raise NoYaml(f"{str(node.value)[:40]!r} is no value: {error}", _line(node)) from error


def parse(text: str) -> tuple[yaml.Node | None, Any]:
    """The one document in a text, as nodes and as values; None and None when it is empty.

    Raises:
        NoYaml: it is no YAML, or has a key twice (YAML would take the last one silently), a value that
            cannot be made, or too many of them.
    """
    loader = _Loader(text)
    try:
        _check_depth(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        _check(node)
        return node, loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = f"no YAML: {getattr(error, 'problem', None) or error}"
        raise NoYaml(said, mark.line + 1 if mark else None) from error
    finally:
        loader.dispose()


def line_of(node: yaml.Node | None, loc: tuple[int | str, ...]) -> int:
    """The line of the deepest value that a path of keys and positions names, counted from 1."""
    line = 1
    for step in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if found is None:
                break
            line, node = _line(found[0]), found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = _line(node)
        else:
            break
    return line


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = getattr(event.start_mark, "line", 0) + 1
            raise NoYaml(f"values are nested more than {MAX_DEPTH} deep", line)


def _check(document: yaml.Node) -> None:
    """NoYaml for keys given twice and for too many values."""
    waiting, count = [document], 0
    while waiting:
        node, count = waiting.pop(), count + 1
        if count > MAX_NODES:
            said = f"more than {MAX_NODES:,} values, those that anchors stand for counted"
            raise NoYaml(said, _line(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in lines:
                        first = lines[key.value]
                        raise NoYaml(f"{key.value}: is given twice, first in line {first}", _line(key))
                    lines[key.value] = _line(key)
                waiting += [key, value]


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
