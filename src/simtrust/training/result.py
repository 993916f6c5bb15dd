"""What a finished run leaves: ``result.json``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from simtrust.evaluation.returns import EpisodeReturns
from simtrust.training.checkpoint import write_atomically
from simtrust.training.metrics import plain


class RunResult(NamedTuple):
    """What a finished run leaves: its directory, and the content of ``result.json``."""

    directory: Path
    summary: dict[str, Any]


def result_path(directory: Path) -> Path:
    return directory / "result.json"


def read_result(directory: Path) -> RunResult | None:
    """The result of a finished run; None if it has not finished."""
    path = result_path(directory)
    return RunResult(directory, json.loads(path.read_text())) if path.exists() else None


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
