"""What a training run is asked to do: the command line's options, and the file that keeps them.

Free of JAX, so that the command line can show its help at once.
"""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro.conf

from simtrust.algorithms.options import AlgorithmOptions
from simtrust.errors import ConfigError, RunError
from simtrust.training.option_types import misfit

CONFIG_FORMAT = 1
GAP_PROBE_ROWS_MIN = 100
SEEDS_MAX = 10_000
LARGEST = 2**32
"""Of seeds and steps, which JAX counts in 32 bits: beyond, it would begin at 0 again."""
POSITIVE = (
    "steps", "seeds", "rollout_steps", "evaluation_episodes", "checkpoint_every", "gap_epochs",
    "dynamics_epochs",
)  # fmt: skip

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
RecipeName = Literal[
    "trust", "h2o", "h2o_layer_norm", "h2o_v", "h2o_reverse_kl", "h2o_a", "h2o_dr", "h2o_a_dr", "h2o_reg",
    "h2o_reg_dr", "darc", "darc_plus", "sac", "cql",
]  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a run. Two runs of equal configuration give equal bits on CPU."""

    recipe: tyro.conf.Positional[RecipeName] = "trust"
    """What to train: `trust` is ours, which measures the simulator's gap first; `h2o` the paper's, with
    `h2o_layer_norm` for stable critics, `h2o_v` and `h2o_reverse_kl` its variants, and `h2o_a` to
    `h2o_reg_dr` its ablations; `darc` and `darc_plus` correct the reward instead; `sac` uses the simulator
    alone, `cql` the log alone."""
    real: str | None = None
    """The log of real transitions: D4RL HDF5, npz, CSV, Parquet, LeRobot v3's folder, or minari:ID."""
    sim: str | None = None
    """The simulator: HalfCheetah-v5, Walker2d-v5, Hopper-v5, Ant-v5, StandingStill-v0, MovingStraight-v0,
    any Gymnasium id, or module:factory."""
    sim_workers: int = 0
    """Processes among which the instances of a simulator that is not built in are shared out, for one that is
    slow (above 1 ms a step). Instances are --seeds times --sim-instances; more workers stay unused."""
    step_timeout: float | None = None
    """Seconds that a step or reset of a simulator or real environment of yours may take (and making one, if
    more than a minute). One that takes longer is killed and the run stops, its state saved. For that they run
    in at least one worker process. Default: no limit."""
    sim_instances: int = 1
    """Simulator instances N for each seed, among which a rollout's steps are shared out. An episode then
    advances by --rollout-steps / N a round, and is cut after --checkpoint-every / N steps."""
    shifts: tyro.conf.UseAppendAction[
        Annotated[tuple[str, ...], tyro.conf.arg(name="shift", metavar="KIND=VALUE")]
    ] = ()
    """Spoils a built-in simulator on purpose, for experiments: gravity=2 doubles it. For your own simulator
    leave it out. KIND is one of gravity=F, friction=F, floor-friction=F, mass=F (factors),
    joint-noise=S (standard deviation), velocity-offset=C, delay=STEPS, dead-zone=D, battery=SHARE,
    static-friction=T, viscous-friction=C, centre-of-mass=METRES; of the locomotion tasks, legacy-inertia=1
    (capsules as in MuJoCo before 2.1.1); of the robot, uneven-floor=SHARE, sensor-noise=F,
    encoder-step=RADIANS. Repeat for several."""
    out: str | None = None
    """The run directory. Default: runs/RECIPE-DATE-TIME."""
    real_env: str | None = None
    """Where the policy is evaluated. Default: --sim without its shifts; the robot's: its real twin; for your
    own simulator that is the simulator itself, which says nothing about the machine."""
    steps: int = 200_000
    """Updates, and simulator steps, per run (the paper trains 1,000,000)."""
    seeds: int = 1
    """Number of runs, trained side by side."""
    first_seed: int = 0
    """Seed of the first run; the others count up from it."""
    dones_mean: Literal["terminated", "timeout"] | None = None
    """What a log's bare `dones` mean, if it has neither `terminals` nor `timeouts`."""
    columns: Annotated[tuple[str, ...], tyro.conf.arg(name="map", metavar="FIELD=NAME[,NAME...]")] = ()
    """Which columns of a table hold what: observation=theta,theta_dot action=tau reward=r episode=ep ..."""
    reward_scale: float | Literal["auto"] | None = None
    """Multiplies rewards in training; `auto` keeps |Q| near 100. Returns are always in your units."""
    normalise_observations: bool | None = None
    """Standardise observations by the log's mean and standard deviation."""
    rollout_steps: int = 1_000
    """Simulator steps with the current policy, then as many updates, and so on."""
    evaluate_every: int = 10_000
    """Updates between evaluations; 0: only at the end."""
    evaluation_episodes: int = 5
    """Episodes of every evaluation, with the best action."""
    checkpoint_every: int = 10_000
    """Updates between checkpoints. The simulator's episode is cut at each, so that resuming is exact."""
    buffer_capacity: int | None = None
    """Simulated rows kept per run. Default: ten times the log."""
    gap_probe_rows: int = 20_000
    """Steps of the simulator by itself that `trust` begins with: to these and to the log it fits its model of
    the gap."""
    gap_epochs: int = 50
    """Epochs of that fit, of at most 400 updates each."""
    dynamics_epochs: int = 100
    """At most so many epochs of the fit of a dynamics model to the log, which `h2o_reverse_kl` begins with.
    It stops earlier once rows that are held out are no longer predicted better."""
    track: tuple[TrackerName, ...] = ()
    """Also hand the metrics to these trackers; each needs the extra of its name. W&B and MLflow are set up by
    their own environment variables, such as WANDB_MODE=offline and MLFLOW_TRACKING_URI."""
    algorithm: Annotated[AlgorithmOptions, tyro.conf.arg(name="")] = field(default_factory=AlgorithmOptions)

    def __post_init__(self) -> None:
        for name in POSITIVE:
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 1"
                )
        if self.seeds > SEEDS_MAX:
            raise ConfigError(f"--seeds is {self.seeds}; at most {SEEDS_MAX:,} are trained side by side")
        if self.sim_workers < 0:
            raise ConfigError(f"--sim-workers is {self.sim_workers}; it must be 0 or more")
        if self.step_timeout is not None and not 0 < self.step_timeout < float("inf"):
            raise ConfigError(f"--step-timeout is {self.step_timeout}; it must be a positive number")
        if self.sim_instances < 1:
            raise ConfigError(f"--sim-instances is {self.sim_instances}; it must be at least 1")
        for name in ("rollout_steps", "steps"):
            if getattr(self, name) % self.sim_instances:
                raise ConfigError(
                    f"--{name.replace('_', '-')} {getattr(self, name)} must be a multiple of --sim-instances "
                    f"{self.sim_instances}, among which they are shared out"
                )
        for name in ("first_seed", "evaluate_every"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be 0 or more"
                )
        if self.first_seed + self.seeds > LARGEST:
            raise ConfigError(
                f"--first-seed {self.first_seed} and --seeds {self.seeds}: seeds must be below {LARGEST:,}"
            )
        if self.steps >= LARGEST:
            raise ConfigError(f"--steps is {self.steps}; it must be below {LARGEST:,}")
        for name in ("evaluate_every", "checkpoint_every"):
            if getattr(self, name) % self.rollout_steps:
                raise ConfigError(
                    f"--{name.replace('_', '-')} {getattr(self, name)} must be a multiple of "
                    f"--rollout-steps {self.rollout_steps}"
                )
        if not isinstance(self.track, tuple) or not set(self.track) <= set(get_args(TrackerName)):
            raise ConfigError(f"--track is {self.track!r}; choose among {', '.join(get_args(TrackerName))}")
        if self.gap_probe_rows < GAP_PROBE_ROWS_MIN:
            raise ConfigError(
                f"--gap-probe-rows is {self.gap_probe_rows}; it must be at least {GAP_PROBE_ROWS_MIN}"
            )
        if isinstance(self.reward_scale, float | int) and not 0 < self.reward_scale < float("inf"):
            raise ConfigError(f"--reward-scale is {self.reward_scale}; it must be positive, or auto")
        if self.buffer_capacity is not None and self.buffer_capacity < self.rollout_steps:
            raise ConfigError(
                f"--buffer-capacity {self.buffer_capacity} is less than --rollout-steps {self.rollout_steps}"
            )

    @property
    def run_seeds(self) -> tuple[int, ...]:
        return tuple(range(self.first_seed, self.first_seed + self.seeds))


def with_step_timeout(config: TrainConfig, seconds: float) -> TrainConfig:
    """``config`` with another limit of a simulator's step; `ConfigError` unless it is a positive number."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ConfigError(f"--step-timeout is {seconds!r}; it must be a positive number")
    return replace(config, step_timeout=seconds)


def with_learning_rate(config: TrainConfig, rate: float | None) -> TrainConfig:
    """The same configuration with another learning rate, if one is given.

    Raises `ConfigError` for one that is no number, or not in (0, 1].
    """
    if rate is None:
        return config
    if isinstance(rate, bool) or not isinstance(rate, Real):
        raise ConfigError(f"--learning-rate is {rate!r}; it must be a number in (0, 1]")
    return replace(config, algorithm=replace(config.algorithm, learning_rate=float(rate)))


def config_to_json(config: TrainConfig, **extra: Any) -> str:
    """The configuration as JSON text, with a format version."""
    return json.dumps({"format": CONFIG_FORMAT, **asdict(config), **extra}, indent=2) + "\n"


def config_from_json(path: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Read `config_to_json`'s file: the configuration, and whatever was stored beside it.

    Raises `RunError` for a missing or damaged file and for a newer format.
    """
    # It brings the readers of logs with it, which the command line's help can do without.
    from simtrust.data.json_file import read_json

    try:
        stored = read_json(path)
        version = stored.pop("format")
    except FileNotFoundError:
        raise RunError(f"{path} does not exist: {path.parent} is not a run directory of simtrust") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise RunError(f"{path} is damaged ({error}); start the run again in a new directory") from error
    if version != CONFIG_FORMAT:
        written = stored.get("versions")
        writer = written.get("simtrust", "unknown") if isinstance(written, dict) else "unknown"
        raise RunError(
            f"{path} has format {version}, this version of simtrust reads {CONFIG_FORMAT}; "
            f"use the version that wrote it: {writer}"
        )
    try:
        algorithm = {k: _tuple(v) for k, v in stored.pop("algorithm").items()}
        if stored.pop("tensorboard", False):
            # Runs begun before there were other trackers.
            stored["track"] = ["tensorboard"]
        own = {f.name for f in fields(TrainConfig)}
        values = {k: _tuple(stored.pop(k)) for k in list(stored) if k in own}
        config = TrainConfig(**values, algorithm=AlgorithmOptions(**algorithm))
        if (problem := misfit(config)) is not None:
            raise TypeError(problem)
        return config, stored
    except (TypeError, KeyError, AttributeError, ConfigError) as error:
        raise RunError(f"{path} is damaged ({error}); start the run again in a new directory") from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
