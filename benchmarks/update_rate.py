"""How much of the machine's own matrix-product rate an update reaches, and what the rest of a run costs.

    python benchmarks/update_rate.py [--recipe h2o] [--runs 1] [--rounds 5]

HalfCheetah's sizes, the paper's architecture, batch 128 + 128. The yardstick is a chain of
(256 × 256)·(256 × 256) float32 products in JAX, measured in the same process, in turns with the updates,
because the machine may be shared. One H2O update counts 0.66 GFLOP: products alone, forward and backward.
Prints a Markdown table: medians over the rounds, and the best and worst ratio of neighbouring turns.
"""

import argparse
import platform
import resource
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from rates import GFLOP_PER_H2O_UPDATE, chain_rate, one_round, random_rows, seconds
from simtrust.algorithms.agent import Algorithm
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import get_recipe
from simtrust.data import save_dataset
from simtrust.simulators import make_simulator
from simtrust.training.config import TrainConfig
from simtrust.training.loop import train

OBSERVATION, ACTION, ROWS = 17, 6, 200_000
SIMULATED_ROWS = 1_000_000
UPDATES, PRODUCTS = 500, 3_000


def updates(recipe: str, runs: int, rounds: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Updates/s and chain GFLOP/s of every round, and the seconds of the first call."""
    algorithm = Algorithm(
        get_recipe(recipe),
        AlgorithmOptions(),
        observation_size=OBSERVATION,
        action_size=ACTION,
        next_state_noise=jnp.eye(OBSERVATION),
    )
    advance = one_round(algorithm, runs, random_rows(algorithm, ROWS), SIMULATED_ROWS, UPDATES)
    compilation = seconds(advance)
    chain_rate(256, PRODUCTS)
    measured = [(chain_rate(256, PRODUCTS), runs * UPDATES / seconds(advance)) for _ in range(rounds)]
    chains, rates = np.array(measured).T
    return rates, chains, compilation


def peak_memory() -> float:
    """GiB of this process, at most, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def whole_run(steps: int) -> tuple[float, float]:
    """A complete h2o run: its seconds, and the time outside the updates as a share of theirs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.hdf5"
        save_dataset(path, random_log())
        began = time.perf_counter()
        config = TrainConfig(
            "h2o",
            real=str(path),
            sim="HalfCheetah-v5",
            shifts=("gravity=2",),
            out=f"{folder}/run",
            steps=steps,
        )
        summary = train(config, quiet=True).summary
        wall = time.perf_counter() - began
    training = steps / summary["updates_per_second"]
    return wall, (wall - training) / training


def random_log() -> dict[str, np.ndarray]:
    """200,000 rows that a random policy collects in the real task."""
    simulator, generator = make_simulator("HalfCheetah-v5", num_envs=200), np.random.default_rng(0)
    observation, _ = simulator.reset(seed=0)
    columns: dict[str, list] = {k: [] for k in ("observations", "actions", "rewards", "next_observations")}
    for _ in range(1_000):
        action = generator.uniform(-1, 1, (200, ACTION)).astype(np.float32)
        new, reward, *_ = simulator.step(action)
        for column, value in zip(columns.values(), (observation, action, reward, new), strict=True):
            column.append(np.asarray(value, np.float32).copy())
        observation = new
    log = {k: np.swapaxes(np.stack(v), 0, 1).reshape(ROWS, *v[0].shape[1:]) for k, v in columns.items()}
    ends = np.arange(1, ROWS + 1) % 1_000 == 0
    return log | {"terminals": np.zeros(ROWS, bool), "timeouts": ends}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default="h2o")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 5])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10_000, help="of the whole run; 0 skips it")
    arguments = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, JAX {jax.__version__}\n"
    )
    print(
        "| recipe | runs | updates/s | GFLOP/s | chain GFLOP/s | ratio (worst – best) "
        "| first call, s | peak memory, GiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for runs in arguments.runs:
        rates, chains, compilation = updates(arguments.recipe, runs, arguments.rounds)
        work = rates * GFLOP_PER_H2O_UPDATE
        ratio = np.sort(work / chains)
        print(
            f"| {arguments.recipe} | {runs} | {np.median(rates):.0f} | {np.median(work):.0f} | "
            f"{np.median(chains):.0f} | {np.median(ratio):.0%} ({ratio[0]:.0%} – {ratio[-1]:.0%}) | "
            f"{compilation:.1f} | {peak_memory():.2f} |",
            flush=True,
        )
    if arguments.steps:
        wall, overhead = whole_run(arguments.steps)
        print(
            f"\nA whole h2o run of {arguments.steps:,} steps: {wall:.0f} s, of which start-up, rollouts, "
            f"evaluation and checkpoints add {overhead:.0%} to the updates."
        )


if __name__ == "__main__":
    main()
