"""Whether the gap looks as if the machine's motors had done other than the log says."""

from collections.abc import Sequence
from dataclasses import replace as replaced
from typing import NamedTuple

import numpy as np

from simtrust.data import Dataset
from simtrust.gap.corrections import ROWS, spread_rows
from simtrust.gap.replay_probe import replay
from simtrust.gap.step_errors import GapErrors, step_errors
from simtrust.simulators import Shift
from simtrust.simulators.built_in import find_built_in

ACTION_STEP = 0.02
"""Of the action's range: the finite difference by which the effect of an action is found."""
RIDGE = 1e-6
"""Of the effects' own size: where an action has no effect, it is given no error."""


class ActuatorError(NamedTuple):
    """How much of the gap looks as if the machine had received other actions than the log says."""

    explained: float
    """Share of the mean one-step gap that goes away if every row may have an action error of its own."""
    systematic: float
    """Adjusted R² of these action errors as a linear function of state and action; the rest is like noise."""
    spread: np.ndarray
    """[A] standard deviation of the action errors, in the action's units."""


def actuator_error(
    dataset: Dataset, simulator_name: str, *, shifts: Sequence[Shift] = (), rows: int = ROWS
) -> ActuatorError:
    """How much of the gap lies in directions in which the actions push, and whether it is like noise.

    At each row the simulator's next state is differentiated by the action, and the least-squares action
    error that explains the row's error is taken. Gravity, say, errs in other directions than the motors.
    A simulator whose actions act later (a delay) shows no effect of them within a step, so explains nothing.

    Args:
        dataset: the log.
        simulator_name: a simulator that can be put into a logged state.
        shifts: of a built-in simulator.
        rows: how many of the log's rows are replayed, once and once more for each action.

    Raises:
        StateNotSettable, DataError, SimulatorError: as `replay`.
    """
    chosen = spread_rows(dataset, rows)
    # With a delay a row receives the action of a row before, which must not be a moved one.
    chosen = chosen[:: 1 + total_delay(simulator_name, shifts)]
    base = step_errors(dataset, replay(dataset, simulator_name, shifts=shifts, rows=chosen))
    varies = ~np.isnan(base.scale)
    effect = _effects(dataset, simulator_name, shifts, chosen, base)[:, varies] / base.scale[varies][:, None]
    error = base.normalised[:, varies]
    usable = np.isfinite(effect).all((1, 2)) & np.isfinite(error).all(1)
    effect, error = effect[usable], error[usable]
    actions = _least_squares(effect, error)
    left = error - np.einsum("noa,na->no", effect, actions)
    before, after = (np.sqrt(np.square(part).mean(1)).mean() for part in (error, left))
    rows_of = dataset.transitions
    inputs = np.concatenate([np.asarray(rows_of.observation), np.asarray(rows_of.action)], axis=1)
    return ActuatorError(
        explained=float(1.0 - after / before) if before > 0 else 0.0,
        systematic=_linear_share(inputs[chosen][usable], actions),
        spread=actions.std(axis=0),
    )


def total_delay(simulator_name: str, shifts: Sequence[Shift]) -> int:
    """Control steps that an action takes to reach the motors, a built-in simulator's own delay included."""
    built_in = find_built_in(simulator_name)
    every = shifts if built_in is None else built_in.all_shifts(shifts)
    return sum(int(shift.amount) for shift in every if shift.kind == "delay")


def _effects(
    dataset: Dataset, simulator_name: str, shifts: Sequence[Shift], chosen: np.ndarray, base: GapErrors
) -> np.ndarray:
    """[N, O, A]: by how much the simulator's next observation changes per unit of each action."""
    action = np.asarray(dataset.transitions.action, np.float64)
    size = ACTION_STEP * np.ptp(action, axis=0)
    # Towards the middle, so that no action leaves the machine's bounds.
    middle = 0.5 * (action.min(axis=0) + action.max(axis=0))
    steps = np.where(action[chosen] > middle, -size, size)
    effects = np.zeros((*base.error.shape, action.shape[1]))
    for index in np.flatnonzero(size > 0):
        moved = action.copy()
        moved[chosen, index] += steps[:, index]
        other = replaced(dataset, transitions=dataset.transitions._replace(action=moved))
        error = step_errors(other, replay(other, simulator_name, shifts=shifts, rows=chosen)).error
        effects[..., index] = (error - base.error) / steps[:, index, None]
    return effects


def _least_squares(effect: np.ndarray, error: np.ndarray) -> np.ndarray:
    """[N, A]: row by row, the action errors whose effects ``[N, O, A]`` are nearest to errors ``[N, O]``."""
    gram = np.einsum("noa,nob->nab", effect, effect)
    size = np.trace(gram, axis1=1, axis2=2)[:, None, None] + np.finfo(float).tiny
    moment = np.einsum("noa,no->na", effect, error)
    return np.linalg.solve(gram + RIDGE * size * np.eye(effect.shape[2]), moment[..., None])[..., 0]


def _linear_share(inputs: np.ndarray, outputs: np.ndarray) -> float:
    """Share of the outputs ``[N, A]`` that a linear map from inputs ``[N, I]`` explains, at least 0.

    About 0, not about their mean: a constant error is systematic. Adjusted, since with few rows a linear map
    explains part of any noise.
    """
    rows, width = inputs.shape
    design = np.column_stack([np.ones(rows), inputs])
    prediction = design @ np.linalg.lstsq(design, outputs, rcond=None)[0]
    total = np.square(outputs).sum()
    if total == 0 or rows <= width + 1:
        return 0.0
    left = np.square(outputs - prediction).sum() / total
    return float(max(0.0, 1.0 - left * rows / (rows - width - 1)))
