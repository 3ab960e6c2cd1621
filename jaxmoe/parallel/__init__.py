"""Devices: a mesh of them, what of a model lies where, and one step mapped over all.

A step is a pure function of one device's share. It reduces over named axes (`Axes`), and `Shards`
says which parts of the params it holds. `make_parallel` maps it over a mesh by `shard_map`, or over
the devices of one process by `pmap`; the results are the same.
"""

from jaxmoe.parallel import hosts
from jaxmoe.parallel.axes import DATA, EXPERT, Axes
from jaxmoe.parallel.mapping import Mapped, Parallel, make_parallel
from jaxmoe.parallel.mesh import MeshParallel
from jaxmoe.parallel.pmap import PmapParallel
from jaxmoe.parallel.shards import Shards, layout, of_experts
from jaxmoe.parallel.spread import Spread

__all__ = [
    "DATA",
    "EXPERT",
    "Axes",
    "Mapped",
    "MeshParallel",
    "Parallel",
    "PmapParallel",
    "Shards",
    "Spread",
    "hosts",
    "layout",
    "make_parallel",
    "of_experts",
]
