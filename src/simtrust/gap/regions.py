"""Where the gap is: regions of states and actions that a person can read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.tree import DecisionTreeRegressor

from simtrust.errors import ConfigError

SMALLEST_SHARE = 0.02
"""A region holds at least this share of the rows, and at least `SMALLEST_ROWS`."""
SMALLEST_ROWS = 20


@dataclass(frozen=True)
class Region:
    """Rows within some bounds, and how large the gap is there."""

    bounds: dict[str, tuple[float, float]]
    """From a dimension's name to the open lower and closed upper bound; infinite where there is none."""
    share: float
    """Of all rows."""
    gap: float
    """The median over the region's rows."""
    ratio: float
    """The same in units of the median over all rows."""

    def __str__(self) -> str:
        parts = []
        for name, (low, high) in self.bounds.items():
            if np.isfinite(low) and np.isfinite(high):
                parts.append(f"{low:.3g} < {name} ≤ {high:.3g}")
            else:
                parts.append(f"{name} > {low:.3g}" if np.isfinite(low) else f"{name} ≤ {high:.3g}")
        where = " and ".join(parts) or "everywhere"
        return f"{where}: gap {self.ratio:.1f}× the median, {self.share:.0%} of the rows"


def find_regions(
    features: np.ndarray, gap: np.ndarray, names: Sequence[str], *, most: int = 6
) -> tuple[Region, ...]:
    """Regions between which the gap differs, the worst first: the leaves of a shallow regression tree.

    The tree splits the logarithm of the gap, so that a few huge errors do not decide. Regions are
    disjoint and cover everything. A gap that differs nowhere gives the one region of all rows.

    Args:
        features: ``[N, F]``, states and actions side by side, finite.
        gap: ``[N]``, of 0 or more.
        names: of the F features, in the machine's terms.
        most: regions at most.

    Raises:
        ConfigError: there are no rows, or lengths differ.
    """
    if not len(gap) or len(features) != len(gap) or features.shape[1] != len(names):
        raise ConfigError(
            f"regions need as many gaps as rows and as many names as features, got {features.shape}, "
            f"{len(gap)} gaps and {len(names)} names"
        )
    overall = float(np.median(gap))
    logarithm = np.log(np.maximum(gap, max(1e-6 * float(gap.max()), np.finfo(float).tiny)))
    smallest = max(SMALLEST_ROWS, round(SMALLEST_SHARE * len(gap)))
    tree = DecisionTreeRegressor(max_leaf_nodes=max(most, 2), min_samples_leaf=smallest, random_state=0)
    # A split must lower the tree's variance by 1 % of the whole, or it tells nothing.
    tree.set_params(min_impurity_decrease=0.01 * float(np.var(logarithm)) + 1e-12)
    leaf = tree.fit(features, logarithm).apply(features)
    bounds = _leaf_bounds(tree, names)
    regions = []
    for number in np.unique(leaf):
        inside = gap[leaf == number]
        median = float(np.median(inside))
        ratio = median / overall if overall > 0 else (1.0 if median == 0 else np.inf)
        regions.append(Region(bounds[int(number)], len(inside) / len(gap), median, ratio))
    return tuple(sorted(regions, key=lambda region: -region.gap))


def _leaf_bounds(tree: DecisionTreeRegressor, names: Sequence[str]) -> dict[int, dict]:
    """The bounds of every leaf, from the splits on the way to it."""
    nodes = tree.tree_
    found: dict[int, dict] = {}
    open_nodes: list[tuple[int, dict]] = [(0, {})]
    while open_nodes:
        node, bounds = open_nodes.pop()
        if nodes.children_left[node] == -1:
            found[node] = bounds
            continue
        name, threshold = names[nodes.feature[node]], float(nodes.threshold[node])
        low, high = bounds.get(name, (-np.inf, np.inf))
        open_nodes.append((int(nodes.children_left[node]), {**bounds, name: (low, min(high, threshold))}))
        open_nodes.append((int(nodes.children_right[node]), {**bounds, name: (max(low, threshold), high)}))
    return found
