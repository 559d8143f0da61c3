"""One YAML file of a scenario: its content, and for every fault the line it is on.

PyYAML follows YAML 1.1 and takes the last of two equal keys in silence. Both are traps for one who writes a
scenario by hand, so equal keys are a fault here, and :mod:`openqci.network.validation` explains the others.
Anchors and aliases are refused: a file must mean what it shows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from openqci.core.errors import ConfigurationError, Fault

Path = tuple[str | int, ...]

Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where the wheel has it (Linux, macOS, Windows); much faster than pure Python."""

NESTING_MAX = 20
"""Lists and mappings within each other; the scenario files need five."""


@dataclass(frozen=True)
class LocatedFault(Fault):
    """A fault with its line, counted from 1; 0 if it belongs to no line."""

    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


@dataclass(frozen=True)
class Document:
    """A parsed file. ``content`` is what YAML says, not yet checked; ``root`` is None for an empty file."""

    file: str
    content: object
    root: yaml.Node | None

    def fault(self, path: Path, message: str) -> LocatedFault:
        """Return a fault at ``path``; its line is that of the deepest part of the path that exists."""
        return LocatedFault(self.file, path_text(path), message, line=self._line(path))

    def records(self, key: str) -> list[object]:
        """Return the list under a top-level key, or nothing if there is no such list."""
        listed = self.content.get(key) if isinstance(self.content, dict) else None
        return listed if isinstance(listed, list) else []

    def ids(self, key: str) -> set[str]:
        """Return the ids in the list under a key, also those of records that have other faults."""
        found = (record.get("id") for record in self.records(key) if isinstance(record, dict))
        return {name for name in found if isinstance(name, str)}

    def _line(self, path: Path) -> int:
        node, line = self.root, 0
        for step in ("", *path):
            node = _child(node, step) if step != "" else node
            if node is None:
                break
            line = node.start_mark.line + 1
        return line


def parse_document(text: str, file: str) -> Document:
    """Read one YAML text.

    Raises
    ------
    ConfigurationError
        Not YAML (with the line), a key twice in one mapping, or an alias.
    """
    try:
        _limit_nesting(text, file)
        root, content = _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigurationError(
            LocatedFault(file, "", f"not valid YAML: {error.problem or error}", mark.line + 1 if mark else 0)
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(LocatedFault(file, "", f"not valid YAML: {reason}")) from error
    faults = [LocatedFault(file, path_text(path), message, line) for path, message, line in _traps(root)]
    if faults:
        raise ConfigurationError(*faults)
    return Document(file, content, root)


def path_text(path: Path) -> str:
    """Return a path as people write it.

    >>> path_text(("links", 3, "fibre_km"))
    'links[3].fibre_km'
    """
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _limit_nesting(text: str, file: str) -> None:
    """Refuse what is nested too deeply: libyaml composes by recursion and takes the whole process with it."""
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > NESTING_MAX:
            message = f"lists and mappings are nested more than {NESTING_MAX} deep"
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise ConfigurationError(LocatedFault(file, "", message, line))


def _compose(text: str) -> tuple[yaml.Node | None, object]:
    loader = Loader(text)
    try:
        root = loader.get_single_node()
        return root, None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _traps(root: yaml.Node | None) -> Iterator[tuple[Path, str, int]]:
    """Walk all nodes once; report equal keys and nodes met twice, which are aliases."""
    seen: set[int] = set()
    waiting: list[tuple[Path, yaml.Node]] = [((), root)] if root is not None else []
    while waiting:
        path, node = waiting.pop()
        if id(node) in seen:
            yield path, "an alias (*name) is not allowed here; write the value out", node.start_mark.line + 1
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(((*path, index), item) for index, item in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if str(key.value) in keys:
                    yield (
                        (*path, str(key.value)),
                        "this key is given twice; keep one",
                        key.start_mark.line + 1,
                    )
                keys.add(str(key.value))
                waiting.append(((*path, str(key.value)), value))


def _child(node: yaml.Node | None, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
        item: yaml.Node | None = node.value[step] if step < len(node.value) else None
        return item
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                # A plain value is found at its key; a list or mapping begins where its first item is.
                found: yaml.Node = key if isinstance(value, yaml.ScalarNode) else value
                return found
    return None
