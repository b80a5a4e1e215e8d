"""How the parts of a fleet reach each other: addresses, TLS, and a Dask that keeps quiet."""

from __future__ import annotations

import ipaddress
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hwbench.errors import DeviceError, UsageError
from hwbench.fleet.computing import parts

if TYPE_CHECKING:
    from distributed import Client, Security

    from hwbench.fleet.seats import Seats

#: In place of an address: a cluster inside this process, whose messages go through no port.
LOCAL = "local"
#: Files in the folder of ``--tls``: the authority's certificate, one's own, and its key.
TLS_FILES = ("ca.pem", "cert.pem", "key.pem")
#: Beside a device's own a worker has one thread that answers questions about them.
SPARE_THREADS = 1
#: Dask's web server, which is not switched off altogether: it has no pages (``http.routes``).
PAGES = "127.0.0.1:0"
CONNECT_S = 10

#: A host that measures has better things to do than to sample its own threads 100 times a second.
_QUIET = {
    "logging": {"distributed": "critical", "distributed.client": "critical"},
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    # A session's models run in processes of their own: a worker that goes was not ended by them.
    "distributed.scheduler.allowed-failures": 10,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.admin.large-graph-warning-threshold": "1GiB",  # models are sent
}
#: A scheduler that answered once may be busy for a while: a client asks it again. The scheduler
#: itself must not ask again for an answer: to a worker that was killed it would not give up before
#: each of the attempts ran out of time.
_ASKS_AGAIN = {"distributed.comm.retry.count": 3}


def require_dask() -> None:
    """Set Dask up for this process. Raises UsageError where it is not installed."""
    try:
        import dask

        dask.config.set(_QUIET)  # before distributed is imported: it sets up its logging then
        import distributed  # noqa: F401
    except ImportError:
        raise UsageError("a fleet needs Dask: pip install 'hwbench[fleet]'") from None


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine by itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def security(address: str, tls: Path | None) -> Security:
    """What guards an address. Raises UsageError where nothing would, or files are missing.

    Dask's messages can carry code: whoever may send one rules the machine. So beyond this machine
    both sides show a certificate of one authority.
    """
    from distributed import Security

    scheme, host = host_of(address)
    if scheme == "tcp":
        if not is_loopback(host):
            raise UsageError(
                f"{address} would be open to whoever reaches it: beyond this machine a fleet "
                "needs an address tls://HOST:PORT and --tls FOLDER"
            )
        return Security(require_encryption=False)
    if tls is None:
        raise UsageError(f"{address} needs --tls FOLDER, with {', '.join(TLS_FILES)} in it")
    ca, cert, key = (tls / name for name in TLS_FILES)
    for path in (ca, cert, key):
        if not path.is_file():
            raise UsageError(f"--tls {tls}: there is no {path.name} in it")
    roles = ("client", "scheduler", "worker")
    own = {f"tls_{role}_cert": str(cert) for role in roles}
    own |= {f"tls_{role}_key": str(key) for role in roles}
    return Security(require_encryption=True, tls_ca_file=str(ca), **own)


def unusable(tls: Path | None, error: ssl.SSLError) -> UsageError:
    """What to say of certificates that are none."""
    return UsageError(f"--tls {tls}: what lies in it cannot be used ({error})")


def host_of(address: str) -> tuple[str, str]:
    """(scheme, host) of ``tcp://HOST:PORT`` or ``tls://HOST:PORT``; UsageError otherwise."""
    try:
        parts = urlsplit(address)
        alone = address == f"{parts.scheme}://{parts.netloc}" and parts.username is None
        if parts.scheme in ("tcp", "tls") and parts.hostname and parts.port is not None and alone:
            return parts.scheme, parts.hostname
    except ValueError:
        pass
    raise UsageError(f"address {address!r}: write it as tcp://127.0.0.1:8786 or tls://HOST:8786")


def worker_options(seats: Seats, *, computes: bool = False) -> dict[str, Any]:
    """What makes a Dask worker one that lends these devices, and its host's cores as well."""
    from distributed.worker import DEFAULT_EXTENSIONS

    return {
        "resources": {**seats.resources, **parts(computes)},
        "extensions": {**DEFAULT_EXTENSIONS, "hwbench": lambda worker: seats},
        "metrics": {"hwbench": lambda worker: seats.told()},
        "memory_limit": 0,
        "dashboard_address": PAGES,
    }


@contextmanager
def connected(address: str, tls: Path | None) -> Iterator[Client]:
    """A client of the fleet at an address. Raises DeviceError where none answers."""
    require_dask()
    import dask
    from distributed import Client

    dask.config.set(_ASKS_AGAIN)
    guarded = security(address, tls)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a block says which hwbench it is of; that counts
            client = Client(
                address, security=guarded, timeout=CONNECT_S, set_as_default=False, name="hwbench"
            )
    except ssl.SSLError as error:
        raise unusable(tls, error) from error
    except (OSError, TimeoutError) as error:
        raise DeviceError(
            f"no fleet answers at {address}: is `hwbench fleet scheduler` running there, with a "
            "certificate of the same authority?"
        ) from error
    with client:
        yield client


@contextmanager
def local_cluster(seats: Seats) -> Iterator[Client]:
    """A client of a cluster in this process that has these devices. Its messages go through no
    port; Dask's pages, which are empty, are served on loopback.
    """
    require_dask()
    from distributed import Client, LocalCluster

    options = worker_options(seats)
    threads = int(sum(seats.resources.values())) + SPARE_THREADS
    pages = options.pop("dashboard_address")
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            processes=False,
            dashboard_address=pages,
            worker_dashboard_address=pages,
            **options,
        ) as cluster,
        Client(cluster, set_as_default=False, name="hwbench") as client,
    ):
        yield client
