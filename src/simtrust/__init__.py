"""simtrust: where can a simulator be trusted, and how to train with it all the same.

    import simtrust

    dataset = simtrust.load_dataset("log.hdf5")
    report = simtrust.measure_gap(dataset, "HalfCheetah-v5", shifts=["gravity=2"])
    result = simtrust.train("trust", real="log.hdf5", sim="HalfCheetah-v5", shifts=["gravity=2"])
    policy = simtrust.Policy(result.directory)
    seeds, where, episodes = simtrust.evaluate(result.directory, episodes=20)
    simtrust.report_run(result.directory)
    simtrust.export_policy(result.directory, "robot")

Names are imported when first used, so that ``import simtrust`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Dataset": "simtrust.data",
    "load_dataset": "simtrust.data",
    "save_dataset": "simtrust.data",
    "save_minari": "simtrust.data",
    "make_simulator": "simtrust.simulators",
    "parse_shifts": "simtrust.simulators",
    "generate_wheel_legged_log": "simtrust.simulators.log_recording",
    "generate_log": "simtrust.generation.generate",
    "Recipe": "simtrust.algorithms.recipes",
    "RECIPES": "simtrust.algorithms.recipes",
    "train": "simtrust.api",
    "measure_gap": "simtrust.measuring",
    "GapReport": "simtrust.gap.findings",
    "resume": "simtrust.training.loop",
    "evaluate": "simtrust.training.policy",
    "report_run": "simtrust.reports.run_report",
    "export_policy": "simtrust.export.policy_bundle",
    "Policy": "simtrust.training.policy",
    "RunResult": "simtrust.training.result",
    "Callback": "simtrust.training.callbacks",
    "check_data": "simtrust.reports.log_report",
    "LogReport": "simtrust.reports.log_report",
    "SimtrustError": "simtrust.errors",
}

if TYPE_CHECKING:
    from simtrust.algorithms.recipes import RECIPES, Recipe
    from simtrust.api import train
    from simtrust.data import Dataset, load_dataset, save_dataset, save_minari
    from simtrust.errors import SimtrustError
    from simtrust.export.policy_bundle import export_policy
    from simtrust.gap.findings import GapReport
    from simtrust.generation.generate import generate_log
    from simtrust.measuring import measure_gap
    from simtrust.reports.log_report import LogReport, check_data
    from simtrust.reports.run_report import report_run
    from simtrust.simulators import make_simulator, parse_shifts
    from simtrust.simulators.log_recording import generate_wheel_legged_log
    from simtrust.training.callbacks import Callback
    from simtrust.training.loop import resume
    from simtrust.training.policy import Policy, evaluate
    from simtrust.training.result import RunResult

__all__ = [
    "RECIPES",
    "Callback",
    "Dataset",
    "GapReport",
    "LogReport",
    "Policy",
    "Recipe",
    "RunResult",
    "SimtrustError",
    "check_data",
    "evaluate",
    "export_policy",
    "generate_log",
    "generate_wheel_legged_log",
    "load_dataset",
    "make_simulator",
    "measure_gap",
    "parse_shifts",
    "report_run",
    "resume",
    "save_dataset",
    "save_minari",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'simtrust' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
