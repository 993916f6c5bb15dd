"""Pictures of logs."""

import subprocess
import sys

import numpy as np
import pytest

from simtrust.errors import DataError
from simtrust.reports.plots import reward_distribution, reward_figure

REWARDS = np.array([1.0, 1.0, 1.0, 3.0], np.float32)


def drawn(rewards, title="a title"):
    (axes,) = reward_figure(rewards, title).axes
    return axes


def test_bars_are_shares_of_the_rows():
    bars = drawn(REWARDS).patches
    heights = [bar.get_height() for bar in bars]
    assert (heights[0], heights[-1]) == (75.0, 25.0)
    assert sum(heights) == pytest.approx(100.0)
    assert bars[0].get_x() == 1.0
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(3.0)


def test_mean_is_marked():
    axes = drawn(REWARDS)
    (line,) = axes.lines
    assert list(line.get_xdata()) == [1.5, 1.5]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mean 1.500"]


def test_axes_say_what_they_show():
    axes = drawn(REWARDS)
    assert axes.get_title() == "a title"
    assert axes.get_xlabel() == "reward of one control step (no unit)"
    assert axes.get_ylabel() == "share of 4 rows (%)"


def test_equal_rewards_are_one_bar():
    assert max(bar.get_height() for bar in drawn(np.full(10, 2.0)).patches) == pytest.approx(100.0)


@pytest.mark.parametrize("rewards", [[], [1.0, np.nan], [np.inf]])
def test_no_histogram_of_nothing_or_of_what_is_not_finite(rewards):
    with pytest.raises(ValueError, match="finite rewards"):
        reward_figure(np.array(rewards), "a title")


def test_file_is_a_png_and_the_same_again(tmp_path):
    first, again = (reward_distribution(REWARDS, "a title", tmp_path / name) for name in ("1.png", "2.png"))
    assert first.read_bytes().startswith(b"\x89PNG")
    assert first.read_bytes() == again.read_bytes()
    other = reward_distribution(REWARDS + 1, "a title", tmp_path / "3.png")
    assert other.read_bytes() != first.read_bytes()


def test_unwritable_path_is_named(tmp_path):
    with pytest.raises(DataError, match=r"missing/1\.png: cannot be written"):
        reward_distribution(REWARDS, "a title", tmp_path / "missing" / "1.png")


def test_pyplot_and_its_screen_are_never_touched(tmp_path):
    script = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from simtrust.reports.plots import reward_distribution\n"
        f"reward_distribution(np.arange(3.0), 'a title', Path({str(tmp_path / '1.png')!r}))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"
