"""What a log says of where it is from."""

import json
from pathlib import Path

from simtrust.generation.levels import Level, Part, Score
from simtrust.generation.log_file import Metadata
from simtrust.generation.training_run import EVALUATION_EPISODES, RECIPE
from simtrust.training.config import TrainConfig, config_from_json
from simtrust.training.setup import versions


def describe_part(part: Part, chosen: dict[Part, Score]) -> str:
    """Who acted, in words; ``chosen`` has the policies by part."""
    if part == "random":
        return "uniform random actions"
    return f"{RECIPE} at step {chosen[part].step}, stochastic"


def provenance(
    task: str, level: Level, config: TrainConfig, chosen: dict[Part, Score], command: str
) -> Metadata:
    """Task, level, seed, command and versions; and of the policies ``chosen``, if any, how they were trained.

    A policy's return is that of its evaluation: with its best action, while a log has its samples.

    Raises `RunError` if the run's ``config.json`` is damaged.
    """
    about: Metadata = {
        "env_id": task,
        "level": level,
        "seed": config.first_seed,
        "command": command,
        **{f"{package}_version": version for package, version in versions().items()},
    }
    if not chosen:
        return about
    _, extra = config_from_json(Path(str(config.out)) / "config.json")
    about |= {
        "algorithm": RECIPE,
        "steps": config.steps,
        "training_command": str(extra.get("command")),
        "training_versions": json.dumps(extra.get("versions")),
    }
    for part, score in chosen.items():
        about |= {
            f"{part}_policy_step": score.step,
            f"{part}_policy_return_mean": score.mean,
            f"{part}_policy_return_std": score.std,
            f"{part}_policy_return_episodes": EVALUATION_EPISODES,
        }
    return about
