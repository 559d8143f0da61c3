"""What a link can do: a device on a hop, as a quantum link to simulate and as a forecast of its key rate.

:func:`quantum_link` turns what the network says (a device profile, a hop with its loss) into the elements of
:mod:`openqci.quantum`; :func:`forecast` says in closed form what they would yield. The forecast is for
planning and for the figures of hops that rest; no key ever comes from it.

"""

from openqci.links.forecast import LinkForecast, expected_counts, forecast, quantum_link
from openqci.links.ports import DeviceProfile, HopProfile

__all__ = ["DeviceProfile", "HopProfile", "LinkForecast", "expected_counts", "forecast", "quantum_link"]
