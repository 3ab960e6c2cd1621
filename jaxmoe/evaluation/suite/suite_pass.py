"""The clean pass of a suite: its row, and what attacks and checks compare with.

Axes: N = valid clips, K = classes, M = experts.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxmoe.evaluation.engine.kept import Kept, frames_of, join_kept
from jaxmoe.evaluation.engine.probes import Probes
from jaxmoe.evaluation.engine.programs import Programs
from jaxmoe.evaluation.engine.rows import CLEAN, Check, Row
from jaxmoe.evaluation.engine.scoring import Outputs
from jaxmoe.evaluation.engine.summary import (
    iou_fields,
    join_confusion,
    join_last,
    join_or_none,
    join_valid,
    mean,
    mean_measures,
    summarize_routing,
)
from jaxmoe.evaluation.suite.clean_pass import CleanPass
from jaxmoe.mixture import Mixture, PartScores

# Bytes of clean outputs that stay on the device; beyond it they are computed anew for each attack.
_KEEP_BELOW = 1 << 29


@dataclasses.dataclass(frozen=True)
class Clean:
    """The clean pass: its row, and what every later pass compares with."""

    row: Row
    correct: np.ndarray  # [N]
    index: np.ndarray  # [N]
    label: np.ndarray
    # One for each batch, with padding: logits and experts on the device, the rest in host memory.
    outputs: list[Outputs]
    batch_indices: list[np.ndarray]
    batch_valid: list[np.ndarray]
    probes: list[dict]  # batches of clips that stand for all, for the checks of masked gradients
    probed: np.ndarray  # where they are in the pass, [n]
    digest: str  # of the batches
    # One for each batch, means over pixels where they have labels; they mark a model in a journal.
    logits: list[np.ndarray]
    confusion: np.ndarray | None  # [N, K, K], where every position has a label
    margin: np.ndarray | None  # [N]
    checks: tuple[Check, ...]  # of the model itself
    parts: PartScores | None  # of a mixture of several experts, [.., N]
    kept: Kept  # [N]
    shape: tuple[int, ...]  # of a batch of clips


class SuitePass(CleanPass):
    """The clean pass of a suite, with what its attacks and checks look at later."""

    def __init__(
        self,
        programs: Programs,
        params: Any,
        attacks: Sequence[str],
        probe_batches: int,
        *,
        checks: bool,
    ):
        """As `CleanPass`; `probe_batches` are kept for the checks of masked gradients."""
        super().__init__(programs, params, attacks, checks=checks)
        self.probes, model = Probes(probe_batches), programs.model
        self.routes = isinstance(model, Mixture) and model.num_experts > 1
        self.outputs: list[Outputs] = []
        self.parts: list[PartScores] = []
        self.measured: list[dict[str, np.ndarray] | None] = []
        self.kept: list[Kept] = []
        self.shape: tuple[int, ...] = ()
        self.kept_bytes = 0

    def add(self, batch: dict[str, np.ndarray]) -> tuple[Outputs, Outputs]:
        """Runs the model on a batch, and each part of it."""
        result, seen = super().add(batch)
        large = result.logits, result.experts
        if self.routes:
            self.parts.append(jax.device_get(self.programs.parts(self.params, batch, result)))
        self.measured.append(jax.device_get(self.programs.measured(batch, result)))
        self.kept_bytes += sum(leaf.nbytes for leaf in jax.tree.leaves(large))
        if self.kept_bytes > _KEEP_BELOW:
            large = None, None
        self.outputs.append(seen._replace(logits=large[0], experts=large[1], kept=None))
        self.shape = self.shape or np.shape(batch["clip"])
        size = np.zeros((len(batch["valid"]), frames_of(self.shape)), np.float32)
        self.kept.append(seen.kept._replace(size=size))
        self.probes.add(batch)
        return result, seen

    def summary(self, compile_seconds: float, seed: int) -> Clean:
        """Returns all of it, with the row of clean clips."""
        outputs, valid = self.outputs, self.valid
        correct = join_valid(self.correct, valid)
        router = None
        if outputs[0].router is not None:
            router = join_valid([output.router for output in outputs], valid)
        confusion = join_confusion(self.confusion, valid)
        row = Row(
            attack=CLEAN,
            epsilon=0.0,
            norm=self.programs.norm,
            robust_accuracy=mean(correct),
            accuracy_under_attack=mean(correct),
            n=len(correct),
            seed=seed,
            steps=None,
            restarts=None,
            gradient_evaluations=0,
            seconds=self.seconds,
            compile_seconds=compile_seconds,
            **iou_fields(confusion),
            **summarize_routing(router, None, valid),
            measures=mean_measures(self.measured, valid),
        )
        return Clean(
            row,
            correct,
            self.of_valid(self.index),
            self.of_valid(self.label),
            outputs,
            self.index,
            valid,
            *self.probes.drawn(),
            self.digest,
            self.logits,
            confusion,
            join_or_none([output.margin for output in outputs], valid),
            self.found(),
            join_last(self.parts, valid) if self.routes else None,
            join_kept(self.kept, valid),
            self.shape,
        )
