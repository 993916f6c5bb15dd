"""The dynamics model of a run: fitted to its log alone, once, before any update, and kept.

It predicts where reality would have gone from simulated rows (Eq. 36). It follows from the configuration and
the log, so it is one for the whole fleet, and a run that was stopped while fitting it fits it again, to the
same bits on CPU.
"""

from dataclasses import replace
from pathlib import Path

from simtrust.gap.dynamics_fitting import (
    REVERSE_GAP_OPTIONS,
    FittedDynamics,
    fit_dynamics_model,
    model_shapes,
)
from simtrust.stages import show_stages
from simtrust.training.fitted_model import FittedModelFile
from simtrust.training.fleet import FIT_DYNAMICS, seed_keys
from simtrust.training.metrics import plain
from simtrust.training.setup import Problem

DYNAMICS_MODEL_FORMAT = 1
DYNAMICS_MODEL = FittedModelFile("dynamics_model", "dynamics model", DYNAMICS_MODEL_FORMAT)


def with_dynamics_model(problem: Problem, directory: Path, *, quiet: bool = False) -> Problem:
    """The problem, its log with the model in the run's directory, where the recipe reads what that predicts.

    If there is none yet, it is fitted and stored there.

    Raises:
        RunError: what is stored is damaged, or a newer version's.
        DataError: the log has too few rows with a known next state.
    """
    if not problem.recipe.predicts_reality:
        return problem
    assert problem.log is not None
    if not DYNAMICS_MODEL.is_in(directory):
        fitted = _fit(problem, quiet=quiet)
        r_squared = plain(fitted.r_squared_overall)
        DYNAMICS_MODEL.save(directory, fitted.model, r_squared=r_squared, epochs=len(fitted.held_out_loss))
    sizes = problem.algorithm.observation_size, problem.algorithm.action_size
    model = DYNAMICS_MODEL.load(directory, model_shapes(*sizes, REVERSE_GAP_OPTIONS))
    return replace(problem, log=problem.log._replace(dynamics=model))


def _fit(problem: Problem, *, quiet: bool) -> FittedDynamics:
    config, dataset = problem.config, problem.dataset
    assert dataset is not None
    options = replace(REVERSE_GAP_OPTIONS, epochs=config.dynamics_epochs)
    fitting = "fitting the dynamics model"
    with show_stages(quiet=quiet) as stage:
        stage(fitting, "")
        return fit_dynamics_model(
            # In the units of the rows that it is asked about.
            problem.scaling.transitions(dataset.transitions),
            dataset.episode_end,
            key=seed_keys(config.run_seeds[:1], FIT_DYNAMICS)[0],
            options=options,
            progress=lambda epoch, loss: stage(fitting, f"epoch {epoch} of at most {options.epochs}"),
        )
