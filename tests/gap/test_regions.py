"""Regions are found where the gap was put, and said in the machine's terms."""

import numpy as np
import pytest

from simtrust.errors import ConfigError
from simtrust.gap.regions import Region, find_regions

NAMES = ("speed (m/s)", "tilt (rad)", "torque (N m)")


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).uniform(-1, 1, (4_000, 3))


def test_a_corner_with_five_times_the_gap_is_found(features):
    corner = (features[:, 0] > 0.4) & (features[:, 2] > 0.2)
    noise = np.exp(0.1 * np.random.default_rng(1).standard_normal(len(features)))
    worst, *others = find_regions(features, np.where(corner, 5.0, 1.0) * noise, NAMES)
    assert set(worst.bounds) == {"speed (m/s)", "torque (N m)"}
    np.testing.assert_allclose(worst.bounds["speed (m/s)"], (0.4, np.inf), atol=0.02)
    np.testing.assert_allclose(worst.bounds["torque (N m)"], (0.2, np.inf), atol=0.02)
    np.testing.assert_allclose(worst.ratio, 5.0, rtol=0.05)
    np.testing.assert_allclose(worst.share, corner.mean(), atol=0.01)
    assert all(region.ratio < 1.2 for region in others)


def test_regions_are_disjoint_and_cover_everything(features):
    gap = np.exp(features[:, 1])
    regions = find_regions(features, gap, NAMES)
    inside = np.ones((len(regions), len(features)), bool)
    for rows, region in zip(inside, regions, strict=True):
        for name, (low, high) in region.bounds.items():
            column = features[:, NAMES.index(name)]
            rows &= (low < column) & (column <= high)
    assert (inside.sum(0) == 1).all()
    np.testing.assert_allclose([r.share for r in regions], inside.mean(1))
    assert [r.gap for r in regions] == sorted((r.gap for r in regions), reverse=True)


def test_an_even_gap_is_one_region(features):
    (everywhere,) = find_regions(features, np.full(len(features), 0.3), NAMES)
    assert everywhere == Region({}, 1.0, 0.3, 1.0)
    assert str(everywhere) == "everywhere: gap 1.0× the median, 100% of the rows"


def test_noise_without_a_place_is_one_region(features):
    gap = np.random.default_rng(2).exponential(size=len(features))
    assert len(find_regions(features, gap, NAMES)) == 1


def test_no_gap_at_all_is_no_error(features):
    (everywhere,) = find_regions(features, np.zeros(len(features)), NAMES)
    assert (everywhere.gap, everywhere.ratio) == (0.0, 1.0)


def test_no_more_regions_than_asked(features):
    gap = np.exp(3 * features.sum(1))
    assert len(find_regions(features, gap, NAMES, most=3)) == 3


@pytest.mark.parametrize(("rows", "few", "least"), [(4_000, 40, 80), (4_000, 79, 80), (200, 12, 20)])
def test_a_region_is_no_smaller_than_two_in_a_hundred_rows_or_twenty(features, rows, few, least):
    """The few worst rows take others with them, and not the many."""
    speed = np.sort(features[:rows, 0])[:, None]
    gap = np.where(np.arange(rows) < rows - few, 1.0, 100.0)
    shares = [region.share for region in find_regions(speed, gap, NAMES[:1])]
    assert min(shares) == pytest.approx(least / rows)


def test_few_rows_and_constant_features_work():
    regions = find_regions(np.zeros((3, 1)), np.array([1.0, 2.0, 3.0]), ["0"])
    assert [r.share for r in regions] == [1.0]


@pytest.mark.parametrize(("rows", "gaps", "names"), [(0, 0, 2), (3, 2, 2), (3, 3, 1)])
def test_lengths_that_do_not_fit_are_told(rows, gaps, names):
    with pytest.raises(ConfigError, match="as many"):
        find_regions(np.zeros((rows, 2)), np.zeros(gaps), ["x"] * names)


def test_a_region_reads_as_a_sentence():
    bounds = {"speed": (4.1234, np.inf), "tilt": (-0.1, 0.2), "torque": (-np.inf, 0.6)}
    told = str(Region(bounds, share=0.084, gap=1.0, ratio=5.31))
    assert told == "speed > 4.12 and -0.1 < tilt ≤ 0.2 and torque ≤ 0.6: gap 5.3× the median, 8% of the rows"
