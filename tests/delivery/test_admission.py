"""Quotas and forecasts: nobody beyond its share, and no promise that was not measured (I9)."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import RequestRefused
from openqci.delivery.admission import KNOWN_AFTER_S, FadingRate, Forecast, Quota
from openqci.delivery.etsi014_model import KeyRequest
from openqci.services.kme import KmeService, OwnQuotas
from tests.delivery.make import ALICE, BOB, LISBON, key_bytes, stock_pair
from tests.services.test_kme_server import identity, network


@given(
    rate=st.floats(1, 1e6),
    burst=st.floats(1, 1e6),
    asks=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 10_000)), max_size=60),
)
def test_no_window_gets_more_than_burst_and_rate(
    rate: float, burst: float, asks: list[tuple[float, int]]
) -> None:
    quota, now_s, granted = Quota(rate, burst), 0.0, 0
    for wait_s, bits in asks:
        now_s += wait_s
        if quota.take(bits, now_s) == 0.0:
            granted += bits
    assert granted <= burst + rate * now_s + 1e-3


@given(rate=st.floats(1, 1e6), burst=st.floats(10, 1e6), bits=st.integers(1, 1000))
def test_who_waits_as_told_gets_it(rate: float, burst: float, bits: int) -> None:
    quota = Quota(rate, burst)
    quota.take(int(burst), 0.0)
    wait_s = quota.take(bits, 0.0)
    if math.isinf(wait_s):
        assert bits > burst
    else:
        assert quota.take(bits, wait_s * (1 + 1e-9) + 1e-6) == 0.0


def test_a_steady_rate_is_told_as_it_is() -> None:
    rate = FadingRate()
    for second in range(200):
        rate.add(500.0, float(second))
    assert rate.per_second(200.0) == pytest.approx(500.0, rel=0.02)


def test_a_rate_fades_and_is_unknown_at_first() -> None:
    rate = FadingRate()
    rate.add(1000.0, 0.0)
    assert rate.per_second(KNOWN_AFTER_S / 2) is None
    soon, later = rate.per_second(60.0), rate.per_second(600.0)
    assert soon is not None and later is not None and later < soon / 50


def test_a_forecast_of_a_stock() -> None:
    forecast = Forecast()
    assert forecast.time_to_empty_s(1000, 0.0) is None
    assert forecast.retry_after_s(1000, 0.0) == 1
    for second in range(100):
        forecast.consumed.add(300.0, float(second))
        forecast.produced.add(100.0, float(second))
    assert forecast.time_to_empty_s(20_000, 100.0) == pytest.approx(100.0, rel=0.05)
    assert forecast.retry_after_s(1000, 100.0) == pytest.approx(10, abs=1)
    growing = Forecast(forecast.consumed, forecast.produced)
    assert growing.time_to_empty_s(20_000, 100.0) == math.inf


def test_an_application_beyond_its_quota_is_refused_and_others_are_not() -> None:
    store = network()
    service = KmeService(store, wait_s=0.0)
    service.quotas = OwnQuotas({ALICE: Quota(rate_bps=256.0, burst_bits=512.0)})

    async def scenario() -> None:
        await store.run(lambda tx: stock_pair(tx, key_bytes(640)))
        ask = KeyRequest(number=2)
        assert len((await service.get_key(LISBON, identity(ALICE), BOB, ask)).keys) == 2
        with pytest.raises(RequestRefused) as refused:
            await service.get_key(LISBON, identity(ALICE), BOB, ask)
        assert refused.value.status == 503 and int(refused.value.headers["Retry-After"]) == 2
        with pytest.raises(RequestRefused) as refused:
            await service.get_key(LISBON, identity(ALICE), BOB, KeyRequest(number=3))
        assert refused.value.status == 400

    asyncio.run(scenario())


def test_a_request_that_got_nothing_costs_no_quota() -> None:
    service = KmeService(network(), wait_s=0.0)
    service.quotas = OwnQuotas({ALICE: Quota(rate_bps=1.0, burst_bits=256.0)})

    async def scenario() -> None:
        for _ in range(5):
            with pytest.raises(RequestRefused, match="insufficient"):
                await service.get_key(LISBON, identity(ALICE), BOB, KeyRequest())

    asyncio.run(scenario())
