"""Devices share the rows of a batch: each has rows and a carry of its own, and all hold the same parameters.

XLA partitions one program for this layout (Xu et al. 2021, GSPMD), so there is one step, and gradients meet in one sum.
A random number follows from its key and its place in the array, so that dropout masks are the same on one device and on
eight (`jax_threefry_partitionable`); what differs is the order of sums, and with it the last bits of a loss.

Only the devices of one process are used: one host with its cards or chips. GPUs and TPUs are unmeasured.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

ROWS = "rows"  # the mesh's only axis


@dataclass(frozen=True)
class Layout:
    """Devices in a row, and where arrays lie on them."""

    mesh: Mesh

    @classmethod
    def of(cls, rows: int) -> "Layout":
        """As many devices as share `rows` evenly; the others stay idle."""
        devices = jax.local_devices()
        count = max(number for number in range(1, len(devices) + 1) if rows % number == 0)
        return cls(Mesh(np.array(devices[:count]), (ROWS,), axis_types=(AxisType.Auto,)))

    @property
    def rows(self) -> Any:
        """Of an array whose first axis is B: an equal part on each device."""
        return self._sharding(PartitionSpec(ROWS))

    @property
    def whole(self) -> Any:
        """Of everything else: a copy on each device."""
        return self._sharding(PartitionSpec())

    @property
    def shared_mesh(self) -> Mesh | None:
        """The mesh where several devices share the rows; None where one has them all."""
        return self.mesh if self.devices > 1 else None

    @property
    def devices(self) -> int:
        """How many devices compute."""
        return self.mesh.size

    def _sharding(self, spec: PartitionSpec) -> NamedSharding | None:
        # On a machine with one device nothing is said, so that nothing is compiled again for saying it.
        return NamedSharding(self.mesh, spec) if jax.local_device_count() > 1 else None
