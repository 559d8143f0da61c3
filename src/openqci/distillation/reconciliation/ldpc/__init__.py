"""Error correction in one message: rate-adaptive LDPC codes of our own.

For links on which a round trip is long: satellites, long or store-and-forward classical channels. The codes
are text in ``codes``; :mod:`.ladder` reads them.
"""
