"""In place of the real machine, so that this example runs: the pendulum with a worn gear.

You do not write this file. Your machine is the real one, and your log.csv comes from it.
`python machine.py` recorded the one beside it.
"""

import csv
from pathlib import Path

import gymnasium
import numpy as np
from pendulum import RATE, Pendulum

EPISODES, STEPS = 25, 200


class Machine(Pendulum):
    """A motor that has lost a quarter of its torque, and a gear with dry friction."""

    def torque(self, commanded, velocity):
        return 0.75 * commanded - 0.25 * float(np.tanh(velocity / 0.05))


def make():
    return gymnasium.wrappers.TimeLimit(Machine(), STEPS)


def record(path: Path) -> None:
    """A log of a hand-tuned controller that somebody disturbs."""
    generator, machine = np.random.default_rng(0), make()
    rows = []
    for episode in range(EPISODES):
        observation, _ = machine.reset(seed=episode)
        for step in range(STEPS):
            push = generator.normal(0.0, 1.2)
            action = np.clip([-6.5 * observation[0] - 0.8 * observation[1] + push], -2.0, 2.0)
            following, reward, fell, _, _ = machine.step(action.astype(np.float32))
            rows.append((episode, step / RATE, *observation, *action, reward, int(fell)))
            observation = following
            if fell:
                break
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("ep", "t [s]", "theta [rad]", "theta_dot [rad/s]", "tau [N m]", "r", "fell"))
        writer.writerows([f"{x:.7g}" for x in row] for row in rows)


if __name__ == "__main__":
    record(Path(__file__).with_name("log.csv"))
