"""Runs side by side: their agents and what is compiled for them; `simtrust.training.updating` updates them.

The actors of trainings that collect together act in one program only where all are updated in one. On a CPU
every training's act in the program that it has alone, so that it has the same bits alone and beside others.

Actors act on the processor, beside their simulators: on a GPU they would wait for the updates of others.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from simtrust.algorithms.agent import Agent, Algorithm
from simtrust.data.replay import ReplayBuffer, unpack
from simtrust.device import processor
from simtrust.gap.classifier import REAL, SIM, classifier_accuracy
from simtrust.training.rounds import Draw, draw, over_runs, train_round
from simtrust.training.updating import (
    Log,
    Round,
    Share,
    UpdateAll,
    Updates,
    all_finite,
    join_runs,
    update_as_one,
    update_one_by_one,
)

# What a random key is for. Every stream is folded from the run's seed, this number, and the step.
CREATE, UPDATE, EXPLORE, FIT_GAP, FIT_DYNAMICS = range(5)
KEPT = 8
"""Algorithms whose programs a process keeps: those of the runs of a table or a sweep are traced once."""


Act = Callable[..., np.ndarray]
"""``act(observation [R, S, O], keys, step) -> actions [R, S, A]``; `Fleet.actor` says what these are."""
ActAll = Callable[["Fleet", Sequence[Agent], Sequence[PRNGKeyArray]], tuple[Act, Any]]


def seed_keys(seeds: Sequence[int], purpose: int) -> PRNGKeyArray:
    """One random key a run [R], of one purpose."""
    return jnp.stack([jax.random.fold_in(jax.random.key(seed), purpose) for seed in seeds])


def act_as_one(fleet: "Fleet", agents: Sequence[Agent], keys: Sequence[PRNGKeyArray]) -> tuple[Act, Any]:
    """The actors of all trainings in one program."""
    actors = join_runs(fleet.on_processor([each.actor for each in agents]))
    return fleet.actor(eqx.tree_at(lambda agent: agent.actor, agents[0], actors)), join_runs(keys)


def act_one_by_one(fleet: "Fleet", agents: Sequence[Agent], keys: Sequence[PRNGKeyArray]) -> tuple[Act, Any]:
    """Every training's in the program that it has alone: one for more runs may round differently."""
    actors, ends = [fleet.actor(each) for each in agents], np.cumsum([len(each) for each in keys])
    runs = [slice(end - len(each), end) for each, end in zip(keys, ends, strict=True)]

    def act(observation: np.ndarray, keys: Sequence[PRNGKeyArray], step: np.ndarray) -> np.ndarray:
        each = zip(actors, keys, runs, strict=True)
        return np.concatenate([actor(observation[own], key, step[own]) for actor, key, own in each])

    return act, keys


class Fleet:
    """Compiled operations on ``R`` agents of one algorithm.

    ``update_all`` is `update_as_one` or `update_one_by_one`, ``act_all`` `act_as_one` or `act_one_by_one`,
    and ``lanes`` how many groups trainings side by side are parted into, of which one is updated while the
    others collect; by default what suits the device.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        update_all: UpdateAll | None = None,
        act_all: ActAll | None = None,
        lanes: int | None = None,
    ):
        self.algorithm = algorithm
        on_cpu = jax.default_backend() == "cpu"
        self._update_all = update_all or (update_one_by_one if on_cpu else update_as_one)
        self._act_all = act_all or (act_one_by_one if on_cpu else act_as_one)
        self._processor = None if on_cpu else processor()
        # Actors that act where others are updated would wait for these.
        self.lanes = lanes or (1 if self._processor is None else 2)
        self._programs = _compiled(_Shape(algorithm))

    def create(self, seeds: Sequence[int]) -> Agent:
        """Fresh agents [R], one for each seed."""
        return self._programs.create(seed_keys(seeds, CREATE))

    def train(
        self,
        agents: Agent,
        log: Log | None,
        buffer: ReplayBuffer | None,
        keys: PRNGKeyArray,
        *,
        step: int,
        updates: int,
    ) -> tuple[Agent, dict[str, np.ndarray]]:
        """``updates`` updates from ``step`` on; metrics [R] are means over them.

        ``agents`` are given up: their memory is reused.
        """
        share = Share(agents, log, buffer, keys, self.algorithm.coefficients, step)
        ((agents, metrics, _),) = self.begin_updates([share], updates)()
        return agents, metrics

    def begin_updates(self, shares: Sequence[Share], updates: int) -> Updates:
        """The same for several trainings at once, that differ in logs, keys, coefficients and steps."""
        return self._update_all(self._programs.round, shares, updates)

    def copy(self, agents: Agent) -> Agent:
        """Agents that `train` may be given while these are kept."""
        return _copy(agents)

    def finite(self, agents: Agent) -> np.ndarray:
        """``[R]`` bool: whether every number of an agent is finite, those of its optimisers included."""
        return np.asarray(all_finite(agents))

    def on_processor(self, tree: Any) -> Any:
        """The arrays of a tree where actors act."""
        if self._processor is None:
            return tree
        return jax.tree.map(lambda x: jax.device_put(x, self._processor) if eqx.is_array(x) else x, tree)

    def draw(self, log: Log | None, buffer: ReplayBuffer | None, keys: PRNGKeyArray, *, step: int) -> Draw:
        """What `train` draws for the update of ``step``, and which rows these are."""
        share = Share(None, log, buffer, keys, self.algorithm.coefficients, step)  # pyright: ignore[reportArgumentType]
        return self._programs.draw(share.source(), share.training)

    def actors(self, agents: Sequence[Agent], keys: Sequence[PRNGKeyArray]) -> tuple[Act, Any]:
        """`actor` for the runs of several trainings, one's after another's; and their keys as it takes them.

        ``step`` is one a run [R].
        """
        near = self.on_processor(list(keys))
        return (self.actor(agents[0]), near[0]) if len(agents) == 1 else self._act_all(self, agents, near)

    def actor(self, agents: Agent) -> Act:
        """A quick ``act(observation [R, S, O], keys, step) -> actions [R, S, A]`` for one rollout.

        With ``keys`` [R] it explores, without it takes the best action. ``step`` is one for all, or one a
        run [R].
        """
        # Flattening a module in Python at every step would cost more than the network itself.
        leaves, structure = jax.tree.flatten(self.on_processor(agents.actor))

        def act(
            observation: np.ndarray, keys: PRNGKeyArray | None = None, step: int | np.ndarray = 0
        ) -> np.ndarray:
            actions = self._programs.act[keys is not None]
            return np.asarray(actions(structure, leaves, observation, keys, np.asarray(step, np.uint32)))

        return act

    def held_out_accuracy(self, agents: Agent, log: Log, fresh: np.ndarray) -> dict[str, Array]:
        """The classifiers' accuracy [R] on rows they never trained on, which nobody waited for yet.

        Real: the log's held-out rows. Simulated: ``fresh`` rows [R, n, row], just collected.
        """
        real = log.rows[log.training : log.training + log.held_out]
        return self._programs.accuracy(agents.classifier, real, fresh)


class _Shape:
    """An algorithm as a key: algorithms that differ in their coefficients alone are the same program."""

    def __init__(self, algorithm: Algorithm):
        self.algorithm = algorithm

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shape) and self.algorithm.shape() == other.algorithm.shape()

    def __hash__(self) -> int:
        _, *hashable = self.algorithm.shape()
        return hash(tuple(hashable))


class _Programs(NamedTuple):
    """What is compiled for an algorithm, as it is called with each new shape of arrays."""

    create: Callable[..., Agent]
    round: Round
    draw: Callable[..., Draw]
    act: dict[bool, Callable[..., Array]]
    """By whether it explores."""
    accuracy: Callable[..., dict[str, Array]]


@lru_cache(maxsize=KEPT)
def _compiled(shape: _Shape) -> _Programs:
    algorithm = shape.algorithm
    return _Programs(
        create=eqx.filter_jit(over_runs(algorithm.create, (0,))),
        round=jax.jit(
            partial(train_round, algorithm), static_argnames=("updates", "training"), donate_argnums=0
        ),
        draw=jax.jit(partial(draw, algorithm), static_argnums=1),
        act={
            explore: jax.jit(partial(_actions, algorithm.action_size, explore), static_argnums=0)
            for explore in (True, False)
        },
        accuracy=jax.jit(partial(_held_out_accuracy, (algorithm.observation_size, algorithm.action_size))),
    )


_copy = jax.jit(partial(jax.tree.map, jnp.copy))


def _actions(
    size: int,
    explore: bool,
    structure: Any,
    leaves: list[Array],
    observation: Array,
    keys: Any,
    step: Array,
) -> Array:
    """``keys`` are None where it does not explore."""
    actors = jax.tree.unflatten(structure, leaves)
    if not explore:
        return over_runs(lambda actor, s: actor.best(s), (0, 0))(actors, observation)
    keys = jax.vmap(jax.random.fold_in)(keys, jnp.broadcast_to(step, keys.shape))
    noise = jax.vmap(lambda key: jax.random.normal(key, (observation.shape[1], size)))(keys)
    return over_runs(lambda actor, s, noise: actor.explore(s, noise), (0, 0, 0))(actors, observation, noise)


def _held_out_accuracy(
    sizes: tuple[int, int], classifiers: Any, real: Array, fresh: Array
) -> dict[str, Array]:
    def accuracy(classifier: Any, fresh: Array) -> dict[str, Array]:
        return {
            **classifier_accuracy(classifier, unpack(real, *sizes), REAL),
            **classifier_accuracy(classifier, unpack(fresh, *sizes), SIM),
        }

    return over_runs(accuracy, (0, 0))(classifiers, fresh)
