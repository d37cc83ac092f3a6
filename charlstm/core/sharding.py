"""Devices share the rows of a batch: each has rows and a carry of its own, and all hold the same parameters.

XLA partitions one program for this layout (Xu et al. 2021, GSPMD), so there is one step, and gradients meet in one sum.
A random number follows from its key and its place in the array, so that dropout masks are the same on one device and on
eight (`jax_threefry_partitionable`); what differs is the order of sums, and with it the last bits of a loss.

A layout is of one process's devices, on one host with its cards or chips, or of all processes that `jax.distributed`
joined. GPUs and TPUs are unmeasured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

ROWS = "rows"  # the mesh's only axis


@dataclass(frozen=True)
class Layout:
    """Devices in a row, and where arrays lie on them."""

    mesh: Mesh

    @classmethod
    def of(cls, rows: int, *, every_process: bool = False) -> "Layout":
        """As many devices as share `rows` evenly, of this process or equally many of each; the others stay idle.

        Each process has consecutive rows. Raises ValueError where processes cannot share the rows evenly.
        """
        groups = [jax.local_devices()]
        if every_process:
            groups = [[each for each in jax.devices() if each.process_index == at] for at in range(jax.process_count())]
        if rows % len(groups):
            raise ValueError(f"{len(groups)} processes cannot share {rows:,} rows evenly")
        least, own = min(map(len, groups)), rows // len(groups)
        count = max(number for number in range(1, least + 1) if own % number == 0)
        devices = [device for group in groups for device in group[:count]]
        return cls(Mesh(np.array(devices), (ROWS,), axis_types=(AxisType.Auto,)))

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
    def own_mesh(self) -> Mesh | None:
        """`shared_mesh` where all its devices are of this process."""
        return self.shared_mesh if self.processes == 1 else None

    @property
    def devices(self) -> int:
        """How many devices compute."""
        return self.mesh.size

    @property
    def processes(self) -> int:
        """How many processes these devices belong to."""
        return len({device.process_index for device in self.mesh.devices.flat})

    def own(self, rows: int) -> slice:
        """Which of so many rows are this process's."""
        count = rows // self.processes
        start = jax.process_index() * count if self.processes > 1 else 0
        return slice(start, start + count)

    def _sharding(self, spec: PartitionSpec) -> NamedSharding | None:
        # On a machine with one device nothing is said, so that nothing is compiled again for saying it.
        return NamedSharding(self.mesh, spec) if jax.local_device_count() > 1 or self.processes > 1 else None


def spread(matrices: Any, mesh: Mesh | None) -> Any:
    """A tree of matrices, of which each device of the mesh has some rows where they share them evenly."""
    if mesh is None:
        return matrices
    by_rows = NamedSharding(mesh, PartitionSpec(ROWS))

    def of(matrix: Array) -> Array:
        return lax.with_sharding_constraint(matrix, by_rows) if len(matrix) % mesh.size == 0 else matrix

    return jax.tree.map(of, matrices)


OfRows = Callable[[Any, Array, Any], tuple[Any, Any]]
"""A tree that all rows share, a key, and a tree of [B, ...], to a tree that is a mean over rows and one of [B, ...]."""


def over_groups(function: OfRows, groups: int, mesh: Mesh | None, *, in_order: bool) -> OfRows:
    """`function` of one group of rows after the other, as a function of all rows, each group with a key of its own.

    Args:
        function: of the rows of one group, on one device.
        groups: of equally many rows each, G; the devices of the mesh share them evenly.
        mesh: the devices; None where one has all rows.
        in_order: add the groups' means in one order, so that their sum has the same bits for any number of devices, in
            the memory of G means. Otherwise each device adds its own, and the devices' sums are added.
    """
    here = groups // (1 if mesh is None else mesh.size)

    def add(total: Any, found: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, found), None

    def on_one_device(shared: Any, key: Array, rows: Any) -> tuple[Any, Any]:
        numbers = jnp.arange(here) + (0 if mesh is None else here * lax.axis_index(ROWS))
        parts = jax.tree.map(lambda each: each.reshape(here, -1, *each.shape[1:]), rows)

        def one(total: Any, group: tuple[Array, Any]) -> tuple[Any, Any]:
            found, after = function(shared, jax.random.fold_in(key, group[0]), group[1])
            return (total, (found, after)) if in_order else (add(total, found)[0], (None, after))

        form = jax.eval_shape(function, shared, key, jax.tree.map(lambda each: each[0], parts))[0]
        zero = jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), form)
        total, (found, after) = lax.scan(one, zero, (numbers, parts))
        if mesh is not None:
            found = lax.all_gather(found, ROWS, tiled=True) if in_order else None
            total = total if in_order else lax.psum(total, ROWS)
        if in_order:
            total, _ = lax.scan(add, zero, found)
        after = jax.tree.map(lambda each: each.reshape(-1, *each.shape[2:]), after)
        return jax.tree.map(lambda each: each / groups, total), after

    if mesh is None:
        return on_one_device
    rows, whole = PartitionSpec(ROWS), PartitionSpec()
    how: Any = {"in_specs": (whole, whole, rows), "out_specs": (whole, rows), "check_vma": False}
    return jax.shard_map(on_one_device, mesh=mesh, **how)
