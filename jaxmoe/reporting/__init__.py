"""Reporting: result files, tables for a terminal, figures."""

from jaxmoe.reporting.figures import (
    plot_bars,
    plot_curves,
    plot_margins,
    plot_robust_accuracy,
    plot_training,
)
from jaxmoe.reporting.results import read_results, results_markdown, write_results
from jaxmoe.reporting.tables import print_flops, print_suite
from jaxmoe.reporting.transfer import plot_transfer, print_transfer, write_transfer

__all__ = [
    "plot_bars",
    "plot_curves",
    "plot_margins",
    "plot_robust_accuracy",
    "plot_training",
    "plot_transfer",
    "print_flops",
    "print_suite",
    "print_transfer",
    "read_results",
    "results_markdown",
    "write_results",
    "write_transfer",
]
