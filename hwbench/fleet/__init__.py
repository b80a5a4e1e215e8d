"""Many devices on many hosts, as one Dask cluster: who has devices runs a worker that lends them.

A client sends blocks of work, architectures by name or models as files, and stores what comes back:
nobody else writes.
Dask's own protocol carries Python objects, so it stays on this machine or inside TLS.
"""
