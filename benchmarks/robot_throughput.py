"""How fast the robot's tiny networks learn and its simulator steps, and which bound each is near.

    python benchmarks/robot_throughput.py [--runs 1 5] [--rounds 5]

Networks of 32 × 32, batches of 16 + 16, as the paper's robot has. The yardstick of the updates is a chain of
(32 × 32)·(32 × 32) float32 products in JAX, measured in the same process, in turns: what this machine reaches
at this size, far below its rate for large products. An update's arithmetic is what XLA counts before it
optimises. The simulator's yardstick is MuJoCo's own stepping, without any of our Python. Prints two Markdown
tables of medians over the rounds.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from rates import chain_rate, one_round, random_rows, seconds
from simtrust.algorithms.agent import Algorithm, Batch
from simtrust.algorithms.critic import Reads
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import RECIPES, get_recipe
from simtrust.data.replay import unpack
from simtrust.simulators.wheel_legged import STANDING_STILL, WheelLegged
from simtrust.training.collect import Collector
from simtrust.training.fleet import EXPLORE, Fleet, seed_keys
from simtrust.training.scaling import make_scaling

OBSERVATION, ACTION, ROWS, UPDATES = 4, 1, 100_000, 1_000
OPTIONS = AlgorithmOptions(
    hidden_sizes=(32, 32), classifier_hidden_sizes=(32,), batch_size=32, classifier_batch_size=32
)
PRODUCTS = 20_000
RECIPES_TO_TIME = [name for name, recipe in RECIPES.items() if not recipe.predicts_reality]
"""Those that need no model fitted to a log."""


def updates(recipe: str, runs: int, rounds: int) -> tuple[float, float, float]:
    """Updates/s of all runs together, MFLOP of one update, and GFLOP/s of the chain."""
    algorithm = Algorithm(
        get_recipe(recipe),
        OPTIONS,
        observation_size=OBSERVATION,
        action_size=ACTION,
        next_state_noise=jnp.eye(OBSERVATION),
    )
    rows = random_rows(algorithm, ROWS)
    advance = one_round(algorithm, runs, rows, ROWS, UPDATES)
    advance()
    chain_rate(32, PRODUCTS)
    measured = [(chain_rate(32, PRODUCTS), runs * UPDATES / seconds(advance)) for _ in range(rounds)]
    product_rate, rate = np.median(measured, axis=0)
    return float(rate), arithmetic(algorithm, rows), float(product_rate)


def arithmetic(algorithm: Algorithm, rows) -> float:
    """MFLOP of one update."""
    sizes = (OBSERVATION, ACTION)
    half = algorithm.options.classifier_batch_size // 2

    def update(key):
        count = algorithm.batch_sizes
        real, sim = (
            unpack(rows[: count[s]], *sizes) if s in count else None for s in (Reads.REAL, Reads.SIM)
        )
        classifier = unpack(rows[:half], *sizes) if algorithm.recipe.trains_gap_model else None
        gap = rows[: count[Reads.SIM], -1] if algorithm.recipe.measures_gap else None
        batch = Batch(real, sim, classifier, classifier, gap)
        return algorithm.update(algorithm.create(key), batch, algorithm.draw_noise(key))

    cost = jax.jit(update).lower(jax.random.key(0)).cost_analysis()
    assert cost is not None
    return cost["flops"] / 1e6


def steps(instances: int, rounds: int) -> tuple[float, float, float]:
    """Steps/s of all instances: MuJoCo alone, our real twin, and a rollout with a policy (idealised)."""
    rates = []
    for _ in range(rounds):
        twin = WheelLegged(STANDING_STILL, num_envs=instances, fidelity="real", max_episode_steps=10**6)
        twin.reset(seed=0)
        count = max(2_000 // instances, 100)
        action = np.zeros((instances, ACTION), np.float32)

        def physics(twin=twin, count=count):
            for _ in range(count):
                twin.batch.step(nstep=twin.substeps)

        def task(twin=twin, count=count, action=action):
            for _ in range(count):
                twin.step(action)

        rates.append([count * instances / seconds(f) for f in (physics, task)] + [rollout_rate(instances)])
    return tuple(np.median(rates, axis=0))


def rollout_rate(runs: int) -> float:
    """Steps/s of the training's own collection, a policy for each instance."""
    robot = WheelLegged(STANDING_STILL, num_envs=runs)
    high = robot.model.actuator_ctrlrange[:, 1]
    scaling = make_scaling(
        None, -high, high, OBSERVATION, normalise_observations=False, reward_scale=1.0, discount=0.99
    )
    algorithm = Algorithm(
        get_recipe("sac"),
        OPTIONS,
        observation_size=OBSERVATION,
        action_size=ACTION,
        next_state_noise=jnp.zeros((OBSERVATION, OBSERVATION)),
    )
    fleet = Fleet(algorithm)
    explore = fleet.actor(fleet.create(range(runs)))
    collector, keys = Collector(robot, scaling), seed_keys(range(runs), EXPLORE)
    collector.restart(list(range(runs)))
    collector.collect(explore, keys, step=0, count=20)
    count = max(2_000 // runs, 100)
    return count * runs / seconds(lambda: collector.collect(explore, keys, step=20, count=count).transitions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 5])
    parser.add_argument(
        "--recipes", nargs="+", choices=RECIPES_TO_TIME, default=["h2o", "trust", "sac", "cql"]
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print("| recipe | runs | updates/s | MFLOP an update | GFLOP/s | chain GFLOP/s | ratio |")
    print("|---|---|---|---|---|---|---|")
    for recipe in arguments.recipes:
        for runs in arguments.runs:
            rate, work, products = updates(recipe, runs, arguments.rounds)
            reached = rate * work / 1e3
            print(
                f"| {recipe} | {runs} | {rate:,.0f} | {work:.2f} | {reached:.0f} | {products:.0f} | "
                f"{reached / products:.0%} |",
                flush=True,
            )
    print("\n| instances | MuJoCo alone, steps/s | real twin | rollout with policies |\n|---|---|---|---|")
    for instances in (1, 5, 100):
        print(
            "| " + " | ".join([str(instances), *(f"{r:,.0f}" for r in steps(instances, 3))]) + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
