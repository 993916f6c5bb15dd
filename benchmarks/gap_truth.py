"""How well each estimator of the dynamics gap finds a gap that is known.

    python benchmarks/gap_truth.py --log HalfCheetah-v5=LOG.hdf5 --record Hopper-v5 --out DIR

Every log is one of the unshifted task: from a file, or recorded under random actions, or (``TASK=FILE``)
under a clone of another log's behaviour. For each task and shift, the simulator is the shifted task, and
the truth is the difference between its next state and the unshifted task's from the same state and action,
as a root mean square over dimensions in units of the logged change: at the log's own rows for replay, and
for the others at rows of the simulator's own rollouts, in whose whole state the unshifted task is put.
Prints a Markdown table: Spearman's correlation with the truth, the area under the ROC curve for the worst
tenth, and whether the model would announce a gap. Cells lie in DIR and are not measured again.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
from gymnasium.spaces import Box

from simtrust.data import Dataset, load_dataset
from simtrust.data.dataset import select_rows
from simtrust.errors import ShiftError
from simtrust.gap.classifier_probe import IMPROVED, PUBLISHED, classify_domains
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


def by_replay(log: Dataset, task: str, shift: str) -> dict:
    rows = np.unique(np.linspace(0, len(log) - 1, JUDGED).astype(int))
    simulated = replay(log, task, shifts=parse(shift), rows=rows)
    errors = step_errors(log, simulated)
    real = replay(log, task, rows=rows)
    truth = np.sqrt(np.nanmean(np.square((simulated.predicted - real.predicted) / errors.scale), axis=1))
    return agreement(truth, errors.gap) | {"median": float(np.nanmedian(errors.gap))}


def parse(shift: str):
    return () if shift == "none" else parse_shifts([shift])


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


def by_classifier(log: Dataset, rows: Transitions[np.ndarray], options, space) -> dict:
    found = classify_domains(
        log.transitions, log.episode_end, rows, space, key=jax.random.key(0), options=options
    )
    score = found.gap if found.published else found.log_ratio
    judged = agreement(found.simulated.reward, score)
    return judged | {"ece": found.calibration.error, "area": found.area_transition}


def cell(log: Dataset, task: str, shift: str) -> dict:
    """All estimators for one task, shift and log."""
    shifted, real = (make_simulator(task, num_envs=PROBE_INSTANCES, shifts=s) for s in (parse(shift), ()))
    simulator = TrueGapReward(shifted, real, dimension_scales(log, "change"))
    rows = probe_rollouts(simulator, log, rows=PROBE_ROWS, seed=0)
    space = simulator.single_action_space
    simulator.close()
    return {
        "replay": by_replay(log, task, shift),
        "model": by_model(log, rows),
        "published": by_classifier(log, rows, PUBLISHED, space),
        "improved": by_classifier(log, rows, IMPROVED, space),
    }


def shown(number: float | None) -> str:
    return "–" if number is None else f"{number:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--log", action="append", default=[], metavar="TASK=FILE")
    parser.add_argument("--record", action="append", default=[], metavar="TASK[=FILE]")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[])
    parser.add_argument("--shift", action="append")
    parser.add_argument("--out", type=Path, default=Path("runs/gap-truth"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(
        "| task | rows | shift | replay | model | known rows | rows with a gap "
        "| without the simulator's rows | u as published | log-ratio, improved "
        "| median gap / truth | nats | announced | R² | seconds |"
    )
    print("|" + "---|" * 15)
    sources = [(name, load_dataset) for name in arguments.log] + [(name, None) for name in arguments.record]
    for named, load in sources:
        task, _, file = named.partition("=")
        dataset = load(file) if load else recorded(task, file, max(arguments.sizes or [arguments.rows]))
        for count in arguments.sizes or [arguments.rows]:
            log = head(dataset, min(count, len(dataset)))
            for shift in arguments.shift or SHIFTS:
                kept = arguments.out / f"{task}-{len(log)}-{shift}.json"
                if not kept.exists():
                    try:
                        kept.write_text(json.dumps(cell(log, task, shift), indent=1))
                    except ShiftError as error:
                        print(f"| {task} | {len(log):,} | {shift} | {error} |" + " |" * 11)
                        continue
                found = json.loads(kept.read_text())
                model = found["model"]
                announced = "yes" if noticed(model["median"] or 0.0, model["distinction"]) else "no"
                both = [
                    f"{shown(found[e]['spearman'])} / {shown(found[e]['auc'])}" for e in ("replay", "model")
                ]
                print(
                    f"| {task} | {len(log):,} | {shift} | {both[0]} | {both[1]} | {shown(model['known'])} | "
                    f"{model['rows_with_gap']:.0%}: {shown(model['among_these'])} | "
                    f"{shown(model['plain'])} | {shown(found['published']['spearman'])} | "
                    f"{shown(found['improved']['spearman'])} | "
                    f"{shown(model['median'])} / {model['truth']:.3f} | "
                    f"{model['distinction']:.2f} | {announced} | "
                    f"{model['r_squared']:.3f} | {model['seconds']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
