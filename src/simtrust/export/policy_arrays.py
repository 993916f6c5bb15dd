"""All that a policy's answers on the robot depend on, as float32 arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simtrust.errors import ExportError
from simtrust.training.scaling import Scaling

FORMAT = 1
MARGIN = 0.01
"""By which the log's range is widened to either side, as a share of its width in each dimension."""
Layer = tuple[np.ndarray, np.ndarray]


class ObservedRange(NamedTuple):
    """The least and the largest value of each dimension in a log, ``[O]`` float32."""

    low: np.ndarray
    high: np.ndarray

    def widened(self) -> "ObservedRange":
        """By `MARGIN`, and by at least one step of float32, so that rounding leaves the log itself inside."""
        low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        margin = MARGIN * (high - low)
        with np.errstate(over="ignore"):
            wider = (low - margin).astype(np.float32), (high + margin).astype(np.float32)
            bounds = np.nextafter(wider[0], np.float32(-np.inf)), np.nextafter(wider[1], np.float32(np.inf))
        largest = np.finfo(np.float32).max
        return ObservedRange(*(np.clip(bound, -largest, largest) for bound in bounds))


def policy_arrays(
    layers: Sequence[Layer], scaling: Scaling, valid_range: ObservedRange | None
) -> dict[str, np.ndarray]:
    """What `policy_graph` and the numpy runner read.

    Args:
        layers: weight ``[in, out]`` and bias ``[out]`` of each linear layer.
        scaling: between the machine's units and the network's.
        valid_range: of the observations; None, if any finite one is valid.

    Raises:
        ExportError: a number is not finite, or does not fit float32.
    """
    mean, std = np.asarray(scaling.observation_mean), np.asarray(scaling.observation_std)
    low, high = np.asarray(scaling.action_low), np.asarray(scaling.action_high)
    with np.errstate(over="ignore"):
        bounds = scaling.to_machine_action(np.stack([-np.ones(len(low)), np.ones(len(high))]))
    largest = np.full(len(mean), np.finfo(np.float32).max)
    valid = valid_range or ObservedRange(-largest, largest)
    arrays = {f"weight_{index}": weight for index, (weight, _) in enumerate(layers)}
    arrays |= {f"bias_{index}": bias for index, (_, bias) in enumerate(layers)}
    arrays |= {
        "observation_mean": mean,
        "observation_mean_rest": mean - mean.astype(np.float32),
        "observation_std": std,
        # Halves first: the whole range may be wider than a float holds.
        "action_half": high / 2 - low / 2,
        "action_centre": high / 2 + low / 2,
        "action_low": bounds[0],
        "action_high": bounds[1],
        "valid_low": valid.low,
        "valid_high": valid.high,
    }
    with np.errstate(over="ignore"):
        stored = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    wrong = [name for name, array in stored.items() if not np.isfinite(array).all()]
    if not stored["observation_std"].all():
        wrong.append("observation_std")
    if wrong:
        raise ExportError(f"the policy cannot be exported: {', '.join(wrong)} are not finite, or too small")
    return stored | {"format": np.array(FORMAT), "layers": np.array(len(layers))}
