"""What a bug report says: the limits that hold, what does not work, and nothing of who the user is."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest
import tyro

from simtrust import doctor
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.commands.doctor import doctor as command


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory whose owner's name nobody should read."""
    place = tmp_path / "quentin"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / ".cache"))
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    yield place
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def no_opengl(monkeypatch):
    monkeypatch.setattr(doctor, "TRY_OPENGL", "print('EGL works')")


def test_the_report_names_everything_and_nobody(home, no_opengl, capsys, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", f"{home}/gl")
    monkeypatch.chdir(home)
    monkeypatch.setattr(doctor, "measure_speed", lambda: {"products": "never"})
    tyro.cli(command, args=["--no-speed"])
    told = capsys.readouterr().out
    assert "quentin" not in told and str(home) not in told
    assert "~/.cache/simtrust/jax: 0 files" in told and "MUJOCO_GL=~/gl" in told
    assert f"jax {jax.__version__}," in told and "simtrust 0." in told and "missing" not in told
    assert "OpenGL       EGL works" in told and "never" not in told
    tyro.cli(command, args=[])
    assert "products     never" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{home}/logs/a.csv: no", "~/logs/a.csv: no"),
        ("{home}", "~"),
        ("'{home}'", "'~'"),
        ("{home}-other/x", "{home}-other/x"),
        ("/home/alice/x and /Users/bob", "~/x and ~"),
        (r"C:\Users\carol\x", r"~\x"),
        ("/usr/lib", "/usr/lib"),
    ],
)
def test_home_directories_become_a_tilde(home, text, expected):
    assert doctor.anonymous(text.format(home=home)) == expected.format(home=home)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_tightest_control_group_counts(tmp_path):
    root, own = tmp_path / "cgroup", tmp_path / "own"
    write(own, "1:name=systemd:/other\n0::/user/job\n")
    assert doctor.cpu_limit(root, own) is None and doctor.memory_limit(root, own) is None
    write(root / "user" / "job" / "cpu.max", "max 100000\n")
    assert doctor.cpu_limit(root, own) is None
    write(root / "user" / "cpu.max", "400000 100000\n")
    write(root / "cpu.max", "150000 100000\n")
    assert doctor.cpu_limit(root, own) == 1.5
    write(root / "user" / "job" / "memory.max", "3000\n")
    write(root / "user" / "memory.max", "2000\n")
    # Beside its parents, not one of them.
    write(root / "user" / "neighbour" / "memory.max", "10\n")
    write(tmp_path / "memory.max", "10\n")
    assert doctor.memory_limit(root, own) == 2000


def test_the_first_versions_control_groups_count_too(tmp_path):
    root = tmp_path / "cgroup"
    write(root / "cpu" / "cpu.cfs_period_us", "50000")
    write(root / "cpu" / "cpu.cfs_quota_us", "-1")
    assert doctor.cpu_limit(root, tmp_path / "none") is None
    write(root / "cpu" / "cpu.cfs_quota_us", "25000")
    assert doctor.cpu_limit(root, tmp_path / "none") == 0.5


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("print('noise'); print('OSMESA works')", "OSMESA works"),
        ("import os; os.abort()", "does not work: exit status -6"),
        ("raise OSError('no driver')", "does not work: exit status 1 OSError: no driver"),
        ("import time; time.sleep(60)", "does not work: no answer in 1 s"),
    ],
)
def test_an_opengl_that_crashes_or_hangs_is_told(home, monkeypatch, program, expected):
    monkeypatch.setattr(doctor, "TRY_OPENGL", program)
    if "sleep" in program:
        monkeypatch.setattr(doctor, "OPENGL_SECONDS", 1)
    assert doctor.diagnose()["OpenGL"] == expected


def test_the_program_that_tries_opengl_answers():
    done = subprocess.run([sys.executable, "-c", doctor.TRY_OPENGL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "work" in done.stdout


def test_what_is_broken_does_not_hide_what_is_not(monkeypatch):
    def broken():
        raise RuntimeError("no backend")

    monkeypatch.setattr(doctor, "product_rate", lambda: 12.3)
    monkeypatch.setattr(doctor, "update_speed", broken)
    monkeypatch.setattr(doctor, "simulator_rate", lambda: 4_567.8)
    assert doctor.measure_speed() == {
        "products": "12 GFLOP/s, of 256 × 256 in float32",
        "updates": "does not work: RuntimeError: no backend",
        "MuJoCo": "4,568 steps/s of HalfCheetah-v5, 16 side by side",
    }


def test_rates_are_the_work_done_by_the_time_taken(monkeypatch):
    taken = iter([0.5, 0.25, 1.0])
    monkeypatch.setattr(doctor, "_seconds", lambda function: next(taken))
    assert doctor.product_rate(products=10, rounds=3) == pytest.approx(2 * 256**3 * 10 / 0.25 / 1e9)
    monkeypatch.undo()
    assert doctor.simulator_rate(steps=2, instances=2) > 0


@pytest.mark.slow
def test_an_update_is_timed_without_its_compilation(monkeypatch):
    small = {"hidden_sizes": (4,), "batch_size": 4, "classifier_hidden_sizes": (4,)}
    options = AlgorithmOptions(**small, classifier_batch_size=4)
    taken = iter([9.0, 0.5, 0.4])

    def seconds(function):
        jax.block_until_ready(function())
        return next(taken)

    monkeypatch.setattr(doctor, "_seconds", seconds)
    told = doctor.update_speed(updates=20, rounds=2, options=options)
    assert told == "50 updates/s of h2o; the first 20 took 9.0 s with compiling"
