"""Markdown tables of the records that `auto_attack.py` writes."""

from typing import Any

Record = dict[str, Any]


def tables(records: list[Record]) -> str:
    """A table for each kind of cell there is, and what all have in common."""
    versions = [r for r in records if r["cell"]["kind"] in ("standard", "rand")]
    curves = [r for r in records if r["cell"]["kind"] == "curve"]
    alone = [r for r in records if r not in versions and r not in curves]
    parts = [
        _table("AutoAttack", versions, _COMPARED | _NOISE),
        _table("One attack alone", alone, _COMPARED),
        _table(
            "APGD-CE from one start: largest relative deviation of the loss in 20 steps",
            curves,
            _CURVES,
        ),
    ]
    return "\n\n".join([*filter(None, parts), _footnote(records)])


def _table(title: str, records: list[Record], columns: dict) -> str | None:
    if not records:
        return None
    rows = [[read(record) for read in columns.values()] for record in records]
    lines = [f"### {title}", "", _line(columns), _line(["---"] * len(columns))]
    return "\n".join(lines + [_line(row) for row in rows])


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(*path: str):
    """Reads a share; a dash where there is none."""

    def read(record: Record) -> str:
        for key in path:
            record = record.get(key)
            if record is None:
                return "–"
        return f"{100 * record:.1f}"

    return read


def _small(*path: str):
    """Reads a deviation."""

    def read(record: Record) -> str:
        for key in path:
            record = record[key]
        return f"{record:.1e}"

    return read


_CELL = {
    "kind": lambda r: r["cell"]["kind"],
    "model": lambda r: r["cell"]["model"],
    "norm": lambda r: r["cell"]["norm"],
    "n": lambda r: str(r["settings"]["n"]),
}
_COMPARED = _CELL | {
    "ours %": _percent("ours", "robust_accuracy"),
    "official %": _percent("official", "robust_accuracy"),
    "agreement %": _percent("agreement"),
    "only ours breaks": lambda r: str(r["only_ours_breaks"]),
    "only official breaks": lambda r: str(r["only_official_breaks"]),
    "ours s": lambda r: f"{r['ours']['seconds']:.1f}",
    "compiled s": lambda r: f"{r['compiled_seconds']:.1f}",
    "official s": lambda r: f"{r['official']['seconds']:.1f}",
    "ours / official": lambda r: f"{r['ratio']:.2f}",
    "compiled / official": lambda r: f"{r['compiled_ratio']:.2f}",
}
_NOISE = {
    "official again %": _percent("official_again", "robust_accuracy"),
    "official / official %": _percent("agreement_official"),
    "ours / official again %": _percent("agreement_again"),
}
_CURVES = _CELL | {
    "float32: mean": _small("float32", "mean"),
    "one image": _small("float32", "image"),
    "median": _small("float32", "median"),
    "within 1e-3 %": _percent("float32", "within"),
    "float64: mean": _small("float64", "mean"),
    "one image, float64": _small("float64", "image"),
    "all steps, float64": _small("float64", "image_all_steps"),
}


def _footnote(records: list[Record]) -> str:
    settings = records[0]["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    return (
        "Robust accuracy. ε = 8/255 (linf) and 0.5 (l2); seed "
        f"{settings['seed']} (official again: {settings['seed'] + 1}); batches of "
        f"{settings['batch_size']}; {settings['steps']} steps, {settings['targets']} targets, "
        f"{settings['queries']} queries; {settings['threads']} PyTorch threads. Seconds of the "
        f"wall clock; compiled: of the attacks alone, without compilation. {versions}."
    )
