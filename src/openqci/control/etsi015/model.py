"""The data tree of an agent: ``etsi-qkd-sdn-node`` (revision 2022-01-30) with our deviations, as a table.

Names, types and which leaves can be written; a test holds the table against the published YANG modules and
our deviation module, node by node. What the deviation module takes out is not here: see
``docs/reference/etsi-015.md`` for what and why.
"""

from collections.abc import Mapping

import msgspec

MODULE, TYPES = "etsi-qkd-sdn-node", "etsi-qkd-node-types"
REVISION = "2022-01-30"
DEVIATIONS, DEVIATIONS_REVISION = "openqci-qkd-sdn-node-deviations", "2026-12-01"

IDENTITIES: Mapping[str, frozenset[str]] = {
    "QKD-TECHNOLOGY-TYPES": frozenset({"CV-QKD", "DV-QKD", "DV-QKD-COW", "DV-QKD-2Ws"}),
    "QKDN-STATUS-TYPES": frozenset({"NEW", "OPERATING", "DOWN", "FAILURE", "OUT"}),
    "QKD-LINK-TYPES": frozenset({"VIRT", "PHYS"}),
    "QKD-APP-TYPES": frozenset({"CLIENT", "INTERNAL"}),
    "LINK-STATUS-TYPES": frozenset({"ACTIVE", "PASSIVE", "PENDING", "OFF"}),
    "IFACE-STATUS-TYPES": frozenset({"ENABLED", "DISABLED", "FAILED"}),
    "APP-STATUS-TYPES": frozenset({"ON", "DISCONNECTED", "OUT-OF-TIME", "ZOMBIE"}),
    "SEVERITY-TYPES": frozenset({"MAJOR", "MINOR"}),
}
"""The identities by their base, without the prefix of their module."""


class Leaf(msgspec.Struct, frozen=True):
    """One value, or with ``many`` a list of them. ``type`` is a YANG type, or the base of an identity."""

    type: str
    writable: bool = False
    many: bool = False


class Branch(msgspec.Struct, frozen=True):
    """A container, or with a ``key`` (names of leaves) a list of entries which those tell apart."""

    children: Mapping[str, "Leaf | Branch"]
    key: str = ""


END = Branch({"qkdn_id": Leaf("uuid"), "qkdi_id": Leaf("uint32")})
QOS = Branch({"max_bandwidth": Leaf("uint32"), "min_bandwidth": Leaf("uint32"), "ttl": Leaf("uint32")})
APPLICATION = Branch(
    {
        "app_id": Leaf("uuid"),
        "app_status": Leaf("APP-STATUS-TYPES"),
        "app_type": Leaf("QKD-APP-TYPES"),
        "server_app_id": Leaf("uri"),
        "client_app_id": Leaf("uri", many=True),
        "app_priority": Leaf("uint32"),
        "app_qos": QOS,
        "backing_qkdl_id": Leaf("uuid", many=True),
        "local_qkdn_id": Leaf("uuid"),
        "remote_qkdn_id": Leaf("uuid"),
    },
    key="app_id",
)
INTERFACE = Branch(
    {
        "qkdi_id": Leaf("uint32"),
        "qkdi_model": Leaf("string"),
        "qkdi_type": Leaf("QKD-TECHNOLOGY-TYPES"),
        "qkdi_status": Leaf("IFACE-STATUS-TYPES"),
    },
    key="qkdi_id",
)
PERFORMANCE = Branch({"expected_consumption": Leaf("uint32"), "skr": Leaf("uint32"), "eskr": Leaf("uint32")})
LINK = Branch(
    {
        "qkdl_id": Leaf("uuid"),
        "qkdl_status": Leaf("LINK-STATUS-TYPES"),
        "qkdl_enable": Leaf("boolean", writable=True),
        "qkdl_local": END,
        "qkdl_remote": END,
        "qkdl_type": Leaf("QKD-LINK-TYPES"),
        "qkdl_applications": Leaf("uuid", many=True),
        "qkdl_performance": PERFORMANCE,
    },
    key="qkdl_id",
)
CAPABILITIES = Branch(
    {
        "link_stats_support": Leaf("boolean"),
        "application_stats_support": Leaf("boolean"),
        "key_relay_mode_enable": Leaf("boolean"),
    }
)
QKD_NODE = Branch(
    {
        "qkdn_id": Leaf("uuid"),
        "qkdn_status": Leaf("QKDN-STATUS-TYPES"),
        "qkdn_version": Leaf("string"),
        "qkdn_location_id": Leaf("string"),
        "qkdn_capabilities": CAPABILITIES,
        "qkd_applications": Branch({"qkd_app": APPLICATION}),
        "qkd_interfaces": Branch({"qkd_interface": INTERFACE}),
        "qkd_links": Branch({"qkd_link": LINK}),
    }
)

MODULES_STATE = Branch(
    {
        "module-set-id": Leaf("string"),
        "module": Branch(
            {
                "name": Leaf("string"),
                "revision": Leaf("string"),
                "namespace": Leaf("uri"),
                "conformance-type": Leaf("string"),
                "deviation": Branch({"name": Leaf("string"), "revision": Leaf("string")}, "name revision"),
            },
            key="name revision",
        ),
    }
)
STREAM = Branch(
    {
        "name": Leaf("string"),
        "description": Leaf("string"),
        "replay-support": Leaf("boolean"),
        "replay-log-creation-time": Leaf("date-and-time"),
        "access": Branch({"encoding": Leaf("string"), "location": Leaf("uri")}, key="encoding"),
    },
    key="name",
)
RESTCONF_STATE = Branch(
    {
        "capabilities": Branch({"capability": Leaf("uri", many=True)}),
        "streams": Branch({"stream": STREAM}),
    }
)

DATA = Branch(
    {
        f"{MODULE}:qkd_node": QKD_NODE,
        "ietf-yang-library:modules-state": MODULES_STATE,
        "ietf-restconf-monitoring:restconf-state": RESTCONF_STATE,
    }
)
"""The whole datastore: its top nodes with the module that defines each."""


def identity(base: str, name: str) -> str:
    """Return an identity as RFC 7951 writes it, with the module that defines it.

    >>> identity("QKD-LINK-TYPES", "PHYS")
    'etsi-qkd-node-types:PHYS'
    """
    if name not in IDENTITIES[base]:
        raise ValueError(f"{name} is no {base}; expected one of {sorted(IDENTITIES[base])}")
    return f"{TYPES}:{name}"
