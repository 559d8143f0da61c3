"""Secret bytes at rest: key streams of one KME, addressed by offset, spent exactly once.

:mod:`openqci.keystore.ports` says what a store offers; :mod:`openqci.keystore.ledger` holds the rules that
keep a byte from being spent twice, over any database. The SQLite shell lives in ``openqci.services``.
"""
