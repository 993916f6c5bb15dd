"""Runs side by side: their agents, what they do between updates, and the device's way to update all of them.

A GPU updates all runs in one program, mapped over the runs axis R. On a CPU that would be slower than run by
run, each a program of its own on a thread of its own: batched products of this size leave cores waiting for
one another. So on a CPU a run has the same bits alone and beside others. The same goes for the actors of
trainings that collect together: on a CPU every training's act in the program that it has alone.

Actors act on the processor, beside their simulators: on a GPU they would wait for the updates of others.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from simtrust.algorithms.agent import Agent, Algorithm
from simtrust.algorithms.inputs import Coefficients
from simtrust.data.replay import ReplayBuffer, unpack
from simtrust.device import processor
from simtrust.gap.classifier import REAL, SIM, classifier_accuracy
from simtrust.gap.dynamics_model import DynamicsModel
from simtrust.limits import usable_processors
from simtrust.training.rounds import Draw, Source, draw, joined, over_runs, train_round

# What a random key is for. Every stream is folded from the run's seed, this number, and the step.
CREATE, UPDATE, EXPLORE, FIT_GAP, FIT_DYNAMICS = range(5)


class Log(NamedTuple):
    """The real rows on the device. The critics and the actor learn from all of them.

    The classifiers learn from the first ``training`` rows, are tested on the ``held_out`` rows after
    these, and never see the rest.
    """

    rows: Float[Array, "T row"]
    training: int
    held_out: int
    dynamics: DynamicsModel | None = None
    """What was fitted to these rows to predict reality, where a term reads that; one for all runs."""


NO_LOG = (None, 0, 0, None)


class Share(NamedTuple):
    """What one training brings to a round of updates: its runs [R], and what they learn from."""

    agents: Agent
    """Given up: their memory is reused."""
    log: Log | None
    buffer: ReplayBuffer | None
    keys: PRNGKeyArray
    coefficients: Coefficients
    step: int

    def source(self, run: int | None = None) -> Source:
        """That of one run, or of all of them."""
        runs = np.arange(len(self.keys), dtype=np.int32)
        which = slice(None) if run is None else slice(run, run + 1)
        rows, _, _, dynamics = self.log or NO_LOG
        return Source(
            rows,
            dynamics,
            self.buffer,
            jnp.asarray(runs[which]),
            self.keys[which],
            self.coefficients,
            jnp.asarray(self.step, jnp.uint32),
        )

    @property
    def training(self) -> int:
        """How many of the log's rows the classifiers learn from."""
        return (self.log or NO_LOG)[1]


class Updated(NamedTuple):
    """What a round of updates makes of a training."""

    agents: Agent
    metrics: dict[str, np.ndarray]
    """[R], means over the updates."""
    finite: np.ndarray
    """[R] bool: whether every number of an agent is finite, those of its optimisers included."""


Updates = Callable[[], list[Updated]]
"""A round of updates that has begun; being called, it waits until they are done."""
UpdateAll = Callable[["Fleet", Sequence[Share], int], Updates]
Act = Callable[..., np.ndarray]
"""``act(observation [R, S, O], keys, step) -> actions [R, S, A]``; `Fleet.actor` says what these are."""
ActAll = Callable[["Fleet", Sequence[Agent], Sequence[PRNGKeyArray]], tuple[Act, Any]]


_joined = jax.jit(joined)


def seed_keys(seeds: Sequence[int], purpose: int) -> PRNGKeyArray:
    """One random key a run [R], of one purpose."""
    return jnp.stack([jax.random.fold_in(jax.random.key(seed), purpose) for seed in seeds])


def update_as_one(fleet: "Fleet", shares: Sequence[Share], updates: int) -> Updates:
    """All runs of all shares in one program, which a GPU works on while this process goes on."""
    sizes = tuple(len(share.keys) for share in shares)
    agents, metrics = fleet.round(
        _joined([share.agents for share in shares]),
        tuple(share.source() for share in shares),
        updates=updates,
        training=tuple(share.training for share in shares),
    )
    # Asked for now, since the device does one thing after another: later it would wait for others' updates.
    parts = [_parted(each, sizes) for each in (agents, metrics, fleet.all_finite(agents))]

    def wait() -> list[Updated]:
        return [Updated(own, *jax.tree.map(np.asarray, told)) for own, *told in zip(*parts, strict=True)]

    return wait


def update_one_by_one(fleet: "Fleet", shares: Sequence[Share], updates: int) -> Updates:
    """Every run in a program of its own, as many at a time as there are processors; all done at once."""

    def one(job: tuple[Share, int, Agent]) -> tuple[Agent, dict[str, np.ndarray]]:
        share, run, agent = job
        # Waiting here keeps the thread; without, all of them would be computed on one.
        return jax.block_until_ready(
            fleet.round(agent, (share.source(run),), updates=updates, training=(share.training,))
        )

    jobs = [
        (share, run, agent)
        for share in shares
        for run, agent in enumerate(_parted(share.agents, (1,) * len(share.keys)))
    ]
    if len(jobs) == 1:
        done = iter([one(jobs[0])])
    else:
        with ThreadPoolExecutor(usable_processors()) as threads:
            done = iter(list(threads.map(one, jobs)))
    updated = []
    for share in shares:
        agents, metrics = zip(*(next(done) for _ in share.keys), strict=True)
        means = {name: np.concatenate([m[name] for m in metrics]) for name in metrics[0]}
        joined_agents = _joined(agents)
        updated.append(Updated(joined_agents, means, fleet.finite(joined_agents)))
    return lambda: updated


def act_as_one(fleet: "Fleet", agents: Sequence[Agent], keys: Sequence[PRNGKeyArray]) -> tuple[Act, Any]:
    """The actors of all trainings in one program."""
    actors = _joined(fleet.on_processor([each.actor for each in agents]))
    return fleet.actor(eqx.tree_at(lambda agent: agent.actor, agents[0], actors)), _joined(keys)


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
        self.round = jax.jit(
            partial(train_round, algorithm), static_argnames=("updates", "training"), donate_argnums=0
        )
        self._draw = jax.jit(partial(draw, algorithm), static_argnums=1)
        self._accuracy = jax.jit(self._held_out_accuracy)
        self._copy = jax.jit(partial(jax.tree.map, jnp.copy))
        self.all_finite = jax.jit(over_runs(_all_finite, (0,)))
        self._act = {
            explore: jax.jit(partial(self._actions, explore), static_argnums=0) for explore in (True, False)
        }

    def create(self, seeds: Sequence[int]) -> Agent:
        """Fresh agents [R], one for each seed."""
        return eqx.filter_jit(over_runs(self.algorithm.create, (0,)))(seed_keys(seeds, CREATE))

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
        return self._update_all(self, shares, updates)

    def copy(self, agents: Agent) -> Agent:
        """Agents that `train` may be given while these are kept."""
        return self._copy(agents)

    def finite(self, agents: Agent) -> np.ndarray:
        """``[R]`` bool: whether every number of an agent is finite, those of its optimisers included."""
        return np.asarray(self.all_finite(agents))

    def on_processor(self, tree: Any) -> Any:
        """The arrays of a tree where actors act."""
        if self._processor is None:
            return tree
        return jax.tree.map(lambda x: jax.device_put(x, self._processor) if eqx.is_array(x) else x, tree)

    def draw(self, log: Log | None, buffer: ReplayBuffer | None, keys: PRNGKeyArray, *, step: int) -> Draw:
        """What `train` draws for the update of ``step``, and which rows these are."""
        share = Share(None, log, buffer, keys, self.algorithm.coefficients, step)  # pyright: ignore[reportArgumentType]
        return self._draw(share.source(), share.training)

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
            actions = self._act[keys is not None]
            return np.asarray(actions(structure, leaves, observation, keys, np.asarray(step, np.uint32)))

        return act

    def _actions(self, explore: bool, structure, leaves, observation, keys, step):
        actors = jax.tree.unflatten(structure, leaves)
        if not explore:
            return over_runs(lambda actor, s: actor.best(s), (0, 0))(actors, observation)
        keys = jax.vmap(jax.random.fold_in)(keys, jnp.broadcast_to(step, keys.shape))
        size = self.algorithm.action_size
        noise = jax.vmap(lambda key: jax.random.normal(key, (observation.shape[1], size)))(keys)
        return over_runs(lambda actor, s, noise: actor.explore(s, noise), (0, 0, 0))(
            actors, observation, noise
        )

    def held_out_accuracy(self, agents: Agent, log: Log, fresh: np.ndarray) -> dict[str, Array]:
        """The classifiers' accuracy [R] on rows they never trained on, which nobody waited for yet.

        Real: the log's held-out rows. Simulated: ``fresh`` rows [R, n, row], just collected.
        """
        real = log.rows[log.training : log.training + log.held_out]
        return self._accuracy(agents.classifier, real, fresh)

    def _held_out_accuracy(self, classifiers, real, fresh):
        sizes = (self.algorithm.observation_size, self.algorithm.action_size)

        def accuracy(classifier, fresh):
            return {
                **classifier_accuracy(classifier, unpack(real, *sizes), REAL),
                **classifier_accuracy(classifier, unpack(fresh, *sizes), SIM),
            }

        return over_runs(accuracy, (0, 0))(classifiers, fresh)


def _all_finite(agent: Agent) -> Array:
    inexact = [x for x in jax.tree.leaves(agent) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in inexact]).all()


@partial(jax.jit, static_argnums=1)
def _parted(tree: Any, sizes: tuple[int, ...]) -> list[Any]:
    """Trees [sizes[i], ...] of a tree of arrays [R, ...], in order."""
    if len(sizes) == 1:
        return [tree]
    ends = np.cumsum(sizes)
    return [
        jax.tree.map(lambda x, end=end, size=size: x[end - size : end], tree)
        for end, size in zip(ends, sizes, strict=True)
    ]
