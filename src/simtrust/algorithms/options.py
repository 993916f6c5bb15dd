"""The options of the algorithms: the paper's values as defaults (Table 3, Appendix B.1).

Free of JAX, so that the command line can show its help at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any

from simtrust.errors import ConfigError
from simtrust.types import ActorKind, CovarianceKind


@dataclass(frozen=True)
class AlgorithmOptions:
    """What the update step needs to know. ``None`` means: the recipe's own value."""

    batch_size: int = 256
    """Rows per update, over all sources that the recipe reads."""
    real_fraction: float = 0.5
    """Share of the batch drawn from the log, where the recipe reads both sources."""
    discount: float = 0.99
    """γ."""
    learning_rate: float = 3e-4
    """Adam's step size, for every network."""
    target_update_rate: float = 5e-3
    """τ: the target network moves this far towards the critic after every update."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of actor and critics."""
    critic_layer_norm: bool | None = None
    """LayerNorm before each ReLU of the critics (the paper has none; `trust` has it)."""
    critic_ensemble: int = 2
    """Number of critics; targets take the minimum over a random pair of them."""
    actor: ActorKind = "stochastic"
    """`stochastic`: SAC's tanh-Gaussian. `deterministic`: plain maximisation of Q (Eq. 2)."""
    exploration_noise: float = 0.1
    """Standard deviation of the deterministic actor's noise in the simulator, in units of [-1, 1]."""
    target_entropy: float | None = None
    """Entropy that the temperature λ is tuned to; default −dim(A)."""
    entropy_in_backup: bool = False
    """Subtract λ log π from the next state's value, as SAC does and H2O does not."""
    beta: float = 0.01
    """β: weight of H2O's value regularisation. The paper: 0.01 for MuJoCo, 0.1 or 1 for its robot."""
    gap_sharpness: float = 1.0
    """κ of `trust`'s weight w = exp(−κu): how steeply trust falls with the measured gap."""
    cql_alpha: float = 2.0
    """α: weight of CQL's regularisation. The paper: 2 for MuJoCo, 10 for its robot."""
    cql_actions: int = 10
    """CQL samples so many random actions, policy actions at s, and policy actions at s'."""
    classifier_batch_size: int = 512
    """Rows per update of the domain classifiers, half of them real."""
    classifier_hidden_sizes: tuple[int, ...] = (256,)
    """Hidden layers of the domain classifiers (the paper 1, its reference code 2)."""
    classifier_input_noise: float = 0.1
    """Standard deviation of the noise on the classifiers' inputs while they train."""
    next_state_samples: int = 10
    """N: next states drawn to estimate the gap u(s, a): around s', or from the model of `h2o_reverse_kl`."""
    next_state_covariance: CovarianceKind = "diagonal"
    """Covariance of the draws around s': of the log's states, per dimension or full."""
    next_state_noise_scale: float = 1.0
    """Multiplies the standard deviation of the same; 0.302 imitates the public reference."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "critic_ensemble", "cql_actions", "next_state_samples"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("learning_rate", "target_update_rate"):
            _require(0 < getattr(self, name) <= 1, name, getattr(self, name), "in (0, 1]")
        for name in ("exploration_noise", "beta", "cql_alpha", "classifier_input_noise"):
            _require(0 <= getattr(self, name) < float("inf"), name, getattr(self, name), "0 or more")
        _require(0 < self.gap_sharpness < float("inf"), "gap_sharpness", self.gap_sharpness, "positive")
        entropy = self.target_entropy
        _require(entropy is None or isfinite(entropy), "target_entropy", entropy, "a number")
        scale = self.next_state_noise_scale
        _require(0 <= scale < float("inf"), "next_state_noise_scale", scale, "0 or more")
        _require(0 <= self.discount < 1, "discount", self.discount, "in [0, 1)")
        _require(0 < self.real_fraction < 1, "real_fraction", self.real_fraction, "between 0 and 1")
        pairs = self.classifier_batch_size >= 2 and self.classifier_batch_size % 2 == 0
        _require(pairs, "classifier_batch_size", self.classifier_batch_size, "even and at least 2")
        kinds = ("stochastic", "deterministic")
        _require(self.actor in kinds, "actor", self.actor, " or ".join(kinds))
        known = self.next_state_covariance in ("diagonal", "full")
        _require(known, "next_state_covariance", self.next_state_covariance, "diagonal or full")
        for name in ("hidden_sizes", "classifier_hidden_sizes"):
            sizes: Sequence[int] = getattr(self, name)
            _require(bool(sizes) and min(sizes) >= 1, name, sizes, "one or more positive widths")

    def resolved(self, recipe_defaults: Mapping[str, Any], action_size: int) -> "AlgorithmOptions":
        """These options with every ``None`` replaced by the recipe's or the general default."""
        defaults = {"critic_layer_norm": False, "target_entropy": -float(action_size), **recipe_defaults}
        own = {f.name for f in fields(self)}
        missing = {k: v for k, v in defaults.items() if k in own and getattr(self, k) is None}
        return replace(self, **missing)


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be {allowed}")
