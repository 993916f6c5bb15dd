"""Logs: reading, checking, describing, writing."""

from simtrust.data.checks import check_against_simulator, describe
from simtrust.data.dataset import Dataset
from simtrust.data.formats import load_dataset, save_dataset
from simtrust.data.minari_out import save_minari

__all__ = [
    "Dataset",
    "check_against_simulator",
    "describe",
    "load_dataset",
    "save_dataset",
    "save_minari",
]
