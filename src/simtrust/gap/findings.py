"""What a gap report holds: one block an estimator, what follows from them, and what is missing."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simtrust.data import Dataset
from simtrust.gap.actuator_error import ActuatorError
from simtrust.gap.corrections import Correction
from simtrust.gap.drift import Drift
from simtrust.gap.regions import Region
from simtrust.gap.step_errors import GapErrors, Summary
from simtrust.gap.trust_model import FittedTrust
from simtrust.simulators import Shift
from simtrust.types import Transitions


@dataclass(frozen=True, eq=False)
class ReplayEstimate:
    """What replay found, the log's rows being the simulator's start states."""

    errors: GapErrors
    summary: Summary
    drift: Drift | None
    """None where it failed."""
    corrections: tuple[Correction, ...]
    """Of built-in simulators, if there is a gap."""
    actuators: ActuatorError | None
    """If there is a gap."""


@dataclass(frozen=True, eq=False)
class ModelEstimate:
    """What one ensemble, fitted to the log and to the simulator's own rollouts, says of the latter."""

    r_squared: np.ndarray  # [O] on held-out rows of the log
    r_squared_overall: float
    simulated: Transitions[np.ndarray]  # [N] rows of the simulator's own rollouts
    error: np.ndarray  # [N, O] estimated one-step error, simulated less real, in the log's units
    gap: np.ndarray  # [N] its root mean square, in standard deviations of the logged change
    known: np.ndarray  # [N] bool: where the ensemble's members agree on reality as they do on the log
    scale: np.ndarray  # [O] standard deviation of the logged change; infinite where the log does not vary
    floor: float
    """Median error of predicting held-out rows of the log: what is noise, or beyond the model."""
    distinction: float
    """By how many nats a dimension held-out rows are likelier as of their own machine than of the other."""

    @property
    def median(self) -> float:
        """Median gap over the known rows; NaN if none is known."""
        return float(np.median(self.gap[self.known])) if self.known.any() else np.nan


class Calibration(NamedTuple):
    """Whether "simulated with probability p" is right a share p of the time, in B bins of p."""

    predicted: np.ndarray  # [B] mean probability of "simulated" in the bin; NaN if it is empty
    observed: np.ndarray  # [B] share of the bin's rows that are simulated; NaN if it is empty
    rows: np.ndarray  # [B] int
    error: float
    """Expected calibration error: mean of ``|predicted - observed|`` over rows."""


@dataclass(frozen=True, eq=False)
class ClassifierEstimate:
    """What H2O's two domain classifiers say of held-out simulated rows (Eq. 7, 33)."""

    simulated: Transitions[np.ndarray]  # [N] rows of the simulator's rollouts that no classifier trained on
    log_ratio: np.ndarray  # [N] log P̂/P at the simulator's own s'
    gap: np.ndarray  # [N] u(s, a) as published
    share: np.ndarray  # [N] ω(s, a) over these rows; sums to 1
    area_state_action: float  # area under the ROC curve of ψ on held-out rows of both sources
    area_transition: float  # the same of ψ + φ
    calibration: Calibration  # of ψ + φ
    published: bool
    """Whether the networks, inputs and noise are those of the paper."""

    @property
    def share_of_worst_tenth(self) -> float:
        """Sum of ω over the tenth of the rows where it is largest: 0.1 if all are alike; NaN of no rows."""
        largest = np.sort(self.share)[::-1][: -(-len(self.share) // 10)]
        return float(largest.sum()) if len(largest) else float("nan")


@dataclass(frozen=True, eq=False)
class WorstEpisode:
    """An episode of the log, and what the simulator makes of its start state and its actions."""

    episode: int  # number in the log, from 0
    first_row: int  # row of the log from which the simulator was left to itself
    gap: float  # mean one-step gap over the episode
    real: np.ndarray  # [H + 1, O] logged
    simulated: np.ndarray  # [H + 1, O]; NaN after a failure


@dataclass(frozen=True, eq=False)
class PolicyTrust:
    """How much of its time a policy spends where the simulator is not to be trusted."""

    source: str  # the run directory
    rows: int  # control steps, in the simulator
    low_trust: float  # share of them with an expected error above the verdict's `trusted_error`
    unknown: float  # share of them about which the log says nothing
    gap: np.ndarray  # [rows] expected one-step error


@dataclass(frozen=True)
class Verdict:
    """What it comes to."""

    gap_found: bool
    trusted_fraction: float
    """Share of the log's states and actions in which the simulator can be trusted; NaN if unknown."""
    trusted_error: float
    """The one-step error up to which it is, in standard deviations of the logged change."""
    worst_dimension: str | None
    best_explanation: str | None
    confidence: str
    """``high``, ``medium`` or ``low``."""
    reason: str
    """What the confidence rests on."""


@dataclass(frozen=True, eq=False)
class GapReport:
    """The gap between a log and a simulator."""

    dataset: Dataset
    simulator: str
    shifts: tuple[Shift, ...]
    observation_names: tuple[str, ...]
    action_names: tuple[str, ...]
    replay: ReplayEstimate | None
    """None if the simulator cannot be put into a logged state."""
    model: ModelEstimate | None
    """None if it failed although replay did not."""
    classifier: ClassifierEstimate | None
    """None if it failed."""
    trust: FittedTrust | None
    """The gap as a function of state and action; None if it could not be fitted."""
    worst_episodes: tuple[WorstEpisode, ...]
    """The worst first; none if the simulator cannot be put into a logged state, or nothing deviates."""
    policy: PolicyTrust | None
    """If a policy was given."""
    missing: dict[str, str]
    """From a part that could not be had (replay, drift, corrections, actuators, model, classifier, worst
    episodes, trust model, policy) to the reason."""
    regions: tuple[Region, ...]
    """Of replay's gap over the log, or else of the model's over the simulator's known rows."""
    verdict: Verdict
