"""How well the model estimator of the dynamics gap finds a HalfCheetah simulator's errors.

    python benchmarks/gap_model.py --real LOG.hdf5 [--rows 100000] [--probe-rows 8000]

LOG is one of the unshifted HalfCheetah-v5. For every shift, the simulator is left to its own rollouts, half
of them random and half by a clone of the log. The truth is the difference to what the unshifted task does
from the same state and action. Gap and truth are root mean squares over dimensions, in units of the log's
standard deviation of the state ("state") or of its change in one step ("change"). Prints a Markdown table:
Spearman's correlation with the truth (of all rows / of the clone's / of those that the model knows), and the
AUC for the worst 10 % of all rows, both of the gap and of the plain error. "seconds" are those of the
rollouts and the gap, without the model's.
"""

import argparse
import resource
import time

import jax
import numpy as np
from scipy.stats import rankdata

from simtrust.data import Dataset, load_dataset
from simtrust.gap.black_box import ModelGap, Unit, model_gap, probe_rollouts
from simtrust.gap.dynamics_fitting import GAP_REPORT_OPTIONS, fit_dynamics_model
from simtrust.gap.dynamics_model import DynamicsModel
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.types import Transitions

TASK, POSITIONS = "HalfCheetah-v5", 8
INSTANCES, SETTABLE = 8, 1000
SHIFTS = (("gravity=2",), ("friction=0.3",), ("joint-noise=1",), ())
UNITS: tuple[Unit, ...] = ("state", "change")


def head(dataset: Dataset, rows: int) -> Dataset:
    """The first rows of a log."""
    transitions = Transitions(*(field[:rows] for field in dataset.transitions))
    episode_end = dataset.episode_end[:rows].copy()
    episode_end[-1] = True
    return Dataset(transitions, episode_end, dataset.source, dataset.sha256)


def true_error(simulated: Transitions[np.ndarray]) -> np.ndarray:
    """[N, O]: simulated next states minus those of the unshifted task from the same state and action."""
    reality = make_simulator(TASK, num_envs=SETTABLE)
    following = []
    for start in range(0, len(simulated.observation), SETTABLE):
        # The last chunk is filled up with its first row.
        rows = np.arange(start, start + SETTABLE)
        rows[rows >= len(simulated.observation)] = start
        observation = simulated.observation[rows].astype(np.float64)
        # Observations leave out the x-position, on which nothing depends.
        position = np.concatenate([np.zeros((SETTABLE, 1)), observation[:, :POSITIONS]], axis=1)
        reality.set_state(position, observation[:, POSITIONS:])
        following.append(reality.step(simulated.action[rows])[0])
    return simulated.next_observation - np.concatenate(following)[: len(simulated.observation)]


def auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Probability that a positive row scores above another one."""
    ranks, count = rankdata(score), positive.sum()
    return (ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(score) - count))


def spearman(truth: np.ndarray, score: np.ndarray) -> float:
    return np.corrcoef(rankdata(truth), rankdata(score))[0, 1]


def agreement(found: ModelGap, score: np.ndarray, truth: np.ndarray) -> str:
    """Spearman of all rows / the clone's / the known ones, and the AUC; nothing where there is no gap."""
    if np.median(truth) < 1e-5:
        return "– | –"
    clone = np.arange(len(truth)) >= len(truth) // 2
    parts = (slice(None), clone, found.known)
    correlations = " / ".join(f"{spearman(truth[part], score[part]):.2f}" for part in parts)
    return f"{correlations} | {auc(truth >= np.quantile(truth, 0.9), score):.2f}"


def report(model: DynamicsModel, log: Dataset, held_out: Transitions, shift: tuple[str, ...], rows: int):
    """The table's rows of one shift."""
    began = time.perf_counter()
    simulator = make_simulator(TASK, num_envs=INSTANCES, shifts=parse_shifts(shift))
    simulated = probe_rollouts(simulator, log, rows=rows, seed=0)
    found = {unit: model_gap(model, simulated, held_out, unit=unit) for unit in UNITS}
    seconds = time.perf_counter() - began
    error = true_error(simulated)
    for unit in UNITS:
        for truth_unit in UNITS:
            scale = np.asarray(model.state_scale if truth_unit == "state" else model.change_scale)
            truth = np.sqrt(np.square(error / scale).mean(-1))
            gap = found[unit]
            print(
                f"| {', '.join(shift) or 'none'} | {unit} | {truth_unit} | "
                f"{agreement(gap, gap.gap, truth)} | {agreement(gap, gap.error, truth)} | "
                f"{np.median(gap.gap):.3f} | {np.median(truth):.3f} | "
                f"{gap.known.mean():.0%} | {seconds:.1f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--real", required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--probe-rows", type=int, default=8_000)
    arguments = parser.parse_args()
    log = head(load_dataset(arguments.real), arguments.rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    fitted = fit_dynamics_model(
        log.transitions, log.episode_end, key=jax.random.key(0), options=GAP_REPORT_OPTIONS
    )
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{len(log):,} rows: fitted in {seconds:.0f} s and {len(fitted.held_out_loss)} epochs; "
        f"held-out R² of the change {fitted.r_squared_overall:.4f} "
        f"(worst dimension {np.nanmin(fitted.r_squared):.3f}); "
        f"peak memory {peak / 2**20:.2f} GiB ({before / 2**20:.2f} before).\n"
    )
    print(
        "| shift | unit | truth in | gap: Spearman all / clone / known | AUC | plain error: Spearman | AUC "
        "| median gap | median truth | known | seconds |"
    )
    print("|" + "---|" * 11)
    held_out = Transitions(*(field[fitted.held_out] for field in log.transitions))
    for shift in SHIFTS:
        report(fitted.model, log, held_out, shift, arguments.probe_rows)


if __name__ == "__main__":
    main()
