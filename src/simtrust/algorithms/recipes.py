"""Every named algorithm on one page: what its critic minimises, and whose states its actor improves.

Read a recipe as its loss. Nothing else distinguishes the algorithms: which data are drawn, whether the
simulator runs, and whether classifiers train or the gap is measured, follow from the terms (`Recipe.reads`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from simtrust.algorithms.critic import (
    REAL,
    SIM,
    Reads,
    Source,
    Term,
    bellman,
    by_gap,
    by_measured_gap,
    by_reverse_gap,
    conservative,
    dynamics_ratio,
    log_sum_exp,
    measured_trust,
    minus_gap,
    uniform,
    value_gap,
    weighted_mean,
)
from simtrust.errors import ConfigError

BOTH = (REAL, SIM)


@dataclass(frozen=True)
class Recipe:
    """A named composition.

    ``critic``: the terms whose sum the critics minimise. ``actor``: the sources in whose states the
    policy improves. ``defaults``: options that belong to the recipe unless the user sets them.
    """

    summary: str
    critic: tuple[Term, ...]
    actor: tuple[Source, ...]
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def reads(self) -> frozenset[Reads]:
        """Everything that some part of the recipe reads."""
        actor = {source.reads for source in self.actor}
        return frozenset(actor).union(*(term.reads for term in self.critic))

    @property
    def trains_gap_model(self) -> bool:
        """Whether classifiers train beside the critics."""
        return bool(self.reads & {Reads.LOG_RATIO, Reads.GAP, Reads.REVERSE_GAP})

    @property
    def predicts_reality(self) -> bool:
        """Whether a model that is fitted to the log before training predicts the batch's next states."""
        return Reads.REVERSE_GAP in self.reads

    @property
    def measures_gap(self) -> bool:
        """Whether simulated rows carry the gap that a model, fitted before training, measured of them."""
        return Reads.MEASURED_GAP in self.reads

    @property
    def needs_log(self) -> bool:
        return Reads.REAL in self.reads or self.trains_gap_model or self.measures_gap


def _h2o(summary: str, *critic: Term, **defaults: Any) -> Recipe:
    return Recipe(summary, critic, BOTH, MappingProxyType(defaults))


_real, _sim, _sim_by_ratio = bellman(REAL), bellman(SIM), bellman(SIM, weight=dynamics_ratio)
_adaptive = value_gap(omega=by_gap, pool=log_sum_exp)
_uniform = value_gap(omega=uniform, pool=log_sum_exp)
_reverse = value_gap(omega=by_reverse_gap)
_linear = value_gap(omega=by_gap, pool=weighted_mean)
_by_darc = bellman(SIM, reward=minus_gap)
_sim_by_gap, _adaptive_by_gap = bellman(SIM, weight=measured_trust), value_gap(omega=by_measured_gap)

# fmt: off
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "trust":      _h2o("ours: H2O by the measured gap, stable critics", _real, _sim_by_gap,
                           _adaptive_by_gap, critic_layer_norm=True),
        "h2o":        _h2o("H2O as published",                              _real, _sim_by_ratio, _adaptive),
        "h2o_layer_norm": _h2o("H2O with layer-normalised critics",         _real, _sim_by_ratio, _adaptive,
                           critic_layer_norm=True),
        "h2o_v":      _h2o("H2O(v): mean of Q instead of log-sum-exp",      _real, _sim_by_ratio, _linear),
        "h2o_reverse_kl": _h2o("H2O with KL(P|P̂), P from a model of the log", _real, _sim_by_ratio, _reverse),
        "h2o_a":      _h2o("H2O-a: uniform omega",                          _real, _sim_by_ratio, _uniform),
        "h2o_dr":     _h2o("H2O-dr: no dynamics ratio",                     _real, _sim, _adaptive),
        "h2o_a_dr":   _h2o("H2O-a-dr: uniform omega, no dynamics ratio",    _real, _sim, _uniform),
        "h2o_reg":    _h2o("H2O-reg: no value regularisation",              _real, _sim_by_ratio),
        "h2o_reg_dr": _h2o("H2O-reg-dr: neither; SAC on both data sources", _real, _sim),
        "darc":       Recipe("DARC: SAC in the simulator, reward minus log-ratio", (_by_darc,), (SIM,)),
        "darc_plus":  Recipe("DARC+: DARC with the log in critic and actor", (_real, _by_darc), BOTH),
        "sac":        Recipe("SAC in the simulator alone",                   (_sim,), (SIM,)),
        "cql":        Recipe("CQL on the log alone",                        (_real, conservative()), (REAL,)),
    }
)
# fmt: on


def get_recipe(name: str) -> Recipe:
    """The recipe called ``name``; dashes may stand for underscores.

    Raises `ConfigError` with the names there are.
    """
    try:
        return RECIPES[name.replace("-", "_")]
    except KeyError:
        raise ConfigError(f"unknown recipe {name!r}; choose one of {', '.join(RECIPES)}") from None
