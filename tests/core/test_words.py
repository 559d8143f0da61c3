"""Names of streams and KMEs, detection records and provenance: what all stages agree on."""

import dataclasses
import string

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.detections import X_BASIS, Z_BASIS, DetectionRecord, EmissionRecord
from openqci.core.identifiers import LinkId, SiteId, authentication_stream, kme_of_site, link_stream
from openqci.core.keys import StoredRange
from openqci.core.provenance import Provenance

NAMES = st.text(string.ascii_lowercase + string.digits + "-.", min_size=1, max_size=40)
"""What the scenario schema lets nodes and hops be called; no slash."""


@given(NAMES, NAMES, NAMES, NAMES)
def test_streams_of_different_links_or_initiators_never_share_a_name(
    link: str, site: str, other_link: str, other_site: str
) -> None:
    one, two = link_stream(LinkId(link), SiteId(site)), link_stream(LinkId(other_link), SiteId(other_site))
    assert (one == two) == ((link, site) == (other_link, other_site))
    assert authentication_stream(LinkId(link)) != one


def test_names_as_they_stand_in_a_store() -> None:
    """Data directories hold these names: another spelling would lose the keys of every network."""
    link, lisbon = LinkId("pt-evora--pt-lisbon.2"), SiteId("pt-lisbon")
    assert kme_of_site(lisbon) == "kme-pt-lisbon"
    assert link_stream(link, lisbon) == "link/pt-evora--pt-lisbon.2/pt-lisbon"
    assert authentication_stream(link) == "auth/pt-evora--pt-lisbon.2"


def test_the_key_basis_is_z() -> None:
    assert (Z_BASIS, X_BASIS) == (0, 1)


@pytest.mark.parametrize(
    "record",
    [
        EmissionRecord(np.arange(3), *(np.zeros(3, np.uint8) for _ in range(3)), pulses=10),
        DetectionRecord(np.arange(3), *(np.zeros(3, np.uint8) for _ in range(2)), double_clicks=0),
        StoredRange(link_stream(LinkId("l"), SiteId("s")), 0, 32),
    ],
)
def test_records_are_frozen(record: object) -> None:
    name = dataclasses.fields(record)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, None)


def test_provenance_survives_the_wire() -> None:
    made = Provenance(
        route=("pt-lisbon", "pt-evora"),
        links=("pt-evora--pt-lisbon.1",),
        hops=1,
        protocols=("decoy-state BB84",),
        proofs=("rusca-2018",),
        epsilon=1.1e-9,
        form="hop-by-hop one-time pad",
        simulated=True,
        made_at_s=1.5,
    )
    assert msgspec.json.decode(msgspec.json.encode(made), type=Provenance) == made
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Provenance) == made
