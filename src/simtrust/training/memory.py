"""How much memory a run will take, of the machine's and of a GPU's, and whether it is there."""

from itertools import pairwise
from typing import NamedTuple

import jax

from simtrust.algorithms.agent import Algorithm
from simtrust.algorithms.critic import Reads
from simtrust.data.replay import row_size
from simtrust.device import device_kind, free_device_memory
from simtrust.errors import ConfigError
from simtrust.gap.dynamics_fitting import REVERSE_GAP_OPTIONS
from simtrust.limits import available_memory
from simtrust.training.config import TrainConfig
from simtrust.training.rounds import DRAWN_TOGETHER

BASE_BYTES = 850 * 2**20
"""What Python, JAX, MuJoCo and the compiled update take, measured."""
GAP_MODEL_BYTES = 150 * 2**20
"""What fitting a gap model and its compiled programs take beside that, measured."""
DYNAMICS_MODEL_BYTES = 250 * 2**20
"""The same of fitting a dynamics model to the log, measured."""


class NoRoomError(ConfigError):
    """A run would not fit into the memory that is free now."""


class Memory(NamedTuple):
    """Bytes at a run's peak."""

    machine: int
    device: int
    """Of a GPU's own; 0 where the processor computes."""


def predicted_memory(config: TrainConfig, algorithm: Algorithm, log_rows: int, capacity: int) -> Memory:
    """Peak memory of a run, generously; `benchmarks/memory_growth.py` compares it with what a run took.

    The machine's: the log three times while it is loaded, and the rows that wait for the next checkpoint,
    three times while it is written. Where is computed: the replay buffers, the agents, what an update
    computes; and, where a model is fitted first, three copies of what it is fitted to.
    """
    row = 4 * row_size(algorithm.observation_size, algorithm.action_size)
    options, reads = algorithm.options, algorithm.recipe.reads
    widths = (algorithm.observation_size + algorithm.action_size, *options.hidden_sizes, 1)
    network = 4 * sum(i * o + o for i, o in pairwise(widths))
    # Parameters and Adam's two moments, of critics and actor, and the target's parameters; three times,
    # since they are kept while the next ones are made, and a checkpoint or the gradients copy them.
    agents = 3 * network * (4 * options.critic_ensemble + 3)
    waiting = 3 * min(config.checkpoint_every, config.steps)
    simulated = 4 * algorithm.simulated_row_size if Reads.SIM in reads else 0
    # Every critic's values and their gradients at each layer, at the rows' actions and at sampled ones.
    actions = 1 + (3 * options.cql_actions if Reads.SAMPLED_ACTIONS in reads else 0)
    computed = 8 * options.critic_ensemble * sum(widths) * actions
    update = sum(algorithm.batch_sizes.values()) * (DRAWN_TOGETHER * row + computed)
    fitted = 0
    if algorithm.recipe.measures_gap:
        fitted = GAP_MODEL_BYTES + 3 * (log_rows + config.gap_probe_rows) * row
    if algorithm.recipe.predicts_reality:
        # Every member goes over the log in an order of its own, an index and what it is sorted by.
        fitted += DYNAMICS_MODEL_BYTES + log_rows * (3 * row + 8 * REVERSE_GAP_OPTIONS.members)
        # Every elite's mean and deviation, and three layers at once.
        numbers = 2 * algorithm.observation_size + 3 * max(REVERSE_GAP_OPTIONS.hidden_sizes)
        predicted = 4 * REVERSE_GAP_OPTIONS.elites * numbers
        update += algorithm.batch_sizes[Reads.SIM] * DRAWN_TOGETHER * predicted
    machine = BASE_BYTES + 3 * log_rows * row + config.seeds * waiting * simulated
    computing = fitted + config.seeds * (capacity * simulated + agents + update)
    if jax.default_backend() == "cpu":
        return Memory(machine + computing, 0)
    # The log lies on the device too.
    return Memory(machine, computing + log_rows * row)


def check_memory(config: TrainConfig, algorithm: Algorithm, log_rows: int, capacity: int) -> None:
    """Raise `NoRoomError` if the run would not fit into the memory that is free now, a GPU's included."""
    needed = predicted_memory(config, algorithm, log_rows, capacity)
    wanted = [("memory", needed.machine, available_memory())]
    if (free := free_device_memory()) is not None:
        wanted.append((f"memory of {device_kind()}", needed.device, free))
    for what, bytes_needed, available in wanted:
        if bytes_needed > available:
            raise NoRoomError(
                f"this run needs about {bytes_needed / 2**30:.1f} GiB of {what}, {available / 2**30:.1f} GiB "
                f"are free; lower --buffer-capacity (now {capacity:,} rows for each of {config.seeds} runs) "
                "or --seeds"
            )
