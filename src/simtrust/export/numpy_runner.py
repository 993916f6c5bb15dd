"""How far is the simulator expected to be off at (s, a), and does its log say anything here?

Needs Python 3.8, numpy, and trust.npz:

    from trust_runner import TrustRunner
    trust = TrustRunner("trust.npz")
    found = trust(observation, action)  # one row, or a batch; in the machine's units
    found["valid"], found["gap"], found["divergence"], found["doubt"], found["error"]

    python trust_runner.py [trust.npz]  # checks that the answers are the exporter's, and times them
"""

from __future__ import annotations

import sys
import timeit
from pathlib import Path
from typing import IO

import numpy as np

TOLERANCE, TIMED_CALLS = 1e-5, 2_000


class TrustRunner:
    def __init__(self, file: str | Path | IO[bytes]):
        with np.load(file, allow_pickle=False) as stored:
            self.arrays = {name: stored[name] for name in stored.files}
        if self.arrays.get("format") != 1:
            writer = self.arrays.get("simtrust_version", "an unknown one")
            raise ValueError(f"{file} is not of format 1: use the runner of its version, {writer}")
        self.metadata: dict[str, str] = dict(self.arrays["metadata"].tolist())
        self.observation_names: list[str] = self.arrays["observation_names"].tolist()
        self.action_names: list[str] = self.arrays["action_names"].tolist()

    def __call__(self, observation: np.ndarray, action: np.ndarray) -> dict[str, np.ndarray]:
        """From [O] and [A], or [N, O] and [N, A], in the machine's units.

        gap [] or [N]: expected one-step error, in standard deviations of the logged change
        divergence [] or [N]: u, half its square times the number of dimensions that vary, in nats
        doubt [] or [N]: above 1, the log says nothing here
        error [O] or [N, O]: simulated - real, in the machine's units; NaN where the log does not vary
        valid [] or [N] bool: false where doubt > 1, or where an input is not finite; there the others are NaN
        """
        sizes = (len(self.observation_names),), (len(self.action_names),)
        with np.errstate(all="ignore"):  # What overflows is not valid.
            state, command = np.asarray(observation, np.float32), np.asarray(action, np.float32)
            leading = state.shape[:-1]
            if (state.shape, command.shape) != (leading + sizes[0], leading + sizes[1]) or len(leading) > 1:
                raise ValueError(
                    "observation and action must be of shape [{0}] and [{1}], or [N, {0}] and [N, {1}], not "
                    "{2} and {3}".format(*sizes[0], *sizes[1], list(state.shape), list(command.shape))
                )
            found = self._assess(np.concatenate([np.atleast_2d(state), np.atleast_2d(command)], axis=1))
        return found if leading else {name: value[0] for name, value in found.items()}

    def _assess(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        x = self.arrays
        hidden = (inputs - x["input_mean"]) / x["input_scale"]
        for layer in range(int(x["hidden_layers"])):
            reached = hidden @ x[f"weight_{layer}"] + x[f"bias_{layer}"]
            hidden = reached / (1 + np.exp(-reached)) + (hidden if layer else 0)
        mean = hidden @ x["weight_mean"] + x["bias_mean"]
        log_variance = hidden @ x["weight_log_variance"] + x["bias_log_variance"]
        bounds = x["log_variance_max"], x["log_variance_min"]
        parts = ((bound, np.maximum(log_variance / bound, 0)) for bound in bounds)
        log_variance = sum(bound * part / (1 + part) for bound, part in parts)
        average, variance = mean.mean(0), np.exp(log_variance).mean(0)
        expected = np.square(x["shift"] + average * x["spread"]) + variance * np.square(x["spread"])
        disagreement = np.square(mean - average).mean(0) * np.square(x["spread"])
        gap, doubt = (np.sqrt(squares.sum(1) / x["kept"]) for squares in (expected, disagreement))
        error = x["change_mean"] + average * x["change_scale"]
        u = np.float32(0.5 * x["kept"]) * np.square(gap)
        found = {"gap": gap, "divergence": u, "doubt": doubt / x["doubt_limit"], "error": error}
        for values in found.values():
            values[~np.isfinite(inputs).all(1)] = np.nan
        return {**found, "valid": found["doubt"] <= 1}

    def deviation(self, found: dict[str, np.ndarray]) -> float:
        """Of answers for the rows in trust.npz from the exporter's, in its units, or relative if large."""
        largest = 0.0 if np.array_equal(found["valid"], self.arrays["parity_valid"]) else np.inf
        for name in [x for x in ("gap", "divergence", "doubt", "error") if f"parity_{x}" in self.arrays]:
            expected, unit = self.arrays[f"parity_{name}"], self.arrays[f"parity_unit_{name}"]
            difference = np.abs(found[name] - expected) / np.fmax(np.abs(expected), unit)
            difference[np.isnan(found[name]) & np.isnan(expected)] = 0.0
            largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max()))
        return largest


if __name__ == "__main__":
    runner = TrustRunner(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("trust.npz"))
    rows = runner.arrays["parity_observation"], runner.arrays["parity_action"]
    deviation = runner.deviation(runner(*rows))
    took = timeit.repeat(lambda: runner(rows[0][0], rows[1][0]), number=1, repeat=TIMED_CALLS)
    half, most = np.percentile(took, [50, 99]) * 1e6
    sys.stdout.write(f"{half:.0f} us a call (p50), {most:.0f} us (p99), deviation {deviation:.1e}\n")
    if deviation > TOLERANCE:
        raise SystemExit(f"these are not the exporter's answers: the deviation exceeds {TOLERANCE}")
