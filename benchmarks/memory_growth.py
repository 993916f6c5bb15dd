"""Does a long run take more and more memory?

    python benchmarks/memory_growth.py [--steps 500000]

Trains h2o with tiny networks on a small log that it records, with evaluations and checkpoints, and
prints the memory of the whole process (resident set) as a Markdown table; its slope after the first
fifth, by which time the replay buffer is full and everything is compiled; and the highest it ever was, beside
what was predicted before training.
"""

import argparse
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil

from simtrust.algorithms.options import AlgorithmOptions
from simtrust.data import save_dataset
from simtrust.simulators import make_simulator
from simtrust.training.callbacks import Callback
from simtrust.training.config import TrainConfig
from simtrust.training.loop import train
from simtrust.training.memory import predicted_memory
from simtrust.training.metrics import MetricRecord
from simtrust.training.setup import prepare

SIMULATOR, EPISODE, EPISODES = "HalfCheetah-v5", 500, 4
ROWS_OF_TABLE = 20
MIB = 2**20


class Watch(Callback):
    """The resident set of this process in MiB, at every step that is a multiple of ``every``."""

    def __init__(self, every: int):
        self.every = every
        self.seen: list[tuple[int, float]] = []

    def on_metrics(self, records: Sequence[MetricRecord]) -> None:
        if records[0].step % self.every == 0:
            self.seen.append((records[0].step, psutil.Process().memory_info().rss / MIB))
            step, size = self.seen[-1]
            print(f"| {step:,} | {size:.1f} |", flush=True)


def record_log(path: Path) -> Path:
    """Random actions in the simulator, as D4RL's HDF5."""
    simulator = make_simulator(SIMULATOR, num_envs=1)
    generator = np.random.default_rng(0)
    rows = []
    for episode in range(EPISODES):
        observation, _ = simulator.reset(seed=episode)
        for step in range(EPISODE):
            action = generator.uniform(-1, 1, simulator.action_space.shape).astype(np.float32)
            following, reward, _, _, _ = simulator.step(action)
            rows.append((observation[0], action[0], reward[0], following[0], False, step == EPISODE - 1))
            observation = following.copy()
    keys = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    columns = (np.stack(column) for column in zip(*rows, strict=True))
    return save_dataset(path, dict(zip(keys, columns, strict=True)))


def predicted(config: TrainConfig) -> float:
    """MiB that a run is said to need before it begins."""
    problem = prepare(config)
    rows = 0 if problem.dataset is None else len(problem.dataset)
    needed = predicted_memory(config, problem.algorithm, rows, problem.capacity).machine
    problem.close()
    return needed / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=500_000)
    steps = parser.parse_args().steps
    small = AlgorithmOptions(
        hidden_sizes=(16,), batch_size=32, classifier_hidden_sizes=(16,), classifier_batch_size=32
    )
    every = max(steps // ROWS_OF_TABLE // 1_000, 1) * 1_000
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            recipe="h2o",
            real=str(record_log(Path(folder) / "log.hdf5")),
            sim=SIMULATOR,
            shifts=("gravity=2",),
            steps=steps,
            evaluate_every=every,
            evaluation_episodes=1,
            checkpoint_every=5_000,
            algorithm=small,
        )
        expected = predicted(config)
        watch = Watch(every)
        print("| steps | resident set, MiB |\n|---|---|", flush=True)
        train(replace(config, out=f"{folder}/run"), quiet=True, callbacks=[watch])
    step, size = np.array(watch.seen).T
    late = step > steps / 5
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if late.sum() > 1:
        slope = np.polyfit(step[late] / 100_000, size[late], 1)[0]
        print(f"\nSlope after step {steps // 5:,}: {slope:+.2f} MiB per 100,000 steps.")
    print(f"Highest ever: {peak:,.0f} MiB; predicted: {expected:,.0f} MiB.")


if __name__ == "__main__":
    main()
