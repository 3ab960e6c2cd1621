"""Datasets of clips: prepare them once, read them by index, load them in batches."""

from jaxmoe.data.dataset import Dataset, load_dataset
from jaxmoe.data.describe import DatasetSummary, SplitSummary, describe
from jaxmoe.data.kinds import DATASETS, Clips, DataConfig, Images
from jaxmoe.data.listing import SPLITS
from jaxmoe.data.source import ClipSource

__all__ = [
    "DATASETS",
    "SPLITS",
    "ClipSource",
    "Clips",
    "DataConfig",
    "Dataset",
    "DatasetSummary",
    "Images",
    "Loader",
    "SplitSummary",
    "describe",
    "load_dataset",
    "make_loader",
]


def __getattr__(name: str):
    # Grain takes a second to import, and describing a dataset does not need it.
    if name in ("Loader", "make_loader"):
        from jaxmoe.data import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
