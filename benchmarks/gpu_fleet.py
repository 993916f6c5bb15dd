"""How fast many H2O runs train side by side, on a GPU or a processor, and how far an hour of it reaches.

    python benchmarks/gpu_fleet.py [--runs 1 5 45 225] [--device gpu] [--json FILE]

HalfCheetah's sizes, the paper's architecture, batch 128 + 128. A round is 1,000 updates of every run and, as
in training, 1,000 steps of every run's simulator with its own policy; the updates' rate is the median of some
rounds. The yardsticks are the maker's figures of the device for dense float32 products, with and without
TF32, and a chain of large products in the same process. On a recent GPU JAX's products are in TF32, unless
JAX_DEFAULT_MATMUL_PRECISION=highest is set. Prints Markdown tables. Memory is checked before anything runs.
"""

import argparse
import gc
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rates import GFLOP_PER_H2O_UPDATE, PEAKS, Peak, begin_round, chain_rate, random_rows, seconds
from simtrust.algorithms.agent import Algorithm
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import get_recipe
from simtrust.device import choose_device, device_kind, free_device_memory
from simtrust.errors import ConfigError
from simtrust.limits import available_memory, usable_processors
from simtrust.simulators import make_simulator
from simtrust.simulators.closing import closed_at_end
from simtrust.training.collect import Collector
from simtrust.training.fleet import EXPLORE, Fleet, seed_keys
from simtrust.training.scaling import make_scaling

TASK, OBSERVATION, ACTION = "HalfCheetah-v5", 17, 6
OPTIONS = AlgorithmOptions()
LOG_ROWS, SIMULATED_ROWS = 200_000, 1_000_000
RUN_BYTES = 64 * 2**20
"""Of a run: its networks, their optimisers, and what an update computes; generously."""
RUN_STEPS, TABLE_RUNS = 1_000_000, 225
"""Updates of one run of the paper, and the runs of its Table 1: 9 datasets and shifts, 5 recipes, 5 seeds."""
HOUR = 3_600.0
PRODUCTS = 10


class Measured(NamedTuple):
    """What one number of runs took."""

    runs: int
    updates_per_second: float
    """Of all runs together."""
    update_seconds: float
    """Of 1,000 updates of every run."""
    rollout_seconds: float
    """Of 1,000 simulator steps of every run."""
    both_seconds: float
    """Of both, half of the runs updated while the others collect; of a single run, in turns."""
    first_seconds: float
    """Of the first updates, which are compiled."""
    peak_bytes: int | None
    """Of the device's memory since the process began; None where it does not tell."""


# Arithmetic -----------------------------------------------------------------------------------------------


def teraflops(updates_per_second: float) -> float:
    return updates_per_second * GFLOP_PER_H2O_UPDATE / 1e3


def share(reached: float, peak: float | None) -> str:
    """What of a peak is reached, as a percentage; a dash without a peak."""
    return "–" if peak is None else f"{reached / peak:.1%}"


def updates_in(seconds: float, runs: int, seconds_per_1000: float) -> int:
    """Updates of so many runs together, if 1,000 of each take so long."""
    return int(seconds / seconds_per_1000 * 1_000) * runs


def table_hours(runs: int, seconds_per_1000: float, table_runs: int = TABLE_RUNS) -> float:
    """Hours for so many whole runs, ``runs`` of them at a time."""
    return math.ceil(table_runs / runs) * RUN_STEPS / 1_000 * seconds_per_1000 / HOUR


def needed_bytes(runs: int, simulated_rows: int, log_rows: int, row_size: int, product_size: int) -> int:
    """Of the device's memory: buffers, what is inserted into them at once, agents, log; or the products'."""
    rows = log_rows + runs * (simulated_rows + 2 * log_rows)
    return max(4 * row_size * rows + runs * RUN_BYTES, 5 * 4 * product_size**2)


# Measuring ------------------------------------------------------------------------------------------------


def free_bytes() -> int:
    """Of the device's memory that JAX may take, or of the machine's where that is the same."""
    free = free_device_memory()
    return available_memory() if free is None else free


def peak_bytes() -> int | None:
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def product_rate(size: int, rounds: int) -> float:
    """TFLOP/s of a chain of square products in JAX's present precision, the best of the rounds."""
    chain_rate(size, PRODUCTS)
    return max(chain_rate(size, PRODUCTS) for _ in range(rounds)) / 1e3


def measure(algorithm: Algorithm, runs: int, *, simulated_rows: int, updates: int, rounds: int) -> Measured:
    rows = random_rows(algorithm, min(LOG_ROWS, simulated_rows))
    begin = begin_round(algorithm, runs, rows, simulated_rows, updates)
    first = seconds(lambda: begin()())
    taken = float(np.median([seconds(lambda: begin()()) for _ in range(rounds)]))
    del begin
    with collecting(algorithm, runs, updates) as collect:
        rollout = seconds(collect)
    both = (
        taken + rollout if runs == 1 else in_two_lanes(algorithm, runs, rows, simulated_rows, updates, rounds)
    )
    taken, rollout, both = (each / updates * 1e3 for each in (taken, rollout, both))
    return Measured(runs, runs / taken * 1e3, taken, rollout, both, first, peak_bytes())


def in_two_lanes(
    algorithm: Algorithm, runs: int, rows: jax.Array, simulated_rows: int, updates: int, rounds: int
) -> float:
    """Seconds of so many updates and steps of every run, half of them updated while the others collect."""
    half = (runs + 1) // 2
    begin = begin_round(algorithm, half, rows, simulated_rows, updates)
    with collecting(algorithm, half, updates) as collect:

        def lane() -> Any:
            wait = begin()
            collect()
            return wait()

        lane()
        return 2 * float(np.median([seconds(lane) for _ in range(rounds)]))


@contextmanager
def collecting(algorithm: Algorithm, runs: int, steps: int) -> Iterator[Callable[[], Any]]:
    """So many steps of every run, as training collects them, without what it does once for all steps."""
    fleet = Fleet(algorithm)
    keys = fleet.on_processor(seed_keys(range(runs), EXPLORE))
    bound = np.ones(ACTION)
    scaling = make_scaling(
        None, -bound, bound, OBSERVATION, normalise_observations=False, reward_scale=1.0, discount=0.99
    )
    explore = fleet.actor(fleet.create(range(runs)))
    with closed_at_end(make_simulator(TASK, num_envs=runs)) as simulator:
        collector = Collector(simulator, scaling)
        collector.restart(list(range(runs)))
        collector.collect(explore, keys, step=0, count=2)
        yield lambda: collector.collect(explore, keys, step=2, count=steps).transitions


# Telling --------------------------------------------------------------------------------------------------


RATES = (
    "runs", "updates/s in all", "TFLOP/s", "of float32's peak", "of TF32's peak", "of the products",
    "1,000 updates, s", "1,000 simulator steps, s", "both at once, s", "first call, s",
    "peak device memory, GiB",
)  # fmt: skip
HOURS = ("runs", "an hour of updates", "whole runs", "with rollouts", "whole runs", "Table 1, h")


def head(names: Sequence[str]) -> str:
    return f"{line(names)}\n{line(['---'] * len(names))}"


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def rates(one: Measured, peak: Peak | None, product: float) -> tuple[str, ...]:
    """The cells of `RATES`."""
    work = teraflops(one.updates_per_second)
    return (
        str(one.runs),
        f"{one.updates_per_second:,.0f}",
        f"{work:.3g}",
        share(work, peak.float32 if peak else None),
        share(work, peak.tf32 if peak else None),
        share(work, product),
        f"{one.update_seconds:.3g}",
        f"{one.rollout_seconds:.3g}",
        f"{one.both_seconds:.3g}",
        f"{one.first_seconds:.1f}",
        "–" if one.peak_bytes is None else f"{one.peak_bytes / 2**30:.1f}",
    )


def hours(one: Measured) -> tuple[str, ...]:
    """The cells of `HOURS`: how far one reaches, by the updates alone, and with rollouts at the same time."""
    reached = (updates_in(HOUR, one.runs, each) for each in (one.update_seconds, one.both_seconds))
    cells = (cell for updates in reached for cell in (f"{updates:,}", f"{updates / RUN_STEPS:.2f}"))
    return str(one.runs), *cells, f"{table_hours(one.runs, one.both_seconds):.3g}"


def verdict(measured: Sequence[Measured]) -> str:
    """Whether the runs of Table 1 fit in one hour, by the best of the measured numbers of runs."""
    best = min(measured, key=lambda one: table_hours(one.runs, one.both_seconds))
    whole = table_hours(best.runs, best.both_seconds)
    alone = table_hours(best.runs, best.update_seconds)
    fit = "fit" if whole <= 1 else "do not fit"
    return (
        f"The {TABLE_RUNS} runs of Table 1, each of {RUN_STEPS:,} updates, {fit} in one hour: at h2o's rate, "
        f"{best.runs} at a time, they take {whole:.3g} h with rollouts, {alone:.3g} h without; evaluation, "
        "checkpoints and start-up come on top."
    )


def check(arguments: argparse.Namespace, algorithm: Algorithm) -> None:
    """End with a message if an option has no use, or the largest number of runs does not fit."""
    for name in ("runs", "updates", "rounds", "simulated_rows", "product_size"):
        if np.min(getattr(arguments, name)) < 1:
            raise SystemExit(f"--{name.replace('_', '-')} must be at least 1")
    runs, rows = max(arguments.runs), arguments.simulated_rows
    needed = needed_bytes(
        runs, rows, min(LOG_ROWS, rows), algorithm.simulated_row_size, arguments.product_size
    )
    if needed > (free := free_bytes()):
        raise SystemExit(
            f"{runs} runs with {rows:,} simulated rows each need about {needed / 2**30:.1f} GiB of memory of "
            f"{device_kind()}, {free / 2**30:.1f} GiB are free; lower --simulated-rows or --runs"
        )


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", help="default: 1 5 45; on a processor 1 5")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--simulated-rows", type=int, default=SIMULATED_ROWS, help="of each run's buffer")
    parser.add_argument("--updates", type=int, default=1_000, help="of a round; as many simulator steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--product-size", type=int, help="default: 8192; on a processor 2048")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    arguments = parser.parse_args(words)
    try:
        choose_device(arguments.device)
    except ConfigError as error:
        parser.error(str(error))
    on_processor = jax.default_backend() == "cpu"
    arguments.runs = sorted(set(arguments.runs or ((1, 5) if on_processor else (1, 5, 45))))
    arguments.product_size = arguments.product_size or (2_048 if on_processor else 8_192)
    return arguments


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse(words)
    algorithm = Algorithm(
        get_recipe("h2o"),
        OPTIONS,
        observation_size=OBSERVATION,
        action_size=ACTION,
        next_state_noise=jnp.eye(OBSERVATION),
    )
    check(arguments, algorithm)
    kind, size = device_kind(), arguments.product_size
    peak = PEAKS.get(kind)
    product = product_rate(size, arguments.rounds)
    with jax.default_matmul_precision("highest"):
        exact_product = product_rate(size, arguments.rounds)
    precision = jax.config.values["jax_default_matmul_precision"] or "JAX's default"
    makers = f"float32 {peak.float32}, TF32 {peak.tf32} TFLOP/s" if peak else "not known to this benchmark"
    print(f"{kind}, {usable_processors()} processors, JAX {jax.__version__}; maker's figures: {makers}.")
    print(
        f"Products of {size} × {size}: {product:.3g} TFLOP/s in {precision} precision, {exact_product:.3g} "
        f"TFLOP/s in full float32.\n\n{head(RATES)}",
        flush=True,
    )
    sizes = {name: getattr(arguments, name) for name in ("simulated_rows", "updates", "rounds")}
    facts = {
        "device": kind,
        "jax": jax.__version__,
        "processors": usable_processors(),
        "precision": precision,
        "product_size": size,
        "product_tflops": product,
        "float32_product_tflops": exact_product,
        "peak_tflops": peak._asdict() if peak else None,
        **sizes,
    }
    measured: list[Measured] = []
    for runs in arguments.runs:
        measured.append(measure(algorithm, runs, **sizes))
        # What one number of runs held is not to lie beside the next.
        gc.collect()
        print(line(rates(measured[-1], peak, product)), flush=True)
        if arguments.json:
            found = [{**one._asdict(), "tflops": teraflops(one.updates_per_second)} for one in measured]
            arguments.json.write_text(json.dumps({**facts, "measured": found}, indent=2) + "\n")
    print("", head(HOURS), *(line(hours(one)) for one in measured), "", verdict(measured), sep="\n")


if __name__ == "__main__":
    main()
