"""The form in which TeraFlowSDN's driver for QKD nodes reads the tree: names without their modules.

Read off what its driver (``QKDDriver2``, a copy of 2026-04) does with answers: members and identities bear no
module, paths end in a slash, and links are expected as a list in ``qkd_links`` itself.
"""

from typing import Any

from openqci.control.etsi015.model import TYPES

LINKS = "qkd_links"


def without_modules(document: dict[str, Any]) -> dict[str, Any]:
    """Return an answer in the driver's form.

    >>> without_modules({"etsi-qkd-sdn-node:qkd_links": {"qkd_link": [{"qkdl_type": f"{TYPES}:PHYS"}]}})
    {'qkd_links': [{'qkdl_type': 'PHYS'}]}
    """
    told: dict[str, Any] = _bare(document)
    if list(told) == [LINKS]:
        return {LINKS: told[LINKS].get("qkd_link", [])}
    return told


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.rpartition(":")[2]: _bare(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_bare(each) for each in value]
    if isinstance(value, str):
        return value.removeprefix(f"{TYPES}:")
    return value
