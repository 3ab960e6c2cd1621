"""How long a program would take: a model with few assumptions, each of which is printed.

n = devices, m = devices that are joined directly, V = bytes of a whole array.
"""

import dataclasses
import math

from jaxmoe.parallel.hardware import Chip
from jaxmoe.runs.plan.count import Counted

SCALES = tuple(2**i for i in range(11))  # 1 to 1,024 devices


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What a cost model has to take for granted.

    Attributes:
      utilization: share of the peak FLOP/s that convolutions and matmuls reach.
      link_share: share of the links' and the network's bandwidth that collectives reach; a slice
        that is no whole ring uses half of its links.
    """

    utilization: float = 0.3
    link_share: float = 0.5


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds of one step.

    Attributes:
      compute: of convolutions and matmuls.
      memory: of reading and writing what these read and write.
      communication: of collectives, none of which is hidden behind computation.
      step: the longer of the first two, plus the third.
    """

    compute: float
    memory: float
    communication: float
    step: float


def time_of(counted: Counted, chip: Chip, devices: int, expert: int, assumed: Assumptions) -> Time:
    """Returns how long one run of a program takes, from what one device does in it."""
    compute = sum(flops / chip.flops[name] for name, flops in counted.flops.items())
    compute /= assumed.utilization
    memory = counted.traffic / chip.bandwidth
    sent = 0.0
    for (kind, _), size in counted.collectives.items():
        over = min(devices, expert) if kind == "all-to-all" else devices
        sent += collective_seconds(kind, size, over, chip, assumed)
    return Time(compute, memory, sent, max(compute, memory) + sent)


def collective_seconds(
    kind: str, size: float, devices: int, chip: Chip, assumed: Assumptions
) -> float:
    """Returns the seconds of a collective on V bytes by rings, latency left out.

    An all-reduce sends 2 V (n − 1) / n bytes, others half of that. Where n > m, each device first
    takes part within its m, then sends V / m bytes to the others' counterparts.
    """
    twice = 2 if kind == "all-reduce" else 1
    joined = min(devices, chip.together)
    groups = math.ceil(devices / joined)
    inside = twice * size * (joined - 1) / joined / (chip.link * assumed.link_share)
    across = size / joined * twice * (groups - 1) / groups
    return inside + across / (chip.network * assumed.link_share)


def efficiencies(
    counted: Counted, chip: Chip, expert: int, assumed: Assumptions
) -> dict[int, float]:
    """Returns the share of one device's speed that each of n has, its batch the same."""
    alone = time_of(counted, chip, 1, 1, assumed).step
    return {
        n: alone / time_of(counted, chip, n, expert, assumed).step for n in SCALES if n >= expert
    }
