"""The cloud climate of the catalogue's stations: yearly means kept, seasons as the file says."""

import numpy as np
import pytest

from openqci.core.errors import ConfigurationError
from openqci.links.clouds import cloud_climate, with_cloud_probability
from openqci.links.ground import catalogue_stations, ground_station
from openqci.links.missions import mission
from openqci.network.catalogue.climate import catalogue_cloud_seasons

GROUND = list(catalogue_stations().values())


def test_yearly_means_are_those_of_the_catalogue():
    climate = cloud_climate(GROUND)
    assert climate.probability_by_month.mean(axis=1) == pytest.approx(
        [each.cloud_probability for each in GROUND], abs=1e-9
    )
    assert ((climate.probability_by_month > 0) & (climate.probability_by_month < 1)).all()


def test_seasons():
    helmos, stockholm, nuuk = (
        cloud_climate([ground_station(each)]).probability_by_month[0]
        for each in ("ogs-helmos", "ogs-stockholm", "ov-nuuk")
    )
    assert helmos[6] < 0.5 * helmos[0], "a dry summer in Greece"
    assert stockholm.argmax() == 11 and stockholm.argmin() == 5
    assert np.ptp(nuuk) == pytest.approx(0.0, abs=1e-9)


def test_every_assumption_says_that_it_is_one():
    seasons = catalogue_cloud_seasons()
    figures = [seasons.persistence_h, seasons.distance_km]
    for pattern in seasons.patterns:
        figures += [pattern.rain_exponent, pattern.winter_amplitude]
    assert {each.source for each in figures} == {"assumed"} and {each.confidence for each in figures} == {
        "low"
    }


def test_stations_without_a_climate_are_named_not_guessed():
    micius = mission("micius")
    places = [ground_station("xinglong", micius), ground_station("ogs-helmos")]
    with pytest.raises(ConfigurationError, match="no cloud climate of xinglong; expected stations of"):
        cloud_climate(places)
    given = with_cloud_probability(places, 0.3)
    assert given[0].cloud_probability == 0.3 and given[1] is places[1]
    assert cloud_climate(given).probability_by_month[0].mean() == pytest.approx(0.3)
