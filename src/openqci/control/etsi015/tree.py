"""Resources of the tree: which one a path names, what of it a query asks for, and what an edit means.

Paths and queries are those of RFC 8040 (clauses 3.5.3 and 4.8), documents those of RFC 7951. Everything that
is wrong with a request is a :class:`RestconfError`, in the words and codes of RFC 8040, clause 7.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from openqci.control.etsi015.model import DATA, MODULE, Branch, Leaf

PATH_SEGMENTS_MAX = 16
FIELDS_CHARACTERS_MAX = 2_000
DEPTH_MAX = 65_535
QUERY_NAMES = frozenset({"content", "depth", "fields"})

Fields = dict[str, "Fields | None"]
"""What of a node is asked for: child by child, None for a child with all that is below."""


class RestconfError(Exception):
    """An answer that is an error: HTTP status, and what ``ietf-restconf:errors`` says."""

    def __init__(self, status: int, tag: str, message: str, path: str = "") -> None:
        super().__init__(message)
        self.status, self.tag, self.message, self.path = status, tag, message, path

    def document(self) -> dict[str, Any]:
        """Return the body of the answer."""
        error = {
            "error-type": "protocol" if self.status in (405, 406, 412, 413, 415) else "application",
            "error-tag": self.tag,
            "error-message": self.message,
        }
        if self.path:
            error["error-path"] = self.path
        return {"ietf-restconf:errors": {"error": [error]}}


class Query(msgspec.Struct, frozen=True):
    """How much of a resource is asked for."""

    content: str = "all"
    depth: int = DEPTH_MAX
    fields: Fields | None = None


class Place(msgspec.Struct, frozen=True):
    """A resource: names and keys (``=KEY``) on the way to it, and what the model says of it.

    ``entry`` is True for one entry of a list.
    """

    steps: tuple[str, ...]
    model: Branch | Leaf
    entry: bool = False

    @property
    def name(self) -> str:
        """The resource's name with its module."""
        names = [step for step in self.steps if not step.startswith("=")]
        if not names:
            return "ietf-restconf:data"
        return names[0] if len(names) == 1 else f"{module_of(names[0])}:{names[-1]}"


def parse_query(parameters: Iterable[tuple[str, str]]) -> Query:
    """Read the query of a GET; RestconfError for a parameter that is unknown, doubled or makes no sense."""
    told = list(parameters)
    names = [name for name, _ in told]
    for name in names:
        if name not in QUERY_NAMES or names.count(name) > 1:
            raise RestconfError(
                400, "invalid-value", f"query {name[:40]!r}: expected content, depth and fields, once each"
            )
    given = dict(told)
    content, depth = given.get("content", "all"), given.get("depth", "unbounded")
    if content not in ("all", "config", "nonconfig"):
        raise RestconfError(400, "invalid-value", "content: expected all, config or nonconfig")
    if depth != "unbounded" and not (re.fullmatch("[1-9][0-9]{0,4}", depth) and int(depth) <= DEPTH_MAX):
        raise RestconfError(400, "invalid-value", f"depth: expected unbounded, or 1 to {DEPTH_MAX}")
    fields = parse_fields(given["fields"]) if "fields" in given else None
    return Query(content, DEPTH_MAX if depth == "unbounded" else int(depth), fields)


def parse_fields(text: str) -> Fields:
    """Read a ``fields`` expression.

    >>> parse_fields("qkdn_id;qkd_links/qkd_link(qkdl_id;qkdl_status)")
    {'qkdn_id': None, 'qkd_links': {'qkd_link': {'qkdl_id': None, 'qkdl_status': None}}}
    """
    tokens = re.findall(r"[A-Za-z_][A-Za-z0-9_.:-]*|[;/()]", text)
    if len(text) > FIELDS_CHARACTERS_MAX or "".join(tokens) != text:
        raise RestconfError(400, "invalid-value", "fields: expected names joined by ; and / and parentheses")
    found, rest = _fields(tokens, 0)
    if rest:
        raise RestconfError(400, "invalid-value", "fields: a parenthesis too many")
    return found


def _fields(tokens: Sequence[str], level: int) -> tuple[Fields, Sequence[str]]:
    """Read alternatives up to the end or a closing parenthesis; return them with what follows."""
    found: Fields = {}
    while True:
        below, tokens = _field(tokens, level)
        for name, children in below.items():
            found[name] = _joined(found[name], children) if name in found else children
        if not tokens or tokens[0] == ")":
            return found, tokens
        tokens = tokens[1:]


def _field(tokens: Sequence[str], level: int) -> tuple[Fields, Sequence[str]]:
    """Read one alternative: a name, and what of it."""
    if level > PATH_SEGMENTS_MAX:
        raise RestconfError(400, "invalid-value", f"fields: more than {PATH_SEGMENTS_MAX} levels")
    if not tokens or tokens[0] in ";/()":
        raise RestconfError(400, "invalid-value", "fields: expected a name")
    name, tokens = tokens[0], tokens[1:]
    if tokens and tokens[0] == "/":
        below, tokens = _field(tokens[1:], level + 1)
        return {name: below}, tokens
    if tokens and tokens[0] == "(":
        below, tokens = _fields(tokens[1:], level + 1)
        if not tokens:
            raise RestconfError(400, "invalid-value", "fields: a parenthesis is not closed")
        return {name: below}, tokens[1:]
    if tokens and tokens[0] not in ";)":
        raise RestconfError(400, "invalid-value", f"fields: expected ; after {name!r}")
    return {name: None}, tokens


def _joined(one: Fields | None, other: Fields | None) -> Fields | None:
    """Return what either asks for."""
    if one is None or other is None:
        return None
    return {
        name: _joined(one[name], other[name])
        if name in one and name in other
        else (one[name] if name in one else other[name])
        for name in [*one, *(name for name in other if name not in one)]
    }


def module_of(name: str) -> str:
    """Return the module in front of a qualified name."""
    return name.partition(":")[0]


def place_of(path: str) -> Place:
    """Return which resource a path below ``/restconf/data`` names; RestconfError 404 if the model has none.

    >>> place_of("etsi-qkd-sdn-node:qkd_node/qkd_links/qkd_link=7/qkdl_enable").steps
    ('etsi-qkd-sdn-node:qkd_node', 'qkd_links', 'qkd_link', '=7', 'qkdl_enable')
    """
    model: Branch | Leaf = DATA
    steps: list[str] = []
    entry = False
    segments = path.split("/") if path else []
    if len(segments) > PATH_SEGMENTS_MAX:
        raise _missing(path)
    for segment in segments:
        name, equals, key = segment.partition("=")
        name = unquote(name)
        if steps:
            name = name.removeprefix(f"{module_of(steps[0])}:")
        if isinstance(model, Leaf) or name not in model.children or (model.key and not entry):
            raise _missing(path)
        model = model.children[name]
        steps.append(name)
        entry = bool(equals)
        if equals:
            if isinstance(model, Leaf) or not model.key:
                raise _missing(path)
            steps.append("=" + ",".join(map(unquote, key.split(","))))
    return Place(tuple(steps), model, entry)


def _missing(path: str) -> RestconfError:
    return RestconfError(404, "invalid-value", "there is no such resource", f"/{path[:200]}")


def read(data: Mapping[str, Any], path: str, query: Query) -> dict[str, Any]:
    """Return the resource at a path, with its name and module; RestconfError 404 if it is not there now."""
    place = place_of(path)
    found = _picked(_found(data, place.steps, path), place.model, query.depth, query.fields)
    found = _of_content(found, place.model, query.content)
    if found is None:
        raise _missing(path)
    return {place.name: [found] if place.entry else found}


def _found(data: Mapping[str, Any], steps: Iterable[str], path: str) -> Any:
    """Return what is at a place now."""
    found: Any = data
    model: Branch | Leaf = DATA
    for step in steps:
        if step.startswith("=") and isinstance(model, Branch):
            found = _entry(found, model.key.split(), step[1:], path)
        elif isinstance(model, Branch) and step in found:
            found, model = found[step], model.children[step]
        else:
            raise _missing(path)
    return found


def _entry(entries: Iterable[Mapping[str, Any]], names: Sequence[str], key: str, path: str) -> Any:
    """Return the entry of a list with a key. UUIDs are the same in upper case."""
    for each in entries:
        if ",".join(str(each[name]) for name in names).lower() == key.lower():
            return each
    raise _missing(path)


def _picked(value: Any, model: Branch | Leaf, depth: int, fields: Fields | None) -> Any:
    """Return what depth and fields leave of a value."""
    if isinstance(model, Leaf):
        if fields:
            raise RestconfError(400, "invalid-value", f"fields: {min(fields)!r} is below a leaf")
        return value
    if fields is not None and (unknown := fields.keys() - model.children.keys()):
        raise RestconfError(400, "invalid-value", f"fields: there is no {min(unknown)!r} here")
    if isinstance(value, list):
        return [] if depth == 1 else [_picked(each, model, depth, fields) for each in value]
    if depth == 1:
        return {}
    return {
        name: _picked(child, model.children[name], depth - 1, fields[name] if fields is not None else None)
        for name, child in value.items()
        if fields is None or name in fields
    }


def _of_content(value: Any, model: Branch | Leaf, content: str) -> Any:
    """Return what of a value can be written (config), or cannot (nonconfig); None if nothing."""
    if content == "all":
        return value
    if isinstance(model, Leaf):
        return value if model.writable == (content == "config") else None
    if isinstance(value, list):
        entries = [_of_content(each, model, content) for each in value]
        return [each for each in entries if each is not None] or None
    found = {
        name: left
        for name, child in value.items()
        if (left := _of_content(child, model.children[name], content)) is not None
    }
    keys = {name: value[name] for name in model.key.split() if name in value}
    return {**keys, **found} if found else None


Edit = tuple[tuple[str, ...], Any]
"""Where a leaf is, in steps, and what it becomes."""


def edits(data: Mapping[str, Any], method: str, path: str, document: Any) -> list[Edit]:
    """Return which leaves an edit sets, and to what.

    ``document`` is the parsed body. PUT is for a leaf that can be written; PATCH also for branches, and sets
    those of their leaves that it names. What the agent lets nobody write is refused with 405, what is not
    there with 404, a value that makes no sense with 400; then nothing is set at all.
    """
    place = place_of(path)
    _found(data, place.steps, path)
    patched = method == "PATCH" and place.steps
    if not patched and not (method == "PUT" and isinstance(place.model, Leaf)):
        raise _unsupported(path)
    if not isinstance(document, dict) or list(document) != [place.name]:
        raise RestconfError(400, "malformed-message", f"expected an object with one member, {place.name}")
    (value,) = document.values()
    if place.entry:
        if not (isinstance(value, list) and len(value) == 1):
            raise RestconfError(400, "malformed-message", f"{place.name}: expected a list of one entry")
        (value,) = value
    found = list(_edits(value, place.model, place.steps, entry=place.entry))
    for steps, _ in found:
        _found(data, steps, path)
    return found


def _edits(value: Any, model: Branch | Leaf, steps: tuple[str, ...], *, entry: bool) -> Iterable[Edit]:
    """Yield the leaves that a merged value sets; keys name their entries and are not set."""
    where = "/".join(steps)
    if isinstance(model, Leaf):
        if not model.writable:
            raise _unsupported(where)
        if model.type == "boolean" and not isinstance(value, bool):
            raise RestconfError(400, "invalid-value", "expected true or false", f"/{where}")
        yield steps, value
    elif model.key and not entry:
        for key, each in _keyed(value, model.key, where):
            yield from _edits(each, model, (*steps, f"={key}"), entry=True)
    else:
        yield from _edits_below(value, model, steps, where)


def _keyed(value: Any, key: str, where: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield the entries of a list that an edit names, with their keys."""
    if not isinstance(value, list):
        raise RestconfError(400, "invalid-value", "expected a list", f"/{where}")
    for each in value:
        if not isinstance(each, dict) or not isinstance(each.get(key), str | int):
            raise RestconfError(400, "missing-attribute", f"expected entries with {key}", f"/{where}")
        yield str(each[key]), each


def _edits_below(value: Any, model: Branch, steps: tuple[str, ...], where: str) -> Iterable[Edit]:
    """Yield what an edit sets in a container or an entry."""
    if not isinstance(value, dict):
        raise RestconfError(400, "invalid-value", "expected an object", f"/{where}")
    for member, child in value.items():
        name = member.removeprefix(f"{MODULE}:")
        if name not in model.children:
            raise RestconfError(400, "unknown-element", f"there is no {name[:64]!r} here", f"/{where}")
        if name != model.key:
            yield from _edits(child, model.children[name], (*steps, name), entry=False)
        elif str(child).lower() != steps[-1][1:].lower():
            raise RestconfError(400, "invalid-value", f"{name} is another than in the path", f"/{where}")


def _unsupported(path: str) -> RestconfError:
    message = "this agent lets nobody change that; see its deviation module"
    return RestconfError(405, "operation-not-supported", message, f"/{path[:200]}")
