"""A first run in about a minute: a log of a swinging pendulum, and a simulator of it that is wrong.

    python examples/pendulum.py

The real machine is Gymnasium's Pendulum-v1; the log was recorded on it by a simple controller. The
simulator is the same pendulum under 1.5 times the gravity. Two recipes train on them: `trust`, which
uses both and weighs simulated rows by their dynamics, and `sac`, which believes the simulator. Both are
then judged on the real pendulum (a return of 0 would be perfect).
"""

import shutil
from pathlib import Path

import gymnasium
from rich.console import Console
from rich.table import Table

import simtrust
from simtrust.data import describe, generate_pendulum_log

OUT = Path("runs/demo")
STEPS = 15_000
TINY = {"hidden_sizes": (64, 64), "classifier_hidden_sizes": (64,), "batch_size": 128}
TINY |= {"classifier_batch_size": 128, "learning_rate": 1e-3, "reward_scale": 0.1}


def heavy_pendulum() -> gymnasium.Env:
    """The simulator: gravity 15 m/s² where the real pendulum has 10."""
    return gymnasium.make("Pendulum-v1", g=15.0)


def main() -> None:
    console = Console()
    # The demo may be run again and again; nothing else is ever deleted.
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    log = generate_pendulum_log(OUT / "pendulum.hdf5", rows=10_000)
    dataset = simtrust.load_dataset(log)
    console.print(describe(dataset), highlight=False)
    table = Table("policy", "return on the real pendulum", "std", "in its simulator")
    returns = dataset.episode_returns
    table.add_row("the log's controller", f"{returns.mean():,.0f}", f"{returns.std():,.0f}", "")
    for recipe in ("trust", "sac"):
        result = simtrust.train(
            recipe,
            real=log,
            sim="pendulum:heavy_pendulum",
            real_env="Pendulum-v1",
            steps=STEPS,
            out=OUT / recipe,
            evaluate_every=5_000,
            **TINY,
        )
        real, simulated = (
            simtrust.evaluate(result.directory, env=env, episodes=20)[2].returns
            for env in ("Pendulum-v1", "pendulum:heavy_pendulum")
        )
        table.add_row(recipe, f"{real.mean():,.0f}", f"{real.std():,.0f}", f"{simulated.mean():,.0f}")
    console.print(table)
    console.print(f"Curves: {OUT}/*/metrics.jsonl. Next: your own log and simulator, see README.md.")


if __name__ == "__main__":
    main()
