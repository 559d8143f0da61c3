"""The whole network on simulated time: every hop makes its key for real, only the photons are simulated.

:mod:`openqci.twin.block` makes one block of one hop, from photons to secret bits at both ends; it is what a
worker process runs. :mod:`openqci.twin.hops` keeps the figures of every hop and says which may work next,
:mod:`openqci.twin.faults` what a person has broken, and what follows.
The shell with its processes, sockets and clocks is ``openqci.cli.up``.
"""
