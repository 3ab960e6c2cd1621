"""Certified curves as tables, a picture and files."""

import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TextIO

from jaxmoe.evaluation.certify.certification import CertifiedCurve, CertifiedExamples
from jaxmoe.files import write_text
from jaxmoe.reporting.figures import new_figure
from jaxmoe.reporting.results import as_csv
from jaxmoe.reporting.tables import print_table
from jaxmoe.reporting.text_table import markdown_table
from jaxmoe.threat import format_epsilon

JSON, MARKDOWN, PNG = "certificate.json", "certificate.md", "certificate.png"
CSV = "certificate.csv"


class UnderAttack(NamedTuple):
    """The classifier of a curve under PGD."""

    accuracy: tuple[float, ...]  # 0–1, at each radius of the curve
    steps: int
    verdict: str  # of the checks for masked gradients, a sentence


def write_curves(
    curves: Sequence[CertifiedCurve],
    attacked: Sequence[UnderAttack],
    folder: str | os.PathLike,
    details: Mapping[str, Any] = MappingProxyType({}),
) -> list[pathlib.Path]:
    """Writes `certificate.json`, `.md`, `.png`, and `.csv`, a line for each example, into `folder`.

    Args:
      curves: one for each method.
      attacked: of each, what PGD leaves.
      folder: where to.
      details: what else the figures depend on, for the records.

    Returns:
      The files' paths.
    """
    folder = pathlib.Path(folder)
    records = []
    for curve, under in zip(curves, attacked, strict=True):
        attack = {"accuracy_under_pgd": under.accuracy, "pgd_steps": under.steps}
        attack["masked_gradients"] = under.verdict
        proved = curve._asdict()
        del proved["examples"]  # are in the CSV
        records.append({**proved, **attack, **details})
    write_text(folder / CSV, _of_examples(curves))
    write_text(folder / JSON, json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    lines = []
    for curve, under in zip(curves, attacked, strict=True):
        lines += [f"{_title(curve)}.", ""]
        lines += [*markdown_table(_titles(curve, under), _rows(curve, under)), ""]
        lines += [under.verdict, ""]
    if details:
        lines += [", ".join(f"{name} {value}" for name, value in details.items()) + ".", ""]
    write_text(folder / MARKDOWN, "\n".join(lines))
    picture = _plot(curves, attacked, folder / PNG)
    return [folder / JSON, folder / MARKDOWN, folder / CSV, picture]


def print_curves(
    curves: Sequence[CertifiedCurve],
    attacked: Sequence[UnderAttack],
    file: TextIO | None = None,
) -> None:
    """Prints a table for each method; arguments as in `write_curves`."""
    file = file or sys.stdout
    for curve, under in zip(curves, attacked, strict=True):
        print_table(_title(curve), _titles(curve, under), _rows(curve, under), file)
        print(under.verdict, file=file)


def _of_examples(curves: Sequence[CertifiedCurve]) -> str:
    fields = CertifiedExamples._fields
    lines = [
        {"method": curve.method, **dict(zip(fields, values, strict=True))}
        for curve in curves
        for values in zip(*(array.tolist() for array in curve.examples), strict=True)
    ]
    return as_csv(lines, ["method", *fields])


def _title(curve: CertifiedCurve) -> str:
    more = f", {curve.abstained:.1%} without a prediction" if curve.abstained else ""
    if curve.settings:
        more += (
            f", {curve.settings['samples']} samples, which certify at most "
            f"{curve.settings['largest_radius']:.3g} and each example but for a probability of "
            f"{curve.settings['failure']:g}"
        )
    return (
        f"{curve.method}: {curve.classifier}; {curve.norm}, n = {curve.n}, median radius of "
        f"right predictions {curve.median_radius:.3g}{more}"
    )


def _titles(curve: CertifiedCurve, under: UnderAttack) -> list[str]:
    return ["radius", "certified %", f"{_attack(curve, under)} %"]


def _attack(curve: CertifiedCurve, under: UnderAttack) -> str:
    """PGD sees the classifier that is certified, but for the noise of smoothing."""
    return f"PGD-{under.steps}" + (" without noise" if curve.method == "smoothing" else "")


def _rows(curve: CertifiedCurve, under: UnderAttack) -> list[list[str]]:
    return [
        [format_epsilon(radius, curve.norm), f"{100 * certified:.1f}", f"{100 * accuracy:.1f}"]
        for radius, certified, accuracy in zip(
            curve.radii, curve.certified_accuracy, under.accuracy, strict=True
        )
    ]


def _plot(
    curves: Sequence[CertifiedCurve], attacked: Sequence[UnderAttack], path: pathlib.Path
) -> pathlib.Path:
    figure = new_figure(5.0 * len(curves), 4.0)
    columns = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axes, curve, under in zip(columns, curves, attacked, strict=True):
        grey_levels = curve.norm == "linf"
        radii = [radius * (255 if grey_levels else 1) for radius in curve.radii]
        certified = [100 * accuracy for accuracy in curve.certified_accuracy]
        left = [100 * accuracy for accuracy in under.accuracy]
        axes.plot(radii, left, "o--", label=_attack(curve, under))
        axes.plot(radii, certified, "o-", label=f"certified by {curve.method}")
        axes.fill_between(radii, 0, certified, alpha=0.15, color="C1")
        axes.set_xlabel(f"radius, {'grey levels of 255' if grey_levels else 'ℓ2, pixel units'}")
        axes.set_ylim(-2, 102)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        axes.set_title(f"{curve.classifier}, n = {curve.n}", fontsize="x-small")
    columns[0].set_ylabel("accuracy, %")
    figure.savefig(path, dpi=150)
    return path
