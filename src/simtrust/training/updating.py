"""The updates of several trainings at once, by the way that suits the device.

A GPU updates all runs in one program, mapped over the runs axis R. On a CPU that would be slower than run by
run, each a program of its own on a thread of its own: batched products of this size leave cores waiting for
one another. So on a CPU a run has the same bits alone and beside others.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from simtrust.algorithms.agent import Agent, Metrics
from simtrust.algorithms.inputs import Coefficients
from simtrust.data.replay import ReplayBuffer
from simtrust.gap.dynamics_model import DynamicsModel
from simtrust.limits import usable_processors
from simtrust.training.rounds import Source, joined, over_runs


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


Round = Callable[..., tuple[Agent, Metrics]]
"""`simtrust.training.rounds.train_round` of an algorithm, compiled."""
UpdateAll = Callable[[Round, Sequence[Share], int], Updates]
join_runs = jax.jit(joined)


@jax.jit
def all_finite(agents: Agent) -> Bool[Array, " R"]:
    """Whether every number of an agent is finite, those of its optimisers included."""

    def one(agent: Agent) -> Array:
        inexact = [x for x in jax.tree.leaves(agent) if jnp.issubdtype(x.dtype, jnp.inexact)]
        return jnp.stack([jnp.isfinite(x).all() for x in inexact]).all()

    return over_runs(one, (0,))(agents)


def update_as_one(update: Round, shares: Sequence[Share], updates: int) -> Updates:
    """All runs of all shares in one program, which a GPU works on while this process goes on."""
    sizes = tuple(len(share.keys) for share in shares)
    agents, metrics = update(
        join_runs([share.agents for share in shares]),
        tuple(share.source() for share in shares),
        updates=updates,
        training=tuple(share.training for share in shares),
    )
    # Asked for now, since the device does one thing after another: later it would wait for others' updates.
    parts = [_parted(each, sizes) for each in (agents, metrics, all_finite(agents))]

    def wait() -> list[Updated]:
        return [Updated(own, *jax.tree.map(np.asarray, told)) for own, *told in zip(*parts, strict=True)]

    return wait


def update_one_by_one(update: Round, shares: Sequence[Share], updates: int) -> Updates:
    """Every run in a program of its own, as many at a time as there are processors; all done at once."""

    def one(job: tuple[Share, int, Agent]) -> tuple[Agent, dict[str, np.ndarray]]:
        share, run, agent = job
        # Waiting here keeps the thread; without, all of them would be computed on one.
        return jax.block_until_ready(
            update(agent, (share.source(run),), updates=updates, training=(share.training,))
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
        joined_agents = join_runs(agents)
        updated.append(Updated(joined_agents, means, np.asarray(all_finite(joined_agents))))
    return lambda: updated


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
