"""What the paper says of Figure 3 (Section 6.4), to be judged by our rows and the truth beside them."""

from collections.abc import Mapping, Sequence

import numpy as np

from simtrust.paper.cheetah import Point
from simtrust.paper.claims import Claim, Quantity
from simtrust.paper.comparison import sample_of
from simtrust.paper.truth import partial_rank_correlation, rank_correlation

_SOURCE = "Section 6.4, Figure 3"
ERROR_WITH_SPEED = "ρ(true gap, x-velocity), late"
Q_WITH_SPEED = "ρ(Q, x-velocity), late"
U_WITH_SPEED = "ρ(u, x-velocity), late"
U_WITH_GAP = "ρ(u, true gap), late"
U_WITH_GAP_SINCE = "ρ(u, true gap), late less early"
Q_WITH_U = "ρ(u, Q) at equal x-velocity, late"

CLAIMS = (
    Claim("The simulator errs more the faster it runs", _SOURCE, "", ERROR_WITH_SPEED, 0.0),
    Claim("Faster rows have a higher Q", _SOURCE, "", Q_WITH_SPEED, 0.0),
    Claim("u is larger the faster it runs", _SOURCE, "", U_WITH_SPEED, 0.0),
    Claim("Late in training u is large where the gap is", _SOURCE, "", U_WITH_GAP, 0.0),
    Claim("u tells the gap better late than early", _SOURCE, "", U_WITH_GAP_SINCE, 0.0),
    Claim("Q is pushed down where u is large", _SOURCE, "", 0.0, Q_WITH_U),
)
READ = """Late and early are the last and the first point of training there are; of one point alone, what
changes along training is not judged. Faster rows have both a higher Q and a larger u, so these two are
compared at equal x-velocity, by Spearman's partial correlation. The paper's picture gives no numbers."""


def quantities(points: Sequence[Point]) -> Mapping[str, Quantity]:
    """What `CLAIMS` ask for, each over training seeds, of the points there are, earliest first."""
    if not points:
        return {}
    late = points[-1]
    pairs = {
        ERROR_WITH_SPEED: ("true_gap", "x_velocity"),
        Q_WITH_SPEED: ("q", "x_velocity"),
        U_WITH_SPEED: ("u", "x_velocity"),
        U_WITH_GAP: ("u", "true_gap"),
    }
    runs = {name: _ranks(late, *pair) for name, pair in pairs.items()}
    runs[Q_WITH_U] = np.array(
        [partial_rank_correlation(*columns) for columns in zip(late.u, late.q, late.x_velocity, strict=True)]
    )
    if len(points) > 1:
        runs[U_WITH_GAP_SINCE] = runs[U_WITH_GAP] - _ranks(points[0], "u", "true_gap")
    return {name: Quantity(sample_of(values)) for name, values in runs.items()}


def _ranks(point: Point, x: str, y: str) -> np.ndarray:
    """[R]: Spearman's correlation of two columns of a point, within each run's rows."""
    columns = zip(getattr(point, x), getattr(point, y), strict=True)
    return np.array([rank_correlation(*pair) for pair in columns])
