"""``simtrust train``, ``resume`` and ``evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simtrust.commands.invocation import as_typed
from simtrust.device import Device, choose_device
from simtrust.training.config import TrainConfig, config_from_json

if TYPE_CHECKING:
    from simtrust.evaluation.returns import EpisodeReturns
    from simtrust.training.loop import RunResult


def train(config: Annotated[TrainConfig, tyro.conf.arg(name="")], device: Device = "auto") -> None:
    """Train policies from a log and a simulator at once, several seeds side by side.

    Writes checkpoints, metrics.jsonl and result.json into the run directory; a run that is cut short
    goes on with `simtrust resume`.

    Args:
        config: What to train.
        device: Where to compute: on the processor, on an NVIDIA GPU, or wherever JAX does by itself.
    """
    choose_device(device)
    from simtrust.training.loop import train

    _show(train(config, command=as_typed()))


def resume(
    directory: tyro.conf.Positional[str],
    sim: str | None = None,
    real_env: str | None = None,
    step_timeout: float | None = None,
    learning_rate: float | None = None,
    device: Device = "auto",
) -> None:
    """Go on with an interrupted run; the result is the same as if it had never stopped.

    A run that is complete is only shown again. Its --steps cannot be changed: for more of them, train anew
    with larger --steps and another --out.

    Args:
        directory: The run directory.
        sim: Name the run's simulator again if it is module:factory, since that imports code.
        real_env: Likewise for the real environment.
        step_timeout: Another time limit than the run began with, in seconds.
        learning_rate: Another step size of Adam from here on, for every network; recorded in config.json.
        device: Where to compute from here on: on the processor, on an NVIDIA GPU, or wherever JAX does by
            itself.
    """
    choose_device(device)
    from simtrust.training.loop import resume
    from simtrust.training.result import result_path

    config, _ = config_from_json(Path(directory) / "config.json")
    complete = result_path(Path(directory)).exists()
    result = resume(
        directory,
        sim=sim,
        real_env=real_env,
        step_timeout=step_timeout,
        learning_rate=learning_rate,
        command=as_typed(),
    )
    _show(result)
    if complete:
        told = (
            f"{directory} was complete already: {result.summary['steps']:,} of {config.steps:,} steps. "
            "It cannot be lengthened; for more, train anew with larger --steps and another --out."
        )
        Console().print(Text(told), soft_wrap=True)


def evaluate(
    directory: tyro.conf.Positional[str],
    env: str | None = None,
    episodes: int = 10,
    seed: int = 0,
    shift: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    step_timeout: float | None = None,
) -> None:
    """Run a trained policy for whole episodes, with its best action, and print the returns.

    Args:
        directory: The run directory.
        env: Where to evaluate; default: where the run was evaluated.
        episodes: Episodes for each trained seed.
        seed: Chooses the initial states.
        shift: Spoils a built-in environment on purpose, for experiments: gravity=2 doubles it. For your own
            leave it out. Repeat for several.
        step_timeout: Seconds that a step or reset of an environment of yours may take.
    """
    from simtrust.training.policy import evaluate

    seeds, name, returns = evaluate(
        directory, env=env, episodes=episodes, seed=seed, shifts=shift, step_timeout=step_timeout
    )
    _show_returns(f"{directory} in {name}", seeds, returns)
    _tell_if_only_simulated(Path(directory), name, "Name another with --env if you have one.")


def _show(result: "RunResult") -> None:
    import numpy as np

    from simtrust.evaluation.returns import EpisodeReturns
    from simtrust.training.result import damaged_result

    summary = result.summary
    try:
        runs = summary["runs"]
        returns = EpisodeReturns(
            np.array([r["episode_returns"] for r in runs], float),
            np.array([r["episode_lengths"] for r in runs]),
        )
        title = (
            f"{summary['recipe']} after {summary['steps']:,} steps, in {summary['evaluation_environment']}"
        )
        rate, wall = summary["updates_per_second"], summary["wall_seconds"]
        line = f"{rate:,.0f} updates/s, {wall:,.0f} s in all; result in {result.directory}/result.json"
    except (KeyError, TypeError, ValueError) as error:
        raise damaged_result(result.directory, error) from error
    _show_returns(title, [r["seed"] for r in runs], returns)
    Console().print(Text(line), soft_wrap=True)
    _tell_if_only_simulated(
        result.directory, str(summary["evaluation_environment"]), "Give --real-env if you have one."
    )


def _tell_if_only_simulated(directory: Path, environment: str, remedy: str) -> None:
    """Say so where a run's policy was judged in the simulator that it was trained in."""
    from simtrust.simulators.factories import is_simulator_itself

    config, _ = config_from_json(directory / "config.json")
    if not is_simulator_itself(environment, config.sim):
        return
    trained = (
        "the simulator beside the log"
        if config.recipe == "cql"
        else "the simulator that the policy was trained in"
    )
    line = f"{environment} is {trained}; it says little about the machine. {remedy}"
    Console().print(Text(line), soft_wrap=True)


def _show_returns(title: str, seeds: list[int], returns: "EpisodeReturns") -> None:
    table = Table("seed", "episodes", "return", "std", "length", title=Text(title))
    for seed, values, lengths in zip(seeds, *returns, strict=True):
        row = (len(values), f"{values.mean():,.1f}", f"{values.std():,.1f}", f"{lengths.mean():,.0f}")
        table.add_row(str(seed), *(str(cell) for cell in row))
    if len(seeds) > 1:
        mean = returns.returns.mean(-1)
        table.add_row("all", "", f"{mean.mean():,.1f}", f"{mean.std():,.1f}", "", style="bold")
    Console().print(table)
