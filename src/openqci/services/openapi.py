"""The OpenAPI description of our ETSI GS QKD 014 interface, made from the structures that serve it.

Published as ``docs/reference/etsi-014.openapi.json``; a test holds the two together, and schemathesis asks
the running server everything that it allows, and much that it does not.
"""

from typing import Any

import msgspec

from openqci import __version__
from openqci.delivery.etsi014_model import (
    LEASE_EXTENSION,
    LEASE_TTL_S,
    LeaseDocument,
    LeaseList,
    LeaseReturn,
    Profile,
    Status,
)
from openqci.services.kme_config import Etsi014Section

JSON = "application/json"
UUID_PATTERN = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"

Document = dict[str, Any]

ERROR: Document = {
    "type": "object",
    "required": ["message"],
    "properties": {
        "message": {"type": "string"},
        "details": {"type": "array", "items": {"type": "object"}},
    },
}


NODE = Etsi014Section().profile()
"""What a node serves if nothing else is configured."""


def openapi(profile: Profile = NODE) -> Document:
    """Return the document, OpenAPI 3.1, for what a KME of this profile serves."""
    leases = profile.leases_per_sae_max > 0
    (_, models) = msgspec.json.schema_components(
        [Status, *((LeaseDocument, LeaseList, LeaseReturn) if leases else ())],
        ref_template="#/components/schemas/{name}",
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenQCI: ETSI GS QKD 014 V1.1.1, key delivery",
            "version": __version__,
            "description": "Mutual TLS; the caller's SAE ID comes from its certificate.",
        },
        "paths": {
            "/api/v1/keys/{slave_SAE_ID}/status": {"get": _operation("Get status", "slave_SAE_ID", "Status")},
            "/api/v1/keys/{slave_SAE_ID}/enc_keys": {
                "get": _operation("Get key", "slave_SAE_ID", "KeyContainer", queries=_key_queries(profile)),
                "post": _operation("Get key", "slave_SAE_ID", "KeyContainer", body="KeyRequest"),
            },
            "/api/v1/keys/{master_SAE_ID}/dec_keys": {
                "get": _operation(
                    "Get key with key IDs", "master_SAE_ID", "KeyContainer", queries=[_key_id_query()]
                ),
                "post": _operation("Get key with key IDs", "master_SAE_ID", "KeyContainer", body="KeyIDs"),
            },
            **(_lease_paths() if leases else {}),
        },
        "components": {
            "schemas": {
                **models,
                "ErrorBody": ERROR,
                "KeyRequest": _key_request(profile),
                "KeyIDs": _key_ids(profile),
                "KeyContainer": _key_container(profile),
                **({"LeaseRequest": _lease_request(profile)} if leases else {}),
            },
            "securitySchemes": {"certificate": {"type": "mutualTLS"}},
        },
        "security": [{"certificate": []}],
    }


def _lease_paths() -> Document:
    """Return the paths of leases: no part of the standard."""
    path = "/api/v1/keys/{slave_SAE_ID}/openqci_leases"
    text = (
        "Extension of OpenQCI, no part of ETSI GS QKD 014: keys that are kept for the caller for a time. "
        f"They are drawn by Get key with {LEASE_EXTENSION} in extension_mandatory."
    )
    one = {"name": "lease_ID", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    grant = _operation("Reserve keys", "slave_SAE_ID", "LeaseDocument", body="LeaseRequest", success="201")
    operations = {
        path: {"get": _operation("List leases", "slave_SAE_ID", "LeaseList"), "post": grant},
        f"{path}/{{lease_ID}}": {
            "get": _operation("Show lease", "slave_SAE_ID", "LeaseDocument", queries=[one]),
            "delete": _operation(
                "Release lease", "slave_SAE_ID", "LeaseReturn", verb="delete", queries=[one]
            ),
        },
    }
    for verbs in operations.values():
        for operation in verbs.values():
            operation["description"] = text
    return operations


def _operation(
    name: str,
    sae: str,
    answer: str,
    *,
    queries: list[Document] | None = None,
    body: str | None = None,
    success: str = "200",
    verb: str = "get",
) -> Document:
    statuses = {
        "400": "the request is wrong, or a key is not found",
        "401": "the caller is not authorised",
        "404": "no such path",
        "405": "the method is not allowed",
        "413": "the body is too long",
        "503": "key is short, or the KME cannot serve now",
    }
    path = {"name": sae, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    operation: Document = {
        "summary": name,
        "operationId": f"{name.replace(' ', '_').lower()}_{'post' if body else verb}",
        "parameters": [path, *(queries or [])],
        "responses": {
            success: _content(name, answer),
            **{status: _content(text, "ErrorBody") for status, text in statuses.items()},
        },
    }
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body}"}
        operation["requestBody"] = {"required": body == "KeyIDs", "content": {JSON: {"schema": schema}}}
    return operation


def _content(text: str, schema: str) -> Document:
    return {"description": text, "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _number(profile: Profile) -> Document:
    return {"type": "integer", "minimum": 1, "maximum": profile.keys_per_request_max, "default": 1}


def _size(profile: Profile) -> Document:
    return {
        "type": "integer",
        "minimum": profile.key_size_bits_min,
        "maximum": profile.key_size_bits_max,
        "multipleOf": 8,
        "default": profile.key_size_bits,
        "description": "bits",
    }


def _key_queries(profile: Profile) -> list[Document]:
    return [
        {"name": "number", "in": "query", "schema": _number(profile)},
        {"name": "size", "in": "query", "schema": _size(profile)},
    ]


def _key_id_query() -> Document:
    schema = {"type": "string", "pattern": UUID_PATTERN}
    return {"name": "key_ID", "in": "query", "required": True, "schema": schema}


def _key_request(profile: Profile) -> Document:
    extensions = {"type": "array", "items": {"type": "object"}}
    slaves = {
        "type": "array",
        "items": {"type": "string", "minLength": 1},
        "maxItems": profile.additional_slaves_max,
        "uniqueItems": True,
    }
    return {
        "type": "object",
        "properties": {
            "number": _number(profile),
            "size": _size(profile),
            "additional_slave_SAE_IDs": slaves,
            "extension_mandatory": extensions,
            "extension_optional": extensions,
        },
    }


def _lease_request(profile: Profile) -> Document:
    members = _key_request(msgspec.structs.replace(profile, keys_per_request_max=profile.lease_keys_max))
    members["properties"]["ttl_s"] = {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": profile.lease_ttl_s_max,
        "default": min(LEASE_TTL_S, profile.lease_ttl_s_max),
        "description": "seconds",
    }
    return members


def _key_ids(profile: Profile) -> Document:
    entry = {
        "type": "object",
        "required": ["key_ID"],
        "properties": {
            "key_ID": {"type": "string", "pattern": UUID_PATTERN},
            "key_ID_extension": {"type": "object"},
        },
    }
    return {
        "type": "object",
        "required": ["key_IDs"],
        "properties": {
            "key_IDs": {
                "type": "array",
                "items": entry,
                "minItems": 1,
                "maxItems": profile.keys_per_request_max,
            },
            "key_IDs_extension": {"type": "object"},
        },
    }


def _key_container(profile: Profile) -> Document:
    key = {
        "type": "object",
        "required": ["key_ID", "key"],
        "properties": {
            "key_ID": {"type": "string", "pattern": UUID_PATTERN},
            "key": {"type": "string", "contentEncoding": "base64"},
            "key_extension": {"type": "object"},
        },
    }
    return {
        "type": "object",
        "required": ["keys"],
        "properties": {
            "keys": {
                "type": "array",
                "items": key,
                "minItems": 1,
                "maxItems": profile.keys_per_request_max,
            },
            "key_container_extension": {"type": "object"},
        },
    }
