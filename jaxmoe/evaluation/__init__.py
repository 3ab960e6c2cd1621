"""Evaluation: suites of attacks, metrics, Lipschitz figures, FLOPs, checks of masked gradients."""

from jaxmoe.evaluation.diagnostics.gradient_masking import masking_checks
from jaxmoe.evaluation.engine.guards import NonFiniteError, NonFiniteGradient, ThreatViolation
from jaxmoe.evaluation.engine.kept import Kept
from jaxmoe.evaluation.engine.programs import Programs
from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE, Check, Row, StageRow, SuiteResult
from jaxmoe.evaluation.engine.shown import Shown
from jaxmoe.evaluation.engine.verdict import EvaluationWarning
from jaxmoe.evaluation.measures.flops import MixtureFlops, mixture_flops
from jaxmoe.evaluation.measures.lipschitz import Lipschitz, mixture_lipschitz, model_lipschitz
from jaxmoe.evaluation.measures.measures import MEASURES, Measure
from jaxmoe.evaluation.measures.metrics import (
    accuracy,
    choice_flips,
    load_of_choices,
    routing_entropy,
    routing_iou,
)
from jaxmoe.evaluation.measures.significance import Estimate
from jaxmoe.evaluation.measures.specialization import Specialization, specialization_sentence
from jaxmoe.evaluation.suite.auto_attack import AutoAttackResult, auto_attack
from jaxmoe.evaluation.suite.grid import Grid, GridResult, GridRow, sweep_grid
from jaxmoe.evaluation.suite.suite import evaluate_suite
from jaxmoe.evaluation.transfer.transfer import transfer_matrix
from jaxmoe.evaluation.transfer.transfer_result import ALL_OTHERS, TransferResult, TransferRow

__all__ = [
    "ALL_OTHERS",
    "CLEAN",
    "MEASURES",
    "WORST_CASE",
    "AutoAttackResult",
    "Check",
    "Estimate",
    "EvaluationWarning",
    "Grid",
    "GridResult",
    "GridRow",
    "Kept",
    "Lipschitz",
    "Measure",
    "MixtureFlops",
    "NonFiniteError",
    "NonFiniteGradient",
    "Programs",
    "Row",
    "Shown",
    "Specialization",
    "StageRow",
    "SuiteResult",
    "ThreatViolation",
    "TransferResult",
    "TransferRow",
    "accuracy",
    "auto_attack",
    "choice_flips",
    "evaluate_suite",
    "load_of_choices",
    "masking_checks",
    "mixture_flops",
    "mixture_lipschitz",
    "model_lipschitz",
    "routing_entropy",
    "routing_iou",
    "specialization_sentence",
    "sweep_grid",
    "transfer_matrix",
]
