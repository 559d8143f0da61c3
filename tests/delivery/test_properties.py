"""What holds for every request and every order of requests (invariants I1 and I2)."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import KeyUnavailable, RequestRefused
from openqci.core.identifiers import KeyId
from openqci.delivery import SaeDirectory, etsi014
from openqci.delivery.etsi014_model import (
    KEY_SIZE_BITS_MAX,
    KEY_SIZE_BITS_MIN,
    KEYS_PER_REQUEST_MAX,
    KeyIdsRequest,
    KeyRequest,
    key_ids_from_body,
    key_ids_from_query,
    key_request_from_body,
    key_request_from_query,
)
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView
from tests.delivery.make import ALICE, BOB, LISBON, WARSAW, identity, key_bytes, network, stock_pair

MEMBERS = ("number", "size", "additional_slave_SAE_IDs", "extension_mandatory", "extension_optional")
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def refused_or_sane(request: KeyRequest) -> None:
    assert type(request.number) is int and 1 <= request.number <= KEYS_PER_REQUEST_MAX
    assert KEY_SIZE_BITS_MIN <= request.size_bits <= KEY_SIZE_BITS_MAX and request.size_bits % 8 == 0


@given(st.dictionaries(st.sampled_from((*MEMBERS, "other")), values, max_size=4))
def test_any_key_request_is_sane_or_refused(members: dict[str, Any]) -> None:
    try:
        refused_or_sane(key_request_from_body(json.dumps(members).encode()))
    except RequestRefused as refused:
        assert refused.status == 400


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    for parse in (key_request_from_body, key_ids_from_body):
        try:
            parse(body)
        except RequestRefused as refused:
            assert refused.status == 400


@given(st.text(alphabet="numbersizkey_ID=&%0123456789-+;", max_size=40))
def test_any_query_is_a_request_or_refused(query: str) -> None:
    for parse in (key_request_from_query, key_ids_from_query):
        try:
            parse(query)
        except RequestRefused as refused:
            assert refused.status == 400


class Pair:
    """Both ends of one pair, and a book of what they got."""

    def __init__(self) -> None:
        self.store: MemoryKeyStore = network()
        self.stocked = b""
        self.made: dict[KeyId, bytes] = {}
        self.fetched: dict[KeyId, bytes] = {}

    def stock(self, length_bytes: int) -> None:
        key = key_bytes(length_bytes)
        self.store.submit(lambda tx: stock_pair(tx, key)).result()
        self.stocked += key

    def enc_keys(self, number: int, size_bits: int) -> None:
        request = KeyRequest(number, size_bits)
        try:
            delivery = self.store.submit(
                lambda tx: etsi014.get_key(
                    KmeView(tx, LISBON), SaeDirectory(tx), identity(ALICE), BOB, request
                )
            ).result()
        except KeyUnavailable:
            return
        for one in delivery.keys:
            assert one.key_id not in self.made
            self.made[one.key_id] = bytes(one.key.reveal())

    def dec_keys(self, choices: list[int]) -> None:
        known = list(self.made)
        key_ids = tuple(dict.fromkeys(known[choice % len(known)] for choice in choices)) if known else ()
        if not key_ids:
            return
        try:
            delivery = self.store.submit(
                lambda tx: etsi014.get_key_with_key_ids(
                    KmeView(tx, WARSAW), SaeDirectory(tx), identity(BOB), ALICE, KeyIdsRequest(key_ids)
                )
            ).result()
        except RequestRefused:
            assert set(key_ids) & set(self.fetched), "only a delivered key is refused"
            return
        assert not set(key_ids) & set(self.fetched), "no key comes twice"
        self.fetched |= {one.key_id: bytes(one.key.reveal()) for one in delivery.keys}


steps = st.one_of(
    st.tuples(st.just("stock"), st.integers(1, 300)),
    st.tuples(st.just("enc_keys"), st.integers(1, 6), st.sampled_from([64, 72, 128, 256])),
    st.tuples(st.just("dec_keys"), st.lists(st.integers(0, 50), min_size=1, max_size=5)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=25))
def test_every_key_once_per_end_and_alike_whatever_the_order(work: list[tuple[Any, ...]]) -> None:
    pair = Pair()
    pair.stock(100)
    for verb, *arguments in work:
        getattr(pair, verb)(*arguments)
    assert all(pair.made[key_id] == key for key_id, key in pair.fetched.items())
    assert all(key in pair.stocked for key in pair.made.values())
    assert len(set(pair.made.values())) == len(pair.made)
    assert sum(map(len, pair.made.values())) <= len(pair.stocked)
    rest = [key_id for key_id in pair.made if key_id not in pair.fetched]
    for index in range(len(rest)):
        pair.dec_keys([list(pair.made).index(rest[index])])
    assert pair.fetched == pair.made, "what the master got, the slave can get"
