"""What a policy's files say about it."""

import importlib.metadata
import json
from typing import Any

from simtrust.algorithms.recipes import get_recipe
from simtrust.export.machine import Machine
from simtrust.export.onnx_graph import encodable
from simtrust.export.policy_arrays import FORMAT, MARGIN, ObservedRange
from simtrust.export.policy_source import TrainedPolicy

KIND = "simtrust policy"
DESCRIPTION = (
    "A trained policy: the best action for an observation, both in the machine's units. action: within the "
    "machine's bounds; NaN where it cannot be computed, as where an observation is not finite. valid: false "
    "where the action is NaN, or the observation outside of the range that the log saw; there the action "
    "must not be relied on."
)
ANY_FINITE = "finite: the run had no log, so nothing is known of a range"
WITHIN_RANGE = (
    f"finite, and in each dimension within the log's range, widened by {MARGIN:.0%} of "
    "its width to either side"
)
PACKAGES = ("simtrust", "jax", "numpy", "onnx")


def policy_metadata(
    trained: TrainedPolicy, machine: Machine, valid_range: ObservedRange | None, command: str
) -> dict[str, Any]:
    """For ``metadata.json``: numbers, texts and lists; None where something is not known."""
    observed, scaling, config = trained.observed, trained.scaling, trained.config
    limits = [
        None if x is None else x.tolist() for x in (*(observed or (None,) * 2), *(valid_range or (None,) * 2))
    ]
    return _encodable(
        {
            "kind": KIND,
            "format": FORMAT,
            "description": DESCRIPTION,
            "observation_names": machine.observation.names,
            "observation_units": machine.observation.units,
            "action_names": machine.action.names,
            "action_units": machine.action.units,
            "action_low": scaling.action_low,
            "action_high": scaling.action_high,
            "rate_hz": machine.rate,
            "rate_note": machine.rate_note,
            "valid_means": ANY_FINITE if observed is None else WITHIN_RANGE,
            **dict(
                zip(("observation_min", "observation_max", "valid_low", "valid_high"), limits, strict=True)
            ),
            "dataset": config.real if observed is not None else None,
            "dataset_sha256": trained.record.get("dataset_sha256"),
            "learns_from_dataset": observed is not None and get_recipe(config.recipe).needs_log,
            "simulator": config.sim,
            "shifts": config.shifts,
            "recipe": config.recipe,
            "actor": config.algorithm.actor,
            "seed": trained.seed,
            "seeds_of_the_run": trained.policy.seeds,
            "steps": trained.policy.step,
            "steps_asked_for": config.steps,
            "evaluation": _evaluation(trained),
            "training_command": str(trained.record.get("command", "")),
            "training_versions": trained.record.get("versions"),
            "export_command": command,
            "export_versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }
    )


def as_texts(metadata: dict[str, Any]) -> dict[str, str]:
    """For the ONNX file, which holds only texts: anything else becomes JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in metadata.items()
    }


def _evaluation(trained: TrainedPolicy) -> dict[str, Any] | None:
    if trained.result is None:
        return None
    run = trained.result["run"]
    numbers = {
        name: run.get(name) for name in ("return_mean", "return_std", "episode_returns", "episode_lengths")
    }
    return {"environment": trained.result.get("evaluation_environment"), **numbers}


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {encodable(str(key)): _encodable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(each) for each in value]
    return value
