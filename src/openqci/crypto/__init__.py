"""The one fenced room for cryptography.

Information-theoretic parts that QKD needs (one-time pad, one-time MAC, secret sharing) and thin, typed uses
of the ``cryptography`` library (sealing at rest, ML-KEM). No other package imports ``cryptography`` except
the TLS and certificate edge.
"""

from openqci.crypto.one_time import ONE_TIME_MAC_KEY_BYTES, TAG_BYTES, equal, one_time_mac, one_time_pad

__all__ = ["ONE_TIME_MAC_KEY_BYTES", "TAG_BYTES", "equal", "one_time_mac", "one_time_pad"]
