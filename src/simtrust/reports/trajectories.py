"""How episodes went: the robot's state over time, and as a moving picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

SHOWN_EPISODES = 5


def draw_states(
    columns: Mapping[str, Mapping[str, np.ndarray]],
    *,
    time_step: float,
    rows: Sequence[tuple[str, int, float | None]],
    limits: Sequence[tuple[float, float]],
    path: Path,
) -> Path:
    """States over time, as in the paper's Fig. 2 c and d: a column a title, a row a component.

    Args:
        columns: title, then label, then true states ``[n, T, K]``, NaN after an episode's end; a cross
            marks the end of an episode that ended early.
        time_step: seconds of one step.
        rows: label with unit, index of the component, and its target or None.
        limits: of each row's axis.
        path: the picture to write, its format by its suffix.
    """
    figure = Figure(figsize=(5.2 * len(columns), 1.9 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), sharex=True, squeeze=False)
    longest = max(states.shape[1] for by_label in columns.values() for states in by_label.values())
    for column, (title, by_label) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize="medium")
        axes[-1, column].set_xlabel("time (s)")
        for row, ((label, index, target), limit) in enumerate(zip(rows, limits, strict=True)):
            axis = axes[row, column]
            axis.set_ylim(limit)
            axis.grid(alpha=0.25)
            if column == 0:
                axis.set_ylabel(label)
            if target is not None:
                axis.axhline(target, color="black", linewidth=0.8, linestyle=":")
            for number, (name, states) in enumerate(by_label.items()):
                _draw_episodes(axis, states[..., index], time_step, f"C{number}", name)
            axis.set_xlim(0.0, time_step * longest)
    for column in range(len(columns)):
        axes[0, column].legend(frameon=False, fontsize="small", loc="upper right")
    figure.savefig(path, dpi=120)
    return path


def _draw_episodes(axis, values: np.ndarray, time_step: float, color: str, label: str) -> None:
    """Lines of up to `SHOWN_EPISODES` episodes ``[n, T]``, the first of them with the label."""
    for number, episode in enumerate(values[:SHOWN_EPISODES]):
        length = int((~np.isnan(episode)).sum())
        time = time_step * np.arange(1, length + 1)
        axis.plot(
            time,
            episode[:length],
            color=color,
            linewidth=0.8,
            alpha=0.8,
            label=label if number == 0 else None,
        )
        if 0 < length < len(episode):
            axis.plot(
                time[-1], np.clip(episode[length - 1], *axis.get_ylim()), "x", color=color, clip_on=False
            )
