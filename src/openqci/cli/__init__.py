"""The ``openqci`` command line: the composition root, where models are plugged into services."""
