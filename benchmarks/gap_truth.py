"""How well each estimator of the dynamics gap finds a gap that is known.

    python benchmarks/gap_truth.py --log HalfCheetah-v5=LOG.hdf5 --record Hopper-v5 --out DIR

Every log is one of the unshifted task: from a file, or recorded under random actions, or (``TASK=FILE``)
under a clone of another log's behaviour. For each task and shift, the simulator is the shifted task, and
the truth is the difference between its next state and the unshifted task's from the same state and action,
as a root mean square over dimensions in units of the logged change: at the log's own rows for replay, and
for the others at rows of the simulator's own rollouts, in whose whole state the unshifted task is put.
Prints a Markdown table: Spearman's correlation with the truth, the area under the ROC curve for the worst
tenth, and whether the model would announce a gap. What an estimator found lies in DIR, and is not measured
again.

"Reality known" is what the model could reach at most: the distance of the simulator's next state from what
the unshifted task does when it is put into the observation, and no more than that, of the same row.

A log is rounded to float32, and many rows have the same gap, a body in flight for example: for replay,
whose rows are the log's, gaps are rounded to multiples of 1e-4. "Off by" is how far
replay's gap is from the true one in 99 of 100 rows.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from gymnasium.spaces import Box

from simtrust.data import Dataset, load_dataset
from simtrust.data.dataset import select_rows
from simtrust.errors import ShiftError
from simtrust.gap.classifier_probe import IMPROVED, PUBLISHED, ClassifierProbeOptions, classify_domains
from simtrust.gap.measure import PROBE_ROWS
from simtrust.gap.replay_probe import replay
from simtrust.gap.rollouts import (
    PROBE_INSTANCES,
    behaviour_clone,
    chain_ends,
    probe_rollouts,
    random_policy,
    roll_out,
)
from simtrust.gap.simulator_gap import REALITY, fit_simulator_gap
from simtrust.gap.step_errors import dimension_scales, step_errors
from simtrust.gap.verdict import noticed
from simtrust.paper.truth import NO_GAP, TrueGapReward, agreement
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.types import Transitions

SHIFTS = ("none", "gravity=2", "friction=0.3", "joint-noise=1")
SIZES = (2_000, 10_000, 50_000, 200_000)
JUDGED = 8_000


def head(dataset: Dataset, rows: int) -> Dataset:
    """The first rows of a log."""
    episode_end = dataset.episode_end[:rows].copy()
    episode_end[-1] = True
    return Dataset(
        select_rows(dataset.transitions, np.arange(len(episode_end))),
        episode_end,
        dataset.source,
        dataset.sha256,
    )


def recorded(task: str, behaviour: str, rows: int) -> Dataset:
    """A log of the unshifted task, under random actions or a clone of another log's behaviour."""
    simulator = make_simulator(task, num_envs=PROBE_INSTANCES)
    space, generator = simulator.single_action_space, np.random.default_rng(0)
    assert isinstance(space, Box)
    policy = random_policy(space, generator)
    if behaviour:
        policy = behaviour_clone(load_dataset(behaviour).transitions, space, generator)
    found = roll_out(simulator, policy, rows, 0)
    simulator.close()
    return Dataset(found, chain_ends(found), f"{task} as recorded", "")


def resolved(gap: np.ndarray) -> np.ndarray:
    """Without the differences that are a log's rounding."""
    return np.round(gap / NO_GAP) * NO_GAP


def by_replay(log: Dataset, task: str, shift: str) -> dict:
    rows = np.unique(np.linspace(0, len(log) - 1, JUDGED).astype(int))
    simulated = replay(log, task, shifts=parse(shift), rows=rows)
    errors = step_errors(log, simulated)
    real = replay(log, task, rows=rows)
    truth = np.sqrt(np.nanmean(np.square((simulated.predicted - real.predicted) / errors.scale), axis=1))
    return agreement(resolved(truth), resolved(errors.gap)) | {
        "median": float(np.nanmedian(errors.gap)),
        "off_by": float(np.nanquantile(np.abs(errors.gap - truth), 0.99)),
    }


def parse(shift: str):
    return () if shift == "none" else parse_shifts([shift])


def by_known_reality(log: Dataset, rows: Transitions[np.ndarray], task: str) -> dict:
    """As a model of reality without any error would rank the simulator's rows.

    The truth is that of the simulator's whole state, of which an observation need not tell all.
    """
    judged = np.linspace(0, len(rows.reward) - 1, JUDGED).astype(int)
    real = replay(Dataset(rows, chain_ends(rows), f"the simulator of {task}", ""), task, rows=judged)
    error = (rows.next_observation[judged] - real.predicted)[real.usable]
    gap = np.sqrt(np.nanmean(np.square(error / dimension_scales(log, "change")), axis=1))
    return agreement(rows.reward[judged][real.usable], gap) | {"usable": float(real.usable.mean())}


def by_model(log: Dataset, rows: Transitions[np.ndarray]) -> dict:
    began = time.perf_counter()
    fitted = fit_simulator_gap(log, rows, key=jax.random.key(0))
    seconds = time.perf_counter() - began
    judged = select_rows(rows, np.linspace(0, len(rows.reward) - 1, JUDGED).astype(int))
    found, truth = fitted.gap.assess(judged), judged.reward
    known = found.disagreement <= fitted.disagreement_limit
    plain = fitted.gap.surprise(judged, REALITY)
    gap = truth >= NO_GAP
    return agreement(truth, found.gap) | {
        "known": agreement(truth[known], found.gap[known])["spearman"],
        "plain": agreement(truth, plain)["spearman"],
        "rows_with_gap": float(gap.mean()),
        "among_these": agreement(truth[gap], found.gap[gap])["spearman"],
        "known_share": float(known.mean()),
        "median": float(np.median(found.gap[known])) if known.any() else None,
        "truth": float(np.median(truth)),
        "floor": fitted.floor,
        "distinction": fitted.distinction,
        "r_squared": fitted.r_squared_overall,
        "seconds": seconds,
    }


def by_classifier(
    log: Dataset, rows: Transitions[np.ndarray], space: Box, options: ClassifierProbeOptions
) -> dict:
    found = classify_domains(
        log.transitions, log.episode_end, rows, space, key=jax.random.key(0), options=options
    )
    score = found.gap if found.published else found.log_ratio
    judged = agreement(found.simulated.reward, score)
    return judged | {"ece": found.calibration.error, "area": found.area_transition}


class Cell:
    """One task, shift and log; what is found is kept in a file."""

    def __init__(self, log: Dataset, name: str, task: str, shift: str, folder: Path) -> None:
        self.log, self.task, self.shift = log, task, shift
        self._kept = folder / f"{task}-{name}-{len(log)}-{shift}.json"
        self.found: dict = json.loads(self._kept.read_text()) if self._kept.exists() else {}

    def measure(self, estimators: list[str]) -> None:
        """With those estimators that have not measured it yet."""
        missing = [name for name in estimators if name not in self.found]
        simulated = self._simulated() if {*missing} - {"replay"} else None
        for name in missing:
            if name == "replay":
                self.found[name] = by_replay(self.log, self.task, self.shift)
            else:
                assert simulated is not None
                self.found[name] = BLACK_BOX[name](self, *simulated)
            self._kept.write_text(json.dumps(self.found, indent=1))

    def _simulated(self) -> tuple[Transitions[np.ndarray], Box]:
        """Rows of the simulator's own, with their true gap for a reward, and its actions."""
        shifted, real = (
            make_simulator(self.task, num_envs=PROBE_INSTANCES, shifts=shifts)
            for shifts in (parse(self.shift), ())
        )
        simulator = TrueGapReward(shifted, real, dimension_scales(self.log, "change"))
        rows = probe_rollouts(simulator, self.log, rows=PROBE_ROWS, seed=0)
        space = simulator.single_action_space
        assert isinstance(space, Box)
        simulator.close()
        return rows, space

    def __str__(self) -> str:
        """As a row of the table."""
        return " | ".join(["", self.task, f"{len(self.log):,}", self.shift, *self._numbers(), ""]).strip()

    def _numbers(self) -> list[str]:
        replayed, model = (self.found.get(name, {}) for name in ("replay", "model"))
        announced = model and noticed(model["median"] or 0.0, model["distinction"])
        return [
            both(replayed),
            shown(replayed.get("off_by"), ".0e"),
            both(self.found.get("reality", {})),
            both(model),
            shown(model.get("known")),
            f"{shown(model.get('rows_with_gap'), '.0%')}: {shown(model.get('among_these'))}",
            shown(model.get("plain")),
            *(shown(self.found.get(name, {}).get("spearman")) for name in ("published", "improved")),
            f"{shown(model.get('median'))} / {shown(model.get('truth'), '.3f')}",
            shown(model.get("distinction")),
            ("yes" if announced else "no") if model else "–",
            shown(model.get("r_squared"), ".3f"),
            shown(model.get("seconds"), ".0f"),
        ]


BLACK_BOX: dict[str, Callable[[Cell, Transitions[np.ndarray], Box], dict]] = {
    "reality": lambda cell, rows, _: by_known_reality(cell.log, rows, cell.task),
    "model": lambda cell, rows, _: by_model(cell.log, rows),
    "published": lambda cell, rows, space: by_classifier(cell.log, rows, space, PUBLISHED),
    "improved": lambda cell, rows, space: by_classifier(cell.log, rows, space, IMPROVED),
}
ESTIMATORS = ("replay", *BLACK_BOX)


def shown(number: float | None, how: str = ".2f") -> str:
    return "–" if number is None else format(number, how)


def both(found: dict) -> str:
    return f"{shown(found.get('spearman'))} / {shown(found.get('auc'))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--log", action="append", default=[], metavar="TASK=FILE")
    parser.add_argument("--record", action="append", default=[], metavar="TASK[=FILE]")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[])
    parser.add_argument("--shift", action="append")
    parser.add_argument("--estimator", action="append", choices=ESTIMATORS)
    parser.add_argument("--out", type=Path, default=Path("runs/gap-truth"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(
        "| task | rows | shift | replay | off by | reality known | model | known rows | rows with a gap "
        "| without the simulator's rows | u as published | log-ratio, improved "
        "| median gap / truth | nats | announced | R² | seconds |"
    )
    print("|" + "---|" * 17)
    sources = [(name, load_dataset) for name in arguments.log] + [(name, None) for name in arguments.record]
    for named, load in sources:
        task, _, file = named.partition("=")
        dataset = load(file) if load else recorded(task, file, max(arguments.sizes or [arguments.rows]))
        for count in arguments.sizes or [arguments.rows]:
            log = head(dataset, min(count, len(dataset)))
            for shift in arguments.shift or SHIFTS:
                name = f"{'of' if load else 'like'}-{Path(file).stem or 'random-actions'}"
                cell = Cell(log, name, task, shift, arguments.out)
                try:
                    cell.measure(arguments.estimator or list(ESTIMATORS))
                except ShiftError as error:
                    print(f"| {task} | {len(log):,} | {shift} | {error} |" + " |" * 13)
                    continue
                print(cell, flush=True)


if __name__ == "__main__":
    main()
