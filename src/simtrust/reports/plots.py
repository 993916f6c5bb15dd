"""Pictures. Each is a matplotlib Figure of its own, never pyplot's global one: no screen is needed."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simtrust.data.dataset import defect

BINS = 80
SIZE, RESOLUTION = (7.0, 4.0), 150
"""Inches, and pixels per inch."""


def reward_bars(rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The histogram that `reward_figure` draws of rewards ``[T]``: rows of each bar [B], and edges [B + 1].

    Raises:
        ValueError: there are no rewards, or one is not finite.
    """
    rewards = np.asarray(rewards, np.float64).reshape(-1)
    if not rewards.size or not np.isfinite(rewards).all():
        raise ValueError(f"a histogram needs finite rewards, at least one, got {rewards!r}")
    return np.histogram(rewards, BINS)


def reward_figure(rewards: np.ndarray, title: str) -> Figure:
    """Histogram of the single-step rewards ``[T]`` of a log, with their mean (Niu et al. 2022, Fig. 4).

    Bars are shares of the rows, in per cent, and sum to 100.

    Raises:
        ValueError: see `reward_bars`.
    """
    rows, edges = reward_bars(rewards)
    rewards = np.asarray(rewards, np.float64).reshape(-1)
    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.hist(edges[:-1], edges.tolist(), weights=100.0 * rows / rewards.size, color="tab:blue")
    mean = rewards.mean()
    axes.axvline(mean, color="tab:orange", linestyle="--", label=f"mean {mean:.3f}")
    axes.set_title(title)
    axes.set_xlabel("reward of one control step (no unit)")
    axes.set_ylabel(f"share of {rewards.size:,} rows (%)")
    axes.legend()
    return figure


def reward_distribution(rewards: np.ndarray, title: str, path: Path) -> Path:
    """Write `reward_figure` as PNG; a file already there is replaced.

    Raises:
        DataError: the file cannot be written.
        ValueError: see `reward_figure`.
    """
    figure = reward_figure(rewards, title)
    try:
        figure.savefig(path, dpi=RESOLUTION, format="png")
    except OSError as error:
        problem = f"cannot be written ({error})"
        raise defect(str(path), problem, "check the folder, its permissions and free space") from error
    return path
