"""Cells: what the paper's tables are made of, each a training of several seeds that any table may show.

A cell is a task, a dataset level, a shift of the simulator and a recipe. Its settings are the paper's Table
3, and every other option that decides a number (`UNTOLD`), so that no default of ours that changes one day
changes a reproduction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from simtrust.paper.published import D2C, FEWER_SEEDS, PUBLISHED, Published, seeds_of

TASKS = {"halfcheetah": "HalfCheetah-v5", "walker2d": "Walker2d-v5"}
SHIFTS = {"gravity": "gravity=2", "friction": "friction=0.3", "joint-noise": "joint-noise=1"}
WITHOUT_LOG, WITHOUT_SIMULATOR = ("sac",), ("cql",)
"""Recipes that learn from one source alone: they are trained once for all cells that differ in the other."""
STEPS = 1_000_000
SIMULATED_ROWS = 1_000_000
"""Kept by SAC, DARC and DARC+ (Table 3), and by H2O in Figure 6."""
ROWS_PER_LOG = 10
"""So many times the log's rows are kept by the others (Table 3)."""

TABLE_3: Mapping[str, Any] = MappingProxyType(
    {
        "hidden_sizes": (256, 256),
        "classifier_hidden_sizes": (256,),
        "learning_rate": 3e-4,
        "discount": 0.99,
        "target_update_rate": 5e-3,
        "batch_size": 256,
        "classifier_batch_size": 512,
        "beta": 0.01,
        "cql_alpha": 2.0,
        "rollout_steps": 1_000,
        "evaluate_every": 10_000,
        "evaluation_episodes": 5,
        "checkpoint_every": 10_000,
    }
)
UNTOLD: Mapping[str, Any] = MappingProxyType(
    {
        "real_fraction": 0.5,
        "actor": "stochastic",
        "exploration_noise": 0.1,
        "target_entropy": -6.0,
        "entropy_in_backup": False,
        "critic_ensemble": 2,
        "critic_layer_norm": False,
        "cql_actions": 10,
        "classifier_input_noise": 0.1,
        "next_state_samples": 10,
        "next_state_covariance": "diagonal",
        "next_state_noise_scale": 1.0,
        "dynamics_epochs": 100,
        "reward_scale": 1.0,
        "normalise_observations": False,
        "sim_instances": 1,
        "first_seed": 0,
    }
)
"""What Table 3 leaves out. The entropy is SAC's −dim(A), which is 6 in both tasks."""
RANDOM_BETA = 0.005
"""β for random datasets (Appendix D.2)."""


@dataclass(frozen=True)
class Cell:
    """One training; ``None`` stands for what its recipe does not depend on. Made by `cell`."""

    task: str
    """A key of `TASKS`."""
    level: str | None
    """Of the dataset: random, medium, medium-replay, medium-expert or expert."""
    thousands: int | None
    """Of the dataset's transitions, if not all of them are used."""
    shift: str | None
    """A key of `SHIFTS`."""
    recipe: str

    @property
    def name(self) -> str:
        """Such as ``halfcheetah-medium-replay-gravity-h2o``: the name of its run directory."""
        return "-".join(part for part in (self.log or self.task, self.shift, self.recipe) if part)

    @property
    def log(self) -> str | None:
        """What it is trained on, such as ``halfcheetah-medium-replay``; None if its recipe needs no log."""
        rows = None if self.thousands is None else f"{self.thousands}k"
        return self.level and "-".join(part for part in (self.task, self.level, rows) if part)

    @property
    def published(self) -> Published | None:
        return PUBLISHED.get(self.name)

    @property
    def elsewhere(self) -> Published | None:
        """What another implementation than the paper's reports."""
        return D2C.get(self.name)

    @property
    def seeds(self) -> int:
        """As many as the paper has."""
        return FEWER_SEEDS if self.thousands else seeds_of(self.task, self.level, self.recipe)

    def settings(self, rows: int | None = None) -> dict[str, Any]:
        """Options of `simtrust.train`, the log left out.

        ``rows`` are the log's; without them the rows to be kept are left out where they follow from these.
        """
        own: dict[str, Any] = {**TABLE_3, **UNTOLD, "real_env": TASKS[self.task]}
        own |= {"steps": STEPS, "seeds": self.seeds}
        if self.shift is not None:
            own |= {"sim": TASKS[self.task], "shifts": (SHIFTS[self.shift],)}
        if self.level == "random":
            own["beta"] = RANDOM_BETA
        if self.recipe in ("sac", "darc", "darc_plus") or self.thousands is not None:
            own["buffer_capacity"] = SIMULATED_ROWS
        elif rows is not None:
            own["buffer_capacity"] = ROWS_PER_LOG * rows
        return own


def cell(task: str, level: str, shift: str, recipe: str, *, thousands: int | None = None) -> Cell:
    """The cell that answers for a recipe in a setting, which for SAC and CQL is the same in several."""
    if recipe in WITHOUT_LOG:
        return Cell(task, None, None, shift, recipe)
    if recipe in WITHOUT_SIMULATOR:
        return Cell(task, level, thousands, None, recipe)
    return Cell(task, level, thousands, shift, recipe)
