"""The wheel-legged robot of the paper (6.1, Appendix B.2): a detailed twin, and an idealised simulator.

Both are one MuJoCo model (`wheel_legged.xml`). The idealised simulator is the model as it is. The twin,
which stands for the real robot, has every shift of `REAL_ROBOT`; each can also be switched on alone. All
numbers were fixed from physical reasoning before any training; `docs/wheel_legged.md` has the table.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from pathlib import Path
from typing import Any, Literal

import numpy as np

from simtrust.errors import ConfigError
from simtrust.simulators.batched import BatchedTask
from simtrust.simulators.shifts import Shift
from simtrust.simulators.task_specs import States

MODEL_FILE = Path(__file__).with_name("wheel_legged.xml")
WHEEL_RADIUS = 0.1  # m
SUBSTEPS = 5  # of 1 ms each
CONTROL_RATE = 200  # Hz
SETTLED_HEIGHT = -4.2e-4
"""Metres by which the axle sinks until the floor carries the robot; from 0 it would drop in every step."""
FALLEN_TILT = 0.5
"""Radians. At full torque the twin comes back from about this tilt, the idealised robot from up to 0.7."""

STATE_NAMES = ("tilt", "tilt_velocity", "position", "velocity")
"""θ (rad, forward), θ̇ (rad/s), x (m, of the axle), ẋ (m/s)."""
STATE_UNITS = ("rad", "rad/s", "m", "m/s")
ACTION_NAMES = ("torque of both motors (N m)",)

REAL_ROBOT = (
    Shift("mass", 1.08),
    Shift("centre-of-mass", 0.006),
    Shift("friction", 0.6),
    Shift("uneven-floor", 0.3),
    Shift("static-friction", 0.12),
    Shift("viscous-friction", 0.008),
    Shift("delay", 1),
    Shift("battery", 0.15),
    Shift("dead-zone", 0.3),
    Shift("sensor-noise", 1.0),
    Shift("encoder-step", 2 * pi / 4096),
)
"""What the real robot has and the simulator has not; torques are of both motors together."""

TILT_NOISE, GYRO_NOISE = 0.0035, 0.01
"""Standard deviations of the inertial sensors, rad and rad/s."""
FLOOR_WAVELENGTH = 0.7
"""Metres between two worn places of the uneven floor."""

Fidelity = Literal["real", "simulator"]


def _rolling(x: np.ndarray | float, z: float, tilt: np.ndarray | float) -> np.ndarray:
    """Positions ``[..., nq]``, or of their rates the velocities, on wheels that roll without slipping."""
    x, tilt = np.asarray(x, np.float64), np.asarray(tilt, np.float64)
    return np.stack([x, np.full_like(x, z), tilt, x / WHEEL_RADIUS - tilt], axis=-1)


@dataclass(frozen=True)
class BalancingTask:
    """What is asked of the robot: ``reward = base − Σ_k weight_k·(s_k − target_k)² − τ²``.

    Weights and targets are of (θ, θ̇, x, ẋ), of the state the action was taken in, as measured; τ is the
    torque commanded, N m, within the motors' limits.
    """

    name: str
    observed: tuple[str, ...]
    base: float
    weights: tuple[float, ...]
    targets: tuple[float, ...]
    seconds: float

    def reward(self, state: np.ndarray, torque: np.ndarray) -> np.ndarray:
        """Rewards ``[..., S]`` of states ``[..., S, 4]`` and torques ``[..., S]``."""
        # A product would round by how many states there are.
        errors = (np.square(state - np.asarray(self.targets)) * np.asarray(self.weights)).sum(-1)
        return self.base - errors - np.square(torque)

    def state_of(self, observations: np.ndarray) -> States:
        """The states behind observations ``[N, O]``: of a robot on the floor, rolling without slipping.

        An unobserved position is 0. Sensor noise in the observations is taken for the truth.
        """
        state = np.zeros((len(observations), len(STATE_NAMES)))
        state[:, [STATE_NAMES.index(name) for name in self.observed]] = observations
        tilt, tilt_velocity, x, velocity = state.T
        return States(
            _rolling(x, SETTLED_HEIGHT, tilt),
            _rolling(velocity, 0.0, tilt_velocity),
            np.ones(len(observations), bool),
        )

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Names with units of what is observed, in order."""
        units = [STATE_UNITS[STATE_NAMES.index(name)] for name in self.observed]
        names = [name.replace("_", " ") for name in self.observed]
        return tuple(f"{name} ({unit})" for name, unit in zip(names, units, strict=True))


STANDING_STILL = BalancingTask(
    name="StandingStill-v0",
    observed=STATE_NAMES,
    base=30.0,
    weights=(1.0, 1.0, 1.0, 1.0),
    targets=(0.0, 0.0, 0.0, 0.0),
    seconds=30.0,
)
"""Eq. 34."""
MOVING_STRAIGHT = BalancingTask(
    name="MovingStraight-v0",
    observed=("tilt", "tilt_velocity", "velocity"),
    base=15.0,
    weights=(0.0, 0.0, 0.0, 1.0),
    targets=(0.0, 0.0, 0.0, 0.2),
    seconds=20.0,
)
"""Eq. 35."""
BALANCING_TASKS = {task.name: task for task in (STANDING_STILL, MOVING_STRAIGHT)}

START_SPREAD = np.array([0.05, 0.1, 0.02, 0.05])
"""Episodes start uniformly within ± these of (θ, θ̇, x, ẋ) = 0."""


def robot_shifts(fidelity: str, shifts: Sequence[Shift] = ()) -> tuple[Shift, ...]:
    """The shifts of a fidelity, and those given besides; one of a kind given replaces the fidelity's.

    Raises:
        ConfigError: the fidelity is unknown.
    """
    if fidelity not in ("real", "simulator"):
        raise ConfigError(f"fidelity is {fidelity!r}; it must be 'real' or 'simulator'")
    given = {shift.kind for shift in shifts}
    own = REAL_ROBOT if fidelity == "real" else ()
    return (*(shift for shift in own if shift.kind not in given), *shifts)


class WheelLegged(BatchedTask):
    """S instances of the robot on a balancing task.

    Observed are the task's components of (θ, θ̇, x, ẋ), as the robot's sensors tell them; ``info["state"]``
    [S, 4] is the truth. An action is the torque of both motors together, N m, half by each. An episode
    terminates when the body has tilted by more than `FALLEN_TILT`.

    Args:
        task: what is asked.
        num_envs: S.
        fidelity: ``"simulator"`` is ideal, ``"real"`` has every shift of `REAL_ROBOT`.
        shifts: besides, or in place of the fidelity's of the same kind.
        groups: the same, of each group of instances alone; see `BatchedTask`.
        max_episode_steps: default: the task's own time.
    """

    def __init__(
        self,
        task: BalancingTask,
        *,
        num_envs: int,
        fidelity: Fidelity = "simulator",
        shifts: Sequence[Shift] = (),
        groups: Sequence[Sequence[Shift]] = ((),),
        max_episode_steps: int | None = None,
    ) -> None:
        self.task = task
        super().__init__(
            task.name,
            MODEL_FILE,
            num_envs=num_envs,
            substeps=SUBSTEPS,
            groups=[robot_shifts(fidelity, (*shifts, *besides)) for besides in groups],
            max_episode_steps=max_episode_steps or round(task.seconds * CONTROL_RATE),
        )
        self._kinds = {shift.kind for group in self.groups for shift in group.shifts}
        self._sensor_noise = self._amounts("sensor-noise")[:, None] * np.array([TILT_NOISE, GYRO_NOISE])
        self._encoder_step = self._amounts("encoder-step")
        self._unevenness = self._amounts("uneven-floor")
        self._floor_phase = np.zeros(num_envs)
        if "uneven-floor" in self._kinds:
            self._make_floor()
        self._measured = np.zeros((num_envs, len(STATE_NAMES)))
        self._rolled = np.zeros(num_envs)
        self._observed = [STATE_NAMES.index(name) for name in task.observed]
        self._torque_limit = float(self.model.actuator_ctrlrange[0, 1])
        self._define_spaces(len(self._observed))

    @property
    def true_state(self) -> np.ndarray:
        """(θ, θ̇, x, ẋ) ``[S, 4]``, as no sensor distorts it."""
        position, velocity = self._position, self._velocity
        return np.stack([position[:, 2], velocity[:, 2], position[:, 0], velocity[:, 0]], axis=1)

    def _draw_start(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        tilt, tilt_velocity, x, velocity = generator.uniform(-START_SPREAD, START_SPREAD)
        # On wheels that just touch the floor.
        return _rolling(x, 0.0, tilt), _rolling(velocity, 0.0, tilt_velocity)

    def _amounts(self, kind: str) -> np.ndarray:
        """The amount ``[S]`` of a kind of shift in each instance; 0 where it has none."""
        amounts = np.zeros(self.num_envs)
        for group in self.groups:
            amounts[group.instances] = sum(shift.amount for shift in group.shifts if shift.kind == kind)
        return amounts

    def _make_floor(self) -> None:
        """Let each instance on an uneven floor have a friction of its own."""
        self._tread = self.model.geom("tread").id
        self._even_friction = np.array([model.geom_friction[self._tread, 0] for model in self._models])
        if len(self.groups) == 1:
            self.batch.expand("geom_friction")
        else:
            # A batch that runs on several models expands none of their fields.
            models = zip(self._models, self._unevenness, strict=True)
            self._models = [copy.copy(model) if uneven else model for model, uneven in models]

    def _wear_floor(self) -> None:
        """Set every instance's sliding friction to that of where it stands."""
        wave = np.sin(2 * pi * self._position[:, 0] / FLOOR_WAVELENGTH + self._floor_phase)
        friction = self._even_friction * (1.0 + self._unevenness * wave)
        if len(self.groups) == 1:
            self.batch.expand("geom_friction")[:, self._tread, 0] = friction
        else:
            for model, sliding in zip(self._models, friction, strict=True):
                model.geom_friction[self._tread, 0] = sliding
            self.batch.set_models(self._models)

    def _begin_episodes(self, chosen: np.ndarray) -> None:
        if "uneven-floor" in self._kinds:
            for index in map(int, chosen[self._unevenness[chosen] > 0]):
                self._floor_phase[index] = self._noise_generators[index].uniform(0.0, 2 * pi)
        # As if the wheels had rolled at their speed for one step before.
        self._rolled[chosen] = self._rolled_distance(self.time_step)[chosen]
        self._measure(chosen, self.true_state[chosen])

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        limit = self._torque_limit
        torques = [np.clip(given, -limit, limit) for given in self._disturbed(actions)]
        # Group by group, each in the precision of its own torques.
        rewards = [
            self.task.reward(self._measured[group.instances], torque[:, 0])
            for group, torque in zip(self.groups, torques, strict=True)
        ]
        reward = np.concatenate(rewards)
        if "uneven-floor" in self._kinds:
            self._wear_floor()
        self._step_physics(torques)
        state = self.true_state
        self._measure(np.arange(self.num_envs), state)
        return reward, np.abs(state[:, 0]) > FALLEN_TILT, {"state": state}

    def _observe(self) -> np.ndarray:
        return self._measured[:, self._observed]

    def _measure(self, chosen: np.ndarray, state: np.ndarray) -> None:
        """Read the sensors of the instances ``chosen``, whose true states are ``state`` ``[n, 4]``."""
        measured = state.copy()
        if "sensor-noise" in self._kinds:
            noisy = self._sensor_noise[chosen, 0] > 0
            generators = [self._noise_generators[index] for index in chosen[noisy].tolist()]
            noise = np.array([generator.standard_normal(2) for generator in generators]).reshape(-1, 2)
            measured[noisy, :2] += self._sensor_noise[chosen[noisy]] * noise
        if "encoder-step" in self._kinds:
            counted = self._encoder_step[chosen] > 0
            rolled = self._rolled_distance()[chosen]
            measured[counted, 2] = rolled[counted]
            measured[counted, 3] = (rolled - self._rolled[chosen])[counted] / self.time_step
            self._rolled[chosen] = rolled
        self._measured[chosen] = measured

    def _rolled_distance(self, seconds_ago: float = 0.0) -> np.ndarray:
        """What the encoder, which counts the wheel's turns, takes for the position ``[S]``, m.

        That of ``seconds_ago`` is as if the wheels had turned at the speed they have now.
        """
        speed = self._velocity[:, 2] + self._velocity[:, 3]
        turned = self._position[:, 2] + self._position[:, 3] - seconds_ago * speed
        if "encoder-step" in self._kinds:
            counted = self._encoder_step > 0
            step = self._encoder_step[counted]
            turned[counted] = np.round(turned[counted] / step) * step
        return turned * WHEEL_RADIUS
