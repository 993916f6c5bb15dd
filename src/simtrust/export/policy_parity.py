"""Whether what runs on the robot computes what was trained: the rows to compare, and the comparison."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from simtrust.errors import ExportError
from simtrust.export import policy_runner
from simtrust.export.onnx_session import open_session
from simtrust.export.policy_graph import OUTPUTS

INSIDE_ROWS = 64
FAR_ROWS = 8
FAR = 0.5
"""How far beyond the range these rows are, as a share of its width."""
COMPARED_DIMENSIONS = 128
"""Every one is taken to its edges, or as many, evenly spread, of longer observations."""
SHAKES, ROUNDINGS = 4, 10
STEEPEST = 100.0
"""Rounding excuses no more than so many times the tolerance."""
Act = Callable[[np.ndarray], np.ndarray]


def parity_rows(act: Act, arrays: Mapping[str, np.ndarray], *, ranged: bool) -> dict[str, Any]:
    """Rows inside, at the edge of and outside of the range, or not finite, and what is expected there.

    Args:
        act: the trained policy, from ``[N, O]`` to ``[N, A]``, both in the machine's units.
        arrays: of `policy_arrays`.
        ranged: whether ``valid_low`` and ``valid_high`` are a log's range. Without, there are only rows
            around the observations' mean, and rows that are not finite.

    Returns:
        ``observation`` [N, O], ``case`` [N] (what kind of row), ``action`` [N, A] and ``valid`` [N], and for
        the comparison ``action_low`` and ``action_high`` [A], and ``action_unit`` [N, A]: what a deviation of
        1 means. It is the actions' range, or more where float32 itself would exceed the tolerance: the bounds
        are large beside the range, or the policy is so steep that rounding moves it.
    """
    if ranged:
        cases = _cases(arrays["valid_low"], arrays["valid_high"])
    else:
        mean, reach = arrays["observation_mean"], 3 * arrays["observation_std"]
        cases = _cases(mean - reach, mean + reach)
        del cases["edge"], cases["outside"]
    observation = np.concatenate(list(cases.values()))
    finite = np.isfinite(observation).all(1)
    action = np.full((len(observation), len(arrays["action_low"])), np.nan, np.float32)
    action[finite] = act(observation[finite])
    inside = (observation >= arrays["valid_low"]) & (observation <= arrays["valid_high"])
    bounds = np.stack([arrays["action_low"], arrays["action_high"]]).astype(np.float64)
    span = bounds[1] - bounds[0]
    step = np.spacing(np.abs(bounds).max(0).astype(np.float32)).astype(np.float64)
    steepness = np.zeros(action.shape)
    steepness[finite] = _rounding(act, observation[finite], action[finite])
    steepness = np.minimum(steepness, STEEPEST * policy_runner.TOLERANCE * span)
    return {
        "observation": observation,
        "case": np.repeat(list(cases), [len(rows) for rows in cases.values()]),
        "action": action,
        "valid": inside.all(1) & ~np.isnan(action).any(1),
        "action_low": arrays["action_low"],
        "action_high": arrays["action_high"],
        "action_unit": np.maximum(span, np.maximum(2 * step, steepness) / policy_runner.TOLERANCE),
    }


def check_parity(graph: onnx.ModelProto, archive: bytes, parity: Mapping[str, Any]) -> dict[str, float]:
    """The deviation of the graph, by ONNX's reference and by onnxruntime if it is there, and of the runner.

    Raises:
        ExportError: one is above `policy_runner.TOLERANCE`.
    """
    rows = parity["observation"]
    with np.errstate(all="ignore"):
        reference = ReferenceEvaluator(graph).run(list(OUTPUTS), {"observation": rows})
    found: dict[str, Any] = {"policy.onnx in ONNX's reference": reference}
    session = open_session(graph.SerializeToString())
    if session is not None:
        found["policy.onnx in onnxruntime"] = session(rows)
    found["policy_runner.py"] = policy_runner.PolicyRunner(io.BytesIO(archive))(rows)
    deviations = {
        name: policy_runner.deviation(action, valid, parity) for name, (action, valid) in found.items()
    }
    for name, deviation in deviations.items():
        if not deviation <= policy_runner.TOLERANCE:
            raise ExportError(
                f"{name} does not compute the same as the trained policy: they differ by {deviation:.1e} of "
                f"the actions' range, allowed is {policy_runner.TOLERANCE:.0e}. Nothing was written."
            )
    return deviations


def _rounding(act: Act, observation: np.ndarray, action: np.ndarray) -> np.ndarray:
    """[N, A]: how far the trained policy's own actions may be off by rounding.

    `ROUNDINGS` times what the least step of float32 in all dimensions of the observation does to them:
    rounding within the network adds up to more than that of its inputs.
    """
    generator = np.random.default_rng(1)
    largest = np.zeros(action.shape)
    for _ in range(SHAKES):
        towards = generator.choice(np.array([-np.inf, np.inf], np.float32), size=observation.shape)
        moved = act(np.nextafter(observation, towards)).astype(np.float64)
        largest = np.fmax(largest, np.abs(moved - action))
    return ROUNDINGS * largest


def _cases(low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """Rows [n, O] float32 by kind, for the box from ``low`` to ``high``, both [O] float32."""
    generator = np.random.default_rng(0)
    wide_low, wide_high = low.astype(np.float64), high.astype(np.float64)
    width = wide_high - wide_low

    def inside(count: int) -> np.ndarray:
        rows = wide_low + generator.uniform(size=(count, len(low))) * width
        return np.clip(rows.astype(np.float32), low, high)

    chosen = np.linspace(0, len(low) - 1, min(len(low), COMPARED_DIMENSIONS)).astype(int)

    def each(values: np.ndarray) -> np.ndarray:
        """Rows that are inside, but for one dimension."""
        rows = inside(len(chosen))
        rows[np.arange(len(chosen)), chosen] = values[chosen]
        return rows

    edges = [each(low), each(high), low[None], high[None]]
    below, above = np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf))
    signs = generator.choice([-1.0, 1.0], size=(FAR_ROWS, len(low)))
    far = (wide_low + wide_high) / 2 + signs * (0.5 + FAR) * width
    broken = [each(np.full(len(low), bad, np.float32)) for bad in (np.nan, np.inf, -np.inf)]
    return {
        "inside": inside(INSIDE_ROWS),
        "edge": np.concatenate(edges),
        "outside": np.concatenate([each(below), each(above), far.astype(np.float32)]),
        "not finite": np.concatenate([*broken, np.full((1, len(low)), np.nan, np.float32)]),
    }
