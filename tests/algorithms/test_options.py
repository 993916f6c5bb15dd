"""Which options of the algorithms are allowed: what lies at a limit, and what lies beyond."""

import pytest

from simtrust.algorithms.options import AlgorithmOptions
from simtrust.errors import ConfigError

AT_LEAST_ONE = ("batch_size", "critic_ensemble", "cql_actions", "next_state_samples")
RATES = ("learning_rate", "target_update_rate")
NOT_NEGATIVE = ("exploration_noise", "beta", "cql_alpha", "classifier_input_noise", "next_state_noise_scale")
WIDTHS = ("hidden_sizes", "classifier_hidden_sizes")

ALLOWED = [
    *((name, 1) for name in AT_LEAST_ONE),
    *((name, value) for name in RATES for value in (1e-9, 1.0)),
    *((name, value) for name in NOT_NEGATIVE for value in (0.0, 1e9)),
    *((name, (1,)) for name in WIDTHS),
    ("discount", 0.0),
    ("classifier_batch_size", 2),
    ("target_entropy", 0.0),
]
REFUSED = [
    *(("gap_sharpness", value) for value in (-1.0, 0.0, float("inf"), float("nan"))),
    *((name, 0) for name in AT_LEAST_ONE),
    *((name, value) for name in RATES for value in (0.0, 1.1, float("nan"))),
    *((name, value) for name in NOT_NEGATIVE for value in (-1e-9, float("inf"), float("nan"))),
    *((name, value) for name in WIDTHS for value in ((), (8, 0))),
    *(("discount", value) for value in (-0.1, 1.0)),
    *(("real_fraction", value) for value in (-0.1, 0.0, 1.0, 1.5)),
    *(("classifier_batch_size", value) for value in (0, 3)),
    ("target_entropy", float("inf")),
    ("actor", "random"),
    ("next_state_covariance", "none"),
]


@pytest.mark.parametrize(("name", "value"), ALLOWED)
def test_what_lies_at_a_limit_is_allowed(name, value):
    assert getattr(AlgorithmOptions(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_lies_beyond_a_limit_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} is "):
        AlgorithmOptions(**{name: value})


def test_the_users_own_value_goes_before_the_recipes_and_that_before_the_general_one():
    defaults = {"critic_layer_norm": True, "beta": 5.0}
    general = AlgorithmOptions().resolved({}, action_size=3)
    assert (general.critic_layer_norm, general.target_entropy) == (False, -3.0)
    of_recipe = AlgorithmOptions().resolved(defaults, action_size=3)
    assert (of_recipe.critic_layer_norm, of_recipe.beta) == (True, AlgorithmOptions().beta)
    own = AlgorithmOptions(critic_layer_norm=False, target_entropy=0.0).resolved(defaults, action_size=3)
    assert (own.critic_layer_norm, own.target_entropy) == (False, 0.0)
