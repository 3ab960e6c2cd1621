"""Datasets of clips and images: prepare them once, read them by index, load them in batches.

Each name is imported when it is first touched: a configuration is described without NumPy and
Grain.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxmoe.data.dataset import Dataset, load_dataset
    from jaxmoe.data.kinds import DATASETS, Clips, DataConfig, Images
    from jaxmoe.data.listing.listing import SPLITS
    from jaxmoe.data.loading.augmentation import Augmentation
    from jaxmoe.data.loading.loader import Loader, make_loader
    from jaxmoe.data.loading.source import ClipSource
    from jaxmoe.data.summary import DatasetSummary, SplitSummary, describe

_HOMES = {
    "dataset": ("Dataset", "load_dataset"),
    "kinds": ("DATASETS", "Clips", "DataConfig", "Images"),
    "listing.listing": ("SPLITS",),
    "loading.augmentation": ("Augmentation",),
    "loading.loader": ("Loader", "make_loader"),
    "loading.source": ("ClipSource",),
    "summary": ("DatasetSummary", "SplitSummary", "describe"),
}

__all__ = [
    "DATASETS",
    "SPLITS",
    "Augmentation",
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


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
