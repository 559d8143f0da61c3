"""Words shared by every stage of a key's way: identifiers, secret buffers, errors, provenance.

Nothing here knows a protocol, a file or a clock. Read :mod:`openqci.core.keys` for the one type that
each stage of a key has, and :mod:`openqci.core.errors` for who has to act on which error.
"""
