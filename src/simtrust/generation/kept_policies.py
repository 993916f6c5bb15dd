"""The policy of every evaluation of a training, kept in the run directory.

Checkpoints are swept, and a medium policy is known to be one only at the training's end. A policy is written
before the checkpoint of its step: whenever a run is killed, those of all its checkpoints are there, and a
resumed one writes the others again, which are the same.
"""

import json
from pathlib import Path

import jax
import numpy as np

from simtrust import __version__
from simtrust.algorithms.actor import Actor
from simtrust.data.json_file import read_json
from simtrust.errors import RunError
from simtrust.evaluation.evaluators import SeedPolicy
from simtrust.training.checkpoint import (
    StoredFile,
    arrays_to_tree,
    read_tensors,
    tree_to_arrays,
    write_tensors,
)
from simtrust.training.judging import LivePolicy
from simtrust.training.policy import Policy
from simtrust.training.storage import storing, write_atomically

POLICIES = "policies"
POLICY_FORMAT = 1


class KeepPolicies:
    """An evaluator that measures nothing, and keeps each policy that it is shown.

    As an evaluator it is part of the run: ``simtrust resume``, which could not keep the rest, refuses it.
    """

    def __init__(self, run: Path):
        self.folder = run / POLICIES

    def __call__(self, policy: SeedPolicy) -> dict[str, float]:
        assert isinstance(policy, LivePolicy)
        with storing(self.folder):
            self.folder.mkdir(exist_ok=True)
        arrays = tree_to_arrays(policy.actor)
        stored = write_tensors(self.folder, f"policy-{policy.step:012d}.safetensors", arrays)
        manifest = {
            "format": POLICY_FORMAT,
            "simtrust_version": __version__,
            "step": policy.step,
            "seed": policy.seed,
            "file": {"name": stored.name, "sha256": stored.sha256},
        }
        write_atomically(_manifest(self.folder, policy.step), json.dumps(manifest, indent=1).encode())
        return {}


def load_kept_policy(run: Path, step: int, like: Policy) -> Actor:
    """The actor that a run of one seed had at a step; ``like`` is the run's policy at any step.

    Raises `RunError` if it was not kept, is damaged, or is of a newer format.
    """
    folder = run / POLICIES
    path = _manifest(folder, step)
    try:
        stored = read_json(path)
        if stored["format"] != POLICY_FORMAT:
            raise RunError(
                f"{path} has format {stored['format']}, this version of simtrust reads {POLICY_FORMAT}; "
                f"use the version that wrote it: {stored['simtrust_version']}"
            )
        file = StoredFile.from_json(stored["file"])
    except FileNotFoundError:
        raise RunError(
            f"{run} has not kept its policy of step {step:,}; train anew in another --run"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise RunError(f"{path} is damaged ({error}); train anew in another --run") from error
    actors = arrays_to_tree(read_tensors(folder, file), like.actor, folder / file.name)
    return jax.tree.map(lambda leaf: np.asarray(leaf[0]), actors)


def _manifest(folder: Path, step: int) -> Path:
    return folder / f"policy-{step:012d}.json"
