"""What the dimensions of observation and action are called."""

from simtrust.data.dataset import Dataset, made_unique
from simtrust.simulators.built_in import find_built_in


def dimension_names(dataset: Dataset, simulator: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the observation's and the action's dimensions: the log's, else the built-in simulator's.

    Numbers where nobody named them. An action called like an observation gets "action" before its name,
    and names that are equal still get a number after them.
    """
    built_in = find_built_in(simulator)
    numbered = (
        tuple(f"{kind} {index}" for index in range(size))
        for kind, size in (("observation", dataset.observation_size), ("action", dataset.action_size))
    )
    usual = numbered if built_in is None else (built_in.observation_names, built_in.action_names)
    logged = (dataset.observation_names, dataset.action_names)
    observation, action = (own or other for own, other in zip(logged, usual, strict=True))
    action = (f"action {name}" if name in observation else name for name in action)
    unique = made_unique([*observation, *action])
    return unique[: len(observation)], unique[len(observation) :]
