"""Logs: reading, checking, describing, generating."""

from simtrust.data.checks import check_against_simulator, describe
from simtrust.data.dataset import Dataset
from simtrust.data.formats import load_dataset, save_dataset
from simtrust.data.generate import generate_pendulum_log

__all__ = [
    "Dataset",
    "check_against_simulator",
    "describe",
    "generate_pendulum_log",
    "load_dataset",
    "save_dataset",
]
