"""Evaluation: suites of attacks, metrics, Lipschitz figures, FLOPs, checks of masked gradients."""

from jaxmoe.evaluation.auto_attack import AutoAttackResult, auto_attack
from jaxmoe.evaluation.flops import MixtureFlops, mixture_flops
from jaxmoe.evaluation.gradient_masking import masking_checks
from jaxmoe.evaluation.grid import Grid, GridResult, GridRow, sweep_grid
from jaxmoe.evaluation.guards import NonFiniteError, NonFiniteGradient, ThreatViolation
from jaxmoe.evaluation.lipschitz import Lipschitz, mixture_lipschitz, model_lipschitz
from jaxmoe.evaluation.measures import MEASURES, Measure
from jaxmoe.evaluation.metrics import (
    accuracy,
    choice_flips,
    load_of_choices,
    routing_entropy,
    routing_iou,
)
from jaxmoe.evaluation.programs import Programs
from jaxmoe.evaluation.rows import CLEAN, WORST_CASE, Check, Row, StageRow, SuiteResult
from jaxmoe.evaluation.significance import Estimate
from jaxmoe.evaluation.specialization import Specialization, specialization_sentence
from jaxmoe.evaluation.suite import evaluate_suite
from jaxmoe.evaluation.transfer import transfer_matrix
from jaxmoe.evaluation.transfer_result import ALL_OTHERS, TransferResult, TransferRow
from jaxmoe.evaluation.verdict import EvaluationWarning

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
    "Lipschitz",
    "Measure",
    "MixtureFlops",
    "NonFiniteError",
    "NonFiniteGradient",
    "Programs",
    "Row",
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
