"""What does the trained policy do here, and was its log ever here?

Needs Python 3.8, numpy, and policy.npz:

    from policy_runner import PolicyRunner
    policy = PolicyRunner("policy.npz")
    action, valid = policy(observation)  # one row, or a batch; in the machine's units

    python policy_runner.py [policy.npz]  # compares the answers with parity.npz beside it, and times them
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

TOLERANCE = 1e-5
TIMED_CALLS = 2_000


class PolicyRunner:
    def __init__(self, file: str | Path | IO[bytes]):
        with np.load(file, allow_pickle=False) as stored:
            x = {name: stored[name] for name in stored.files}
        _check_format(file, "policy", x)
        self.layers = [(x[f"weight_{i}"], x[f"bias_{i}"]) for i in range(int(x["layers"]))]
        # The mean in two parts: what float32 leaves of a mean far larger than the deviation is not lost.
        self.mean, self.mean_rest = x["observation_mean"], x["observation_mean_rest"]
        self.std = x["observation_std"]
        self.half, self.centre = x["action_half"], x["action_centre"]
        self.action_low, self.action_high = x["action_low"], x["action_high"]
        self.valid_low, self.valid_high = x["valid_low"], x["valid_high"]

    def __call__(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From [O], or [N, O], in the machine's units.

        action [A] or [N, A]: in the machine's units, within its bounds; NaN where it cannot be computed,
            as where an observation is not finite
        valid [] or [N] bool: false where the action is NaN, or the observation outside of the stated range
        """
        with np.errstate(all="ignore"):  # What overflows is not valid.
            rows = np.asarray(observation, np.float32)
            if rows.ndim not in (1, 2) or rows.shape[-1] != len(self.mean):
                expected = "[{0}] or [N, {0}]".format(len(self.mean))
                raise ValueError(f"observation must be of shape {expected}, not {list(rows.shape)}")
            action, valid = self._act(rows[None] if rows.ndim == 1 else rows)
        return (action[0], valid[0]) if rows.ndim == 1 else (action, valid)

    def _act(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hidden = (rows - self.mean - self.mean_rest) / self.std
        for weight, bias in self.layers[:-1]:
            hidden = np.maximum(hidden @ weight + bias, 0)
        weight, bias = self.layers[-1]
        squashed = np.tanh(hidden @ weight + bias)
        action = np.minimum(np.maximum(squashed * self.half + self.centre, self.action_low), self.action_high)
        known = np.isfinite(rows).all(1) & np.isfinite(squashed).all(1)
        valid = known & ((rows >= self.valid_low) & (rows <= self.valid_high)).all(1)
        return np.where(known[:, None], action, np.float32(np.nan)), valid


def _check_format(file: str | Path | IO[bytes], what: str, stored: Mapping[str, np.ndarray]) -> None:
    if stored.get("format") != 1:
        writer = stored.get("simtrust_version", "an unknown one")
        raise ValueError(f"{file} is no {what} of format 1; use the runner of its version, {writer}")


def deviation(action: np.ndarray, valid: np.ndarray, parity: Mapping[str, np.ndarray]) -> float:
    """Of answers for the rows of parity.npz from the exporter's, relative to the range of the actions.

    Infinite where validity differs, or where an action is outside of its bounds.
    """
    expected, nan = parity["action"], np.isnan(action)
    outside = (action < parity["action_low"]) | (action > parity["action_high"])
    if outside.any() or not np.array_equal(valid, parity["valid"]) or (nan != np.isnan(expected)).any():
        return float("inf")
    # In double precision, since a range of actions may be wider than float32 holds.
    difference = np.abs(action.astype(float) - expected) / parity["action_unit"]
    return float(np.where(nan, 0.0, difference).max(initial=0.0))


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("policy.npz")
    runner = PolicyRunner(path)
    with np.load(path.with_name("parity.npz"), allow_pickle=False) as stored:
        parity = dict(stored)
    _check_format(path.with_name("parity.npz"), "parity", parity)
    found = deviation(*runner(parity["observation"]), parity)
    row = parity["observation"][0]
    half, most = (
        np.percentile(timeit.repeat(lambda: runner(row), number=1, repeat=TIMED_CALLS), [50, 99]) * 1e6
    )
    sys.stdout.write(f"{half:.0f} us a call (p50), {most:.0f} us (p99), deviation {found:.1e}\n")
    if not found <= TOLERANCE:
        raise SystemExit(f"these are not the exporter's answers: the deviation exceeds {TOLERANCE}")
