"""The gap model of a run: fitted to the log and to the simulator once, before any update, and kept.

It follows from the configuration, the log and the simulator alone. So it is one for the whole fleet, and a
run that was stopped while fitting it fits it again, to the same bits on CPU.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from simtrust import __version__
from simtrust.data.json_file import read_json
from simtrust.errors import RunError
from simtrust.gap.dynamics_model import DynamicsModel, GaussianNetwork
from simtrust.gap.rollouts import PROBE_INSTANCES, probe_rollouts
from simtrust.gap.simulator_gap import (
    SIMULATOR_GAP_OPTIONS,
    FittedSimulatorGap,
    SimulatorGap,
    fit_simulator_gap,
)
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.simulators.closing import closed_at_end
from simtrust.stages import show_stages
from simtrust.training.checkpoint import (
    StoredFile,
    arrays_to_tree,
    read_tensors,
    tree_to_arrays,
    write_tensors,
)
from simtrust.training.fleet import FIT_GAP, seed_keys
from simtrust.training.metrics import plain
from simtrust.training.setup import Problem, step_timeout
from simtrust.training.storage import write_atomically
from simtrust.types import Transitions

GAP_MODEL_FORMAT = 2
MANIFEST, TENSORS = "gap_model.json", "gap_model.safetensors"


def gap_model_of_run(problem: Problem, directory: Path, *, quiet: bool = False) -> SimulatorGap:
    """The gap model in the run's directory; if there is none yet, it is fitted and stored there.

    Raises:
        RunError: what is stored is damaged, or a newer version's.
        SimulatorError: the simulator failed while it was probed.
        DataError: the log or the simulator's rows are too few, or nothing in them varies.
    """
    if not (directory / MANIFEST).exists():
        save_gap_model(directory, _fit(problem, quiet=quiet))
    return load_gap_model(
        directory,
        observation_size=problem.algorithm.observation_size,
        action_size=problem.algorithm.action_size,
    )


def measure(model: SimulatorGap, transitions: Transitions[np.ndarray]) -> np.ndarray:
    """The gap u [R, n] float32 of simulated rows [R, n, ...] in the machine's units."""
    flat = Transitions(*(field.reshape(-1, *field.shape[2:]) for field in transitions))
    return model.divergence(flat).reshape(transitions.reward.shape)


def _fit(problem: Problem, *, quiet: bool) -> FittedSimulatorGap:
    config, dataset = problem.config, problem.dataset
    assert dataset is not None
    options = replace(SIMULATOR_GAP_OPTIONS, epochs=config.gap_epochs)
    with show_stages(quiet=quiet) as stage:
        stage("probing the simulator", "")
        shifts = parse_shifts(config.shifts)
        with closed_at_end(
            make_simulator(
                str(config.sim),
                num_envs=PROBE_INSTANCES,
                shifts=shifts,
                workers=config.sim_workers,
                step_timeout=step_timeout(config, str(config.sim)),
            )
        ) as simulator:
            simulated = probe_rollouts(simulator, dataset, rows=config.gap_probe_rows, seed=config.first_seed)
        fitting = "fitting the gap model"
        stage(fitting, "")
        return fit_simulator_gap(
            dataset,
            simulated,
            key=seed_keys(config.run_seeds[:1], FIT_GAP)[0],
            options=options,
            progress=lambda epoch, _: stage(fitting, f"epoch {epoch} of {options.epochs}"),
        )


def save_gap_model(directory: Path, fitted: FittedSimulatorGap) -> None:
    """Write the model, and then the manifest: its SHA-256, and how far the model is to be believed."""
    content = {
        "format": GAP_MODEL_FORMAT,
        "versions": {"simtrust": __version__},
        "file": asdict(write_tensors(directory, TENSORS, tree_to_arrays(fitted.gap))),
        "r_squared": plain(fitted.r_squared_overall),
        "floor": plain(fitted.floor),
        "distinction": plain(fitted.distinction),
    }
    write_atomically(directory / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())


def load_gap_model(directory: Path, *, observation_size: int, action_size: int) -> SimulatorGap:
    """Read `save_gap_model`'s files.

    Raises `RunError` if they are missing, damaged, of a newer format, or of other sizes.
    """
    path = directory / MANIFEST
    try:
        stored = read_json(path)
        version = stored["format"]
        if version != GAP_MODEL_FORMAT:
            writer = stored.get("versions", {}).get("simtrust", "unknown")
            raise RunError(
                f"{path} has format {version}, this version of simtrust reads {GAP_MODEL_FORMAT}; "
                f"use the version that wrote it: {writer}"
            )
        file = StoredFile.from_json(stored["file"])
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise RunError(
            f"{path} is damaged ({error}); delete it to have the gap model fitted again"
        ) from error
    try:
        arrays = read_tensors(directory, file)
        return arrays_to_tree(arrays, _shapes(observation_size, action_size), directory / file.name)
    except RunError as error:
        error.add_note(f"To have the gap model fitted again, delete {path}")
        raise


def _shapes(observation_size: int, action_size: int) -> SimulatorGap:
    """A gap model of shapes and types alone."""
    options, inputs = SIMULATOR_GAP_OPTIONS, observation_size + action_size + 1

    def blank() -> SimulatorGap:
        elites = jax.vmap(
            lambda key: GaussianNetwork(inputs, options.hidden_sizes, observation_size, key=key)
        )(jax.random.split(jax.random.key(0), options.elites))
        of_inputs, of_changes = jnp.zeros(inputs), jnp.zeros(observation_size)
        model = DynamicsModel(elites, of_inputs, of_inputs, of_changes, of_changes)
        return SimulatorGap(model, of_changes)

    return jax.eval_shape(blank)
