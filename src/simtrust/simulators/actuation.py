"""What becomes of an action on its way to the joints: disturbances, delay, a weak battery, a dead zone."""

from collections.abc import Sequence

import numpy as np

from simtrust.simulators.shifts import Shift


def noise_generator(seed: int | None) -> np.random.Generator:
    """The generator of an instance's noise, a stream apart from that of its start states.

    Shifted and unshifted instances of one seed thus start every episode in the same states.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))


class Actuation:
    """The chain from action to control of S instances, each with its own memory.

    First the disturbances, in the order given: the simulated task *receives* the disturbed action, so
    its control cost sees it too. Then what only the motors feel: delay, battery, dead zone, in this
    order whatever the order given. Nothing here clips; only the model's own control range does.
    """

    def __init__(self, shifts: Sequence[Shift], num_envs: int, action_size: int) -> None:
        self._disturbances = [s for s in shifts if s.kind in ("joint-noise", "velocity-offset")]
        amounts = {shift.kind: shift.amount for shift in shifts}
        self._weakness = amounts.get("battery", 0.0)
        self._dead_zone = amounts.get("dead-zone", 0.0)
        self._pending = np.zeros((num_envs, int(amounts.get("delay", 0)), action_size))
        self._strength = np.ones((num_envs, 1))

    def restart(self, chosen: np.ndarray, generators: Sequence[np.random.Generator]) -> None:
        """A new episode of the instances ``chosen``: nothing is pending, the battery's charge is drawn."""
        self._pending[chosen] = 0.0
        if self._weakness:
            for index in map(int, chosen):
                charge = generators[index].uniform()
                self._strength[index] = 1.0 - self._weakness * (1.0 - charge)

    def disturb(
        self, actions: np.ndarray, x_velocity: np.ndarray, generators: Sequence[np.random.Generator]
    ) -> np.ndarray:
        """The actions ``[S, A]`` as the task receives them, float64 if anything is added.

        Args:
            actions: ``[S, A]``, as passed by the caller; not modified.
            x_velocity: ``[S]``, m/s, before the step.
            generators: one per instance; joint noise advances each by A normals.
        """
        for shift in self._disturbances:
            if shift.kind == "joint-noise":
                size = actions.shape[1]
                noise = np.stack([generator.standard_normal(size) for generator in generators])
                actions = actions + shift.amount * noise
            else:
                actions = actions + shift.amount * x_velocity[:, None]
        return actions

    def drive(self, actions: np.ndarray) -> np.ndarray:
        """The controls ``[S, A]`` that reach the joints for disturbed actions ``[S, A]``."""
        if self._pending.shape[1]:
            pending = np.concatenate((self._pending, actions[:, None]), axis=1)
            actions, self._pending = pending[:, 0], pending[:, 1:]
        if self._weakness:
            actions = actions * self._strength
        if self._dead_zone:
            actions = np.sign(actions) * np.maximum(np.abs(actions) - self._dead_zone, 0.0)
        return actions
