"""How good the policies of a run in progress are: returns in the real environment, and the user's evaluators.

An evaluator is a function of one policy that returns a number, or several by name. It is called for every
seed at every evaluation, the final one included. Its value is the metric ``evaluator/NAME``, or
``evaluator/NAME/KEY`` for each key. Like a callback it changes nothing of the run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from simtrust.algorithms.agent import Agent
from simtrust.errors import ConfigError, describe_error
from simtrust.evaluation.evaluators import Evaluator
from simtrust.evaluation.returns import EpisodeReturns, run_episodes
from simtrust.training.callbacks import CallbackError
from simtrust.training.fleet import Fleet
from simtrust.training.setup import Problem

RESTART, EVALUATE = "restart", "evaluate"


def episode_seeds(run_seeds: Sequence[int], step: int, purpose: str, count: int = 1) -> list[int]:
    """Simulator seeds [R·count], a function of (run seed, step, purpose) alone."""
    salt = {RESTART: 1, EVALUATE: 2}[purpose]
    states = [np.random.SeedSequence([seed, step, salt]).generate_state(count) for seed in run_seeds]
    return [int(s) for state in states for s in state]


class LivePolicy:
    """The policy of one seed as it is at one step, with its critics; it stays as it is while the run goes on.

    Calling it maps observations [..., O] to best actions [..., A], both in the machine's units. ``actor`` is
    its network, with a runs axis of 1.
    """

    def __init__(self, problem: Problem, fleet: Fleet, agents: Agent, *, run: int, step: int):
        self.seed, self.step = problem.config.run_seeds[run], step
        self.environment, self.scaling = problem.evaluation_name, problem.scaling
        self.discount = problem.config.algorithm.discount
        # A copy: the update gives up the memory of the agents it is handed.
        actor, critic = jax.tree.map(lambda x: jnp.copy(x[run : run + 1]), (agents.actor, agents.critic))
        self.actor = actor
        self._best = fleet.actor(eqx.tree_at(lambda agent: agent.actor, agents, actor))
        self._critic = jax.tree.map(lambda x: x[0], critic)

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        observation = np.asarray(observation)
        rows = self.scaling.observe(observation).reshape(1, -1, observation.shape[-1])
        actions = self.scaling.to_machine_action(self._best(rows))
        return actions.reshape(*observation.shape[:-1], -1)

    def value(self, observation: np.ndarray, action: np.ndarray) -> np.ndarray:
        """The least of the critics' Q(s, a) ``[...]``, in the machine's reward units."""
        inside = self.scaling.observe(observation), self.scaling.to_unit_action(action)
        return np.asarray(_least_value(self._critic, *inside)) / self.scaling.reward_scale


@jax.jit
def _least_value(critic: Callable[..., jax.Array], observation: jax.Array, action: jax.Array) -> jax.Array:
    return critic(observation, action).min(0)


class Judge:
    """Judges the policies of a run."""

    def __init__(self, problem: Problem, fleet: Fleet, evaluators: Mapping[str, Evaluator]):
        self.problem, self.fleet, self._evaluators = problem, fleet, dict(evaluators)
        self.seeds = problem.config.run_seeds
        self._judged: dict[str, tuple[int, Any]] = {}

    def episodes(self, agents: Agent, step: int) -> EpisodeReturns:
        """Whole episodes with the best action, from initial states that follow from seed and step.

        What was found at a step is found once: the last evaluation is the final one too, where it falls
        on the last step.
        """
        if self._known("episodes", step) is None:
            self._judged["episodes"] = step, self._run_episodes(agents, step)
        return self._known("episodes", step)

    def _known(self, what: str, step: int) -> Any:
        at, found = self._judged.get(what, (None, None))
        return found if at == step else None

    def _run_episodes(self, agents: Agent, step: int) -> EpisodeReturns:
        best, scaling = self.fleet.actor(agents), self.problem.scaling
        return run_episodes(
            self.problem.evaluation,
            lambda observation: scaling.to_machine_action(best(scaling.observe(observation))),
            runs=len(self.seeds),
            seeds=episode_seeds(self.seeds, step, EVALUATE, self.problem.config.evaluation_episodes),
        )

    def evaluators(self, agents: Agent, step: int) -> Iterator[tuple[str, list[float | None]]]:
        """The metrics of every evaluator in turn, and their values [R]; None where a seed has no such key.

        Raises:
            CallbackError: an evaluator raised, or did not return a number or numbers by name.
        """
        if not self._evaluators:
            return
        policies = [
            LivePolicy(self.problem, self.fleet, agents, run=run, step=step) for run in range(len(self.seeds))
        ]
        for name, evaluator in self._evaluators.items():
            key = f"evaluator/{name}"
            if self._known(key, step) is None:
                self._judged[key] = step, [_called(name, evaluator, policy) for policy in policies]
            values: list[dict[str, float]] = self._known(key, step)
            for metric in dict.fromkeys(metric for of_seed in values for metric in of_seed):
                yield metric, [of_seed.get(metric) for of_seed in values]


def check_evaluators(evaluators: Mapping[str, Any]) -> None:
    """Raise `ConfigError` unless these are functions by name."""
    for name, evaluator in evaluators.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"an evaluator's name is {name!r}; give a text")
        if not callable(evaluator):
            raise ConfigError(f"evaluator {name!r} is {evaluator!r}; give a function of a policy")


def _called(name: str, evaluator: Evaluator, policy: LivePolicy) -> dict[str, float]:
    try:
        returned = evaluator(policy)
    except Exception as error:
        raise CallbackError(f"evaluator {name!r} raised {describe_error(error)}") from error
    several = isinstance(returned, Mapping)
    named = {f"{name}/{key}": value for key, value in returned.items()} if several else {name: returned}
    try:
        return {f"evaluator/{metric}": _number(value) for metric, value in named.items()}
    except (TypeError, ValueError):
        raise CallbackError(
            f"evaluator {name!r} returned {returned!r}; it must return a number, or a dict of numbers"
        ) from None


def _number(value: Any) -> float:
    if isinstance(value, str | bytes):
        raise TypeError
    return float(value)
