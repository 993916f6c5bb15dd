"""What a finished run leaves: ``result.json``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from simtrust.data.json_file import read_json
from simtrust.errors import RunError
from simtrust.evaluation.returns import EpisodeReturns
from simtrust.training.metrics import plain
from simtrust.training.storage import write_atomically

RESULT_FORMAT = 1


class RunResult(NamedTuple):
    """What a finished run leaves: its directory, and the content of ``result.json``."""

    directory: Path
    summary: dict[str, Any]


def result_path(directory: Path) -> Path:
    return directory / "result.json"


def read_result(directory: Path) -> RunResult | None:
    """The result of a finished run; None if it has not finished.

    Raises:
        RunError: the file cannot be read, or does not hold steps, and runs that each have a seed.
    """
    try:
        stored = read_json(result_path(directory))
        version = stored.get("format", 1)
        if version != RESULT_FORMAT:
            raise RunError(
                f"{result_path(directory)} has format {version}, this version of simtrust reads "
                f"{RESULT_FORMAT}; use the version that wrote it: {stored['versions']['simtrust']}"
            )
        runs = stored["runs"]
        if not isinstance(runs, list) or not runs:
            raise ValueError("runs is no list, or an empty one")
        for number in (stored["steps"], *(run["seed"] for run in runs)):
            if not isinstance(number, int) or isinstance(number, bool) or abs(number) >= 2**53:
                raise ValueError("steps or seeds are no whole numbers")
        return RunResult(directory, stored)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise damaged_result(directory, error) from error


def damaged_result(directory: Path, error: Exception) -> RunError:
    """What to raise where ``result.json`` lacks something that is needed of it."""
    return RunError(
        f"{result_path(directory)} is damaged ({type(error).__name__}: {error}); delete it, "
        f"and simtrust resume {directory} writes it again from the last checkpoint"
    )


def write_result(result: RunResult) -> None:
    content = json.dumps(result.summary, indent=2) + "\n"
    write_atomically(result_path(result.directory), content.encode())


def seed_results(
    seeds: Sequence[int], episodes: EpisodeReturns, evaluators: Mapping[str, Sequence[float | None]]
) -> list[dict[str, Any]]:
    """The final judgement of each seed; ``evaluators`` are indexed by run [R], and may be none."""
    results = []
    for run, (seed, returns, lengths) in enumerate(zip(seeds, *episodes, strict=True)):
        results.append(
            {
                "seed": seed,
                "return_mean": plain(returns.mean()),
                "return_std": plain(returns.std()),
                "episode_returns": plain(returns),
                "episode_lengths": plain(lengths),
                **{name: plain(values[run]) for name, values in evaluators.items()},
            }
        )
    return results
