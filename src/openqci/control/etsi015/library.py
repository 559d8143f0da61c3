"""Which YANG modules an agent keeps to (RFC 7895), what its RESTCONF can do, and which streams it has."""

from typing import Any

from openqci.control.etsi015.model import DEVIATIONS, DEVIATIONS_REVISION, MODULE, REVISION, TYPES

LIBRARY_REVISION = "2016-06-21"
STREAM = "NETCONF"
"""The name of RFC 8040 for the stream of all notifications."""

STREAM_PATH = f"/streams/{STREAM}"

CAPABILITIES = (
    "urn:ietf:params:restconf:capability:defaults:1.0?basic-mode=report-all",
    "urn:ietf:params:restconf:capability:depth:1.0",
    "urn:ietf:params:restconf:capability:fields:1.0",
    "urn:ietf:params:restconf:capability:replay:1.0",
)

IMPLEMENTED = (
    (MODULE, REVISION, "urn:etsi:qkd:yang:etsi-qkd-node"),
    (TYPES, REVISION, "urn:etsi:qkd:yang:etsi-qkd-node-types"),
    (DEVIATIONS, DEVIATIONS_REVISION, f"urn:openqci:yang:{DEVIATIONS}"),
    ("ietf-yang-library", LIBRARY_REVISION, "urn:ietf:params:xml:ns:yang:ietf-yang-library"),
    (
        "ietf-restconf-monitoring",
        "2017-01-26",
        "urn:ietf:params:xml:ns:yang:ietf-restconf-monitoring",
    ),
)
IMPORTED = (
    ("ietf-yang-types", "2013-07-15", "urn:ietf:params:xml:ns:yang:ietf-yang-types"),
    ("ietf-inet-types", "2013-07-15", "urn:ietf:params:xml:ns:yang:ietf-inet-types"),
)


def modules_state() -> dict[str, Any]:
    """Return the library of modules."""
    modules: list[dict[str, Any]] = [
        {"name": name, "revision": revision, "namespace": namespace, "conformance-type": "implement"}
        for name, revision, namespace in IMPLEMENTED
    ]
    modules[0]["deviation"] = [{"name": DEVIATIONS, "revision": DEVIATIONS_REVISION}]
    modules += [
        {"name": name, "revision": revision, "namespace": namespace, "conformance-type": "import"}
        for name, revision, namespace in IMPORTED
    ]
    return {"module-set-id": f"{REVISION}.{DEVIATIONS_REVISION}", "module": modules}


def restconf_state(base: str, log_created: str) -> dict[str, Any]:
    """Return what this RESTCONF can do (RFC 8040, clause 9).

    ``base`` is the URL by which it was called, without a path; ``log_created`` since when notifications are
    kept for replay.
    """
    stream = {
        "name": STREAM,
        "description": "all notifications of this node",
        "replay-support": True,
        "replay-log-creation-time": log_created,
        "access": [{"encoding": "json", "location": f"{base}{STREAM_PATH}"}],
    }
    return {"capabilities": {"capability": list(CAPABILITIES)}, "streams": {"stream": [stream]}}
