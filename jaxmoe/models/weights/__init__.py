"""Weights from PyTorch: state dicts of published networks as variables of ours, without torch."""

from jaxmoe.models.weights.layout import Filled, Layout, fill
from jaxmoe.models.weights.layouts import LAYOUTS
from jaxmoe.models.weights.read import Weights, find_layout, make_model, read
from jaxmoe.models.weights.state_dict import read_state_dict

__all__ = [
    "LAYOUTS",
    "Filled",
    "Layout",
    "Weights",
    "fill",
    "find_layout",
    "make_model",
    "read",
    "read_state_dict",
]
