"""JSON that two readers cannot understand differently: no member twice, nothing behind the document.

Every fault is a RequestRefused with status 400, whose text quotes nothing of the body: it may hold key.
"""

import json
from typing import Any, NoReturn

from openqci.core.errors import RequestRefused


def document(body: bytes) -> Any:
    """Return the document of a body in UTF-8.

    >>> document(b'{"number": 1}')
    {'number': 1}
    """
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_unique_members, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        # The parser's own message may quote the body, which a log should not hold.
        raise RequestRefused(400, "the body is not a JSON document") from None


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise RequestRefused(400, "a member occurs twice in a JSON object")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise RequestRefused(400, "NaN and Infinity are not JSON")
