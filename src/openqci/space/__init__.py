"""The free-space way of a photon: from a satellite's telescope down to a receiver on the ground."""
