"""The daemons around the cores: databases, TLS, HTTP. Thin shells; the rules live in the packages below.

``sqlite_store`` keeps key and records durably, ``data_directory`` is a network's folder on disk, ``pki`` the
test certificate authority, ``kme`` and ``kme_server`` serve ETSI GS QKD 014 over mutual TLS, ``sae_client``
is the application's side.
"""
