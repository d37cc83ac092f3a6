"""Which processes train one run together, on one host or many: as a launcher says in the environment, or as typed.

Nothing here imports JAX before there is more than one process.
"""

import os
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from glob import glob
from importlib.util import find_spec
from typing import NamedTuple

from charlstm.support.errors import InputError
from charlstm.support.files import one_line

BY_HAND = "--coordinator-address HOST:PORT --num-processes N --process-id I"
PATIENCE = 300
"""Seconds that processes wait for each other at the start."""
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
"""All that JAX needs to find a step of Slurm's."""


class Launcher(NamedTuple):
    """What started this process as one of several."""

    name: str
    method: str | None = None
    """The `cluster_detection_method` with which JAX finds the others, unless it does so by itself."""


@dataclass(frozen=True)
class Place:
    """A process among those that train together."""

    address: str
    """HOST:PORT, where process 0 listens."""
    count: int
    number: int
    launcher: str = ""
    """Its name; empty for processes that were started by hand."""
    devices: list[int] | None = None
    """Which of the host's devices it uses; None for all of them."""

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def speaks(self) -> bool:
        """Whether it writes to its standard error: a launcher shows that of all processes at one place."""
        return self.number == 0 or not self.launcher


def launcher() -> Launcher | None:
    """What started this process as one of several, if anything did."""
    if _number("OMPI_COMM_WORLD_SIZE") > 1:  # from version 5 on, Open MPI does not say where process 0 is
        return Launcher("Open MPI", None if "OMPI_MCA_orte_hnp_uri" in os.environ else "mpi4py")
    # The script of an sbatch job has SLURM_NTASKS too, and is one task.
    if all(name in os.environ for name in _SLURM) and _number("SLURM_STEP_NUM_TASKS") > 1:
        return Launcher("Slurm")
    if find_spec("libtpu") and _tpu_hosts() > 1:
        return Launcher("a TPU pod")
    if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys() and find_spec("kubernetes"):
        return Launcher("Kubernetes")
    return None


def find_place(found: Launcher) -> Place:
    """This process's place, as JAX finds it. Raises InputError where it cannot."""
    if found.method and not find_spec(found.method):
        what = f"{found.name} started several processes, and JAX finds them with {found.method}, which is not installed"
        raise InputError(f"{what}; pip install {found.method}, or give {BY_HAND}")
    try:
        # What `jax.distributed.initialize` asks; it does not tell the address, at which our own connections are made.
        from jax._src.clusters import ClusterEnv

        find = ClusterEnv.auto_detect_unset_distributed_params
        address, count, number, devices = find(None, None, None, None, found.method, PATIENCE)
        return Place(str(address), int(count or 1), int(number or 0), found.name, list(devices) if devices else None)
    except Exception as error:  # of any kind: a variable that is missing, a server that does not answer
        what = f"{found.name} started several processes, and JAX does not find them"
        raise InputError(f"{what} ({type(error).__name__}: {one_line(error)}); give {BY_HAND}") from error


def typed_place(address: str | None, count: str | None, number: str | None) -> Place | None:
    """The place that was typed. Raises InputError for one that cannot be; None where none was."""
    if address is None and number is None and count in (None, "1"):
        return None
    if address is None or count is None or number is None:
        raise InputError(f"give all of {BY_HAND}, or none; --num-processes 1 alone trains by itself under a launcher")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"--coordinator-address is {address!r}; it must be HOST:PORT, such as node1:1234")
    for name, value in (("num-processes", count), ("process-id", number)):
        if not value.isdecimal():
            raise InputError(f"--{name} is {value!r}; it must be a whole number")
    if int(number) >= int(count):
        raise InputError(f"--process-id is {number}; of {count} processes it must be 0 to {int(count) - 1}")
    return Place(address, int(count), int(number))


def _number(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else 1


def _tpu_hosts() -> int:
    """How many hosts a TPU slice has: from the environment on GKE, elsewhere from Google's metadata server."""
    names = os.environ.get("TPU_PROCESS_ADDRESSES", os.environ.get("TPU_WORKER_HOSTNAMES"))
    if names is None and "TPU_SKIP_MDS_QUERY" not in os.environ and (glob("/dev/accel*") or glob("/dev/vfio/[0-9]*")):
        server = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
        address = f"http://{server}/computeMetadata/v1/instance/attributes/worker-network-endpoints"
        asked = urllib.request.Request(address, headers={"Metadata-Flavor": "Google"})
        with suppress(OSError), urllib.request.urlopen(asked, timeout=5) as answer:
            names = answer.read(2**16).decode(errors="replace")
    return (names or "").count(",") + 1
