"""The gap model of a run: fitted to the log and to the simulator once, before any update, and kept.

It follows from the configuration, the log and the simulator alone. So it is one for the whole fleet, and a
run that was stopped while fitting it fits it again, to the same bits on CPU.
"""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from simtrust.gap.dynamics_fitting import model_shapes
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
from simtrust.training.fitted_model import FittedModelFile
from simtrust.training.fleet import FIT_GAP, seed_keys
from simtrust.training.metrics import plain
from simtrust.training.setup import Problem, step_timeout
from simtrust.types import Transitions

GAP_MODEL_FORMAT = 2
GAP_MODEL = FittedModelFile("gap_model", "gap model", GAP_MODEL_FORMAT)


def gap_model_of_run(problem: Problem, directory: Path, *, quiet: bool = False) -> SimulatorGap:
    """The gap model in the run's directory; if there is none yet, it is fitted and stored there.

    Raises:
        RunError: what is stored is damaged, or a newer version's.
        SimulatorError: the simulator failed while it was probed.
        DataError: the log or the simulator's rows are too few, or nothing in them varies.
    """
    if not GAP_MODEL.is_in(directory):
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
    """Write the model, and how far it is to be believed."""
    GAP_MODEL.save(
        directory,
        fitted.gap,
        r_squared=plain(fitted.r_squared_overall),
        floor=plain(fitted.floor),
        distinction=plain(fitted.distinction),
    )


def load_gap_model(directory: Path, *, observation_size: int, action_size: int) -> SimulatorGap:
    """Read `save_gap_model`'s files.

    Raises `RunError` if they are missing, damaged, of a newer format, or of other sizes.
    """
    model = model_shapes(observation_size, action_size + 1, SIMULATOR_GAP_OPTIONS)
    like = jax.eval_shape(lambda model: SimulatorGap(model, jnp.zeros(observation_size)), model)
    return GAP_MODEL.load(directory, like)
