"""Ground stations: the catalogue's, with climate and sky, and a mission's own."""

import pytest

from openqci.links.ground import catalogue_stations, ground_station, stations_of
from openqci.links.missions import mission
from openqci.network.catalogue import catalogue_sites
from openqci.network.catalogue.climate import catalogue_climate, catalogue_overseas
from openqci.space.sky_light import TOWNS


def test_every_station_of_the_catalogue_has_a_climate_and_a_sky():
    wanted = {site.id for site in catalogue_sites() if site.kind in ("ground_station", "overseas_node")}
    assert set(catalogue_stations()) == wanted == set(catalogue_climate())
    assert sum(name.startswith("ogs-") for name in wanted) == 51
    for station in catalogue_stations().values():
        assert station.sky in TOWNS
        assert len(station.turbidity_by_month) == 12 and min(station.turbidity_by_month) > 1
        assert 0 < station.cloud_probability < 1


def test_overseas_territories_know_their_next_station():
    territories = catalogue_overseas()
    assert len(territories) == 22 and sum(each.eu_status == "OR" for each in territories) == 9
    assert all(each.nearest_candidate_ogs in catalogue_stations() for each in territories)
    assert {each.id for each in territories} <= set(catalogue_stations())


def test_a_place_of_a_mission():
    station = ground_station("delingha", mission("micius"))
    assert (station.altitude_m, station.linke_turbidity(1), station.sky) == (3153.0, None, "rural")
    # The catalogue stays within reach.
    assert ground_station("ogs-helmos", mission("micius")).linke_turbidity(6) == 5.2


def test_stations_as_arrays():
    stations = stations_of([ground_station("ogs-tenerife"), ground_station("ogs-maido")])
    assert stations.names == ("ogs-tenerife", "ogs-maido")
    assert stations.latitudes_deg == pytest.approx([28.3009, -21.0796])
