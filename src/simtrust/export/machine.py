"""What is known of the machine that a policy runs on: its dimensions' names and units, its control rate."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gymnasium.vector import SyncVectorEnv, VectorEnv

from simtrust.errors import ConfigError, SimulatorError
from simtrust.simulators import make_simulator
from simtrust.simulators.batched import BatchedTask
from simtrust.simulators.built_in import find_built_in
from simtrust.simulators.closing import closed_at_end

WITH_UNIT = re.compile(r"(.*) \(([^()]*)\)", re.DOTALL)
RATE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Dimensions:
    """Names and units of the dimensions of an observation or an action; a unit is empty where unknown."""

    names: tuple[str, ...]
    units: tuple[str, ...]

    @classmethod
    def from_labels(cls, labels: Sequence[str]) -> "Dimensions":
        """From names with units, such as ``"torso height (m)"``."""
        matches = [WITH_UNIT.fullmatch(label) for label in labels]
        names = (match[1] if match else label for match, label in zip(matches, labels, strict=True))
        return cls(tuple(names), tuple(match[2] if match else "" for match in matches))


@dataclass(frozen=True)
class Machine:
    """What a policy reads and commands, and how often."""

    observation: Dimensions
    action: Dimensions
    rate: float | None
    """In Hz; None where nobody told."""
    rate_note: str


def describe_machine(
    environment: str,
    sizes: tuple[int, int],
    rate: float | None,
    logged: Any = None,
) -> Machine:
    """What the log calls its dimensions, else what the environment by this name does, else numbers.

    And at what rate it acts, or else the given one. ``logged`` is what a run's record keeps of the log's
    names and units (`simtrust.data.dataset.DimensionNames`). Code of the user (``module:factory``) is not
    run.

    Raises:
        ConfigError: ``rate`` is not positive, or not the environment's own.
    """
    if rate is not None and not 0 < rate < float("inf"):
        raise ConfigError(f"--rate is {rate}; it must be positive")
    built_in = find_built_in(environment)
    labels = [] if built_in is None else [built_in.observation_names, built_in.action_names]
    if tuple(map(len, labels)) != sizes:
        labels = [
            [f"{kind} {i}" for i in range(n)]
            for kind, n in zip(("observation", "action"), sizes, strict=True)
        ]
    known = _own_rate(environment)
    if rate is not None and known is not None and abs(rate / known - 1) > RATE_TOLERANCE:
        raise ConfigError(
            f"--rate is {rate:g} Hz, but the policy was trained for {environment}, which acts at {known:g} "
            "Hz; leave --rate out, or train at the other rate"
        )
    if known is not None:
        note = f"that of {environment}"
    elif rate is not None:
        note = "as given with the export"
    else:
        note = f"{environment} does not tell; add --rate HZ to the export"
    observation, action = (
        _logged(logged, kind, size) or Dimensions.from_labels(own)
        for kind, size, own in zip(("observation", "action"), sizes, labels, strict=True)
    )
    return Machine(observation, action, rate if known is None else known, note)


def _logged(stored: Any, kind: str, size: int) -> Dimensions | None:
    """None where the log named nothing, or the record is of another shape."""
    if not isinstance(stored, Mapping):
        return None
    names = stored.get(f"{kind}_names") or ()
    units = stored.get(f"{kind}_units") or ("",) * size
    for given in (names, units):
        if not isinstance(given, list | tuple) or len(given) != size:
            return None
        if not all(isinstance(text, str) for text in given):
            return None
    return Dimensions(tuple(names), tuple(units))


def _own_rate(environment: str) -> float | None:
    """In Hz, of a built-in task, or of a Gymnasium environment that has ``dt``."""
    if ":" in environment:
        return None
    try:
        with closed_at_end(make_simulator(environment, num_envs=1)) as simulator:
            rate = 1 / _time_step(simulator.unwrapped)
    except (SimulatorError, AttributeError, TypeError, ValueError, ZeroDivisionError):
        return None
    # The step is a decimal number of seconds, its reciprocal seldom.
    return round(rate, 6) if 0 < rate < float("inf") else None


def _time_step(instances: VectorEnv) -> float:
    if isinstance(instances, BatchedTask):
        return instances.time_step
    assert isinstance(instances, SyncVectorEnv)
    return float(instances.get_attr("dt")[0])
