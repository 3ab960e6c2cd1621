"""One mapping of a per-device step over devices: `pmap` over all of this process's devices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

AXIS = "devices"


class Parallel:
    """Runs a per-device function on every device, with collectives over the axis `AXIS`.

    Attributes:
      devices: the devices of this process.
      count: devices of all processes.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        self.devices = list(devices if devices is not None else jax.local_devices())
        self.count = len(self.devices) * jax.process_count()

    def map(self, function: Callable, *, donate_state: bool = False) -> Callable:
        """`(replicated, sharded, replicated) -> …` with a leading device axis, compiled.

        Args:
          function: `(state, batch, key) -> …`, per device.
          donate_state: let the result take the state's memory; the old state is then gone.
        """
        return jax.pmap(
            function,
            axis_name=AXIS,
            devices=self.devices,
            in_axes=(0, 0, None),
            donate_argnums=(0,) if donate_state else (),
        )

    def replicate(self, tree: Any) -> Any:
        """A copy of `tree` on every device."""
        stacked = jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * len(self.devices)), tree)
        return self._put(stacked)

    def shard(self, batch: Any) -> Any:
        """Splits the leading axis of `batch` over the devices.

        Raises:
          ValueError: the batch does not split evenly.
        """
        return self._put(jax.tree.map(self._split, batch))

    def first(self, tree: Any) -> Any:
        """The copy on the first device, as NumPy arrays."""
        return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_shards[0].data)[0], tree)

    def join(self, tree: Any) -> Any:
        """Leaves `[D, B, …]`, from the devices of this process, as NumPy arrays `[D · B, …]`."""

        def joined(leaf):
            shards = sorted(leaf.addressable_shards, key=lambda shard: shard.index[0].start or 0)
            return np.concatenate([np.asarray(shard.data)[0] for shard in shards])

        return jax.tree.map(joined, tree)

    def _split(self, leaf: np.ndarray) -> np.ndarray:
        devices = len(self.devices)
        if leaf.shape[0] % devices:
            raise ValueError(
                f"training.batch_size: {leaf.shape[0]} examples do not split over {devices} devices"
            )
        return leaf.reshape(devices, -1, *leaf.shape[1:])

    def _put(self, stacked: Any) -> Any:
        mesh = jax.sharding.Mesh(np.array(self.devices), (AXIS,))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
        return jax.tree.map(lambda leaf: jax.device_put(leaf, sharding), stacked)
