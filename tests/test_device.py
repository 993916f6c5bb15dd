"""Where JAX computes: chosen before it is first used, or refused with the reason."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from simtrust import device
from simtrust.commands import sweep as sweep_command
from simtrust.commands.paper import PAPER_OPTIONS, paper
from simtrust.device import choose_device, device_kind, free_device_memory
from simtrust.errors import ConfigError
from simtrust.sweeps import local_engine, ray_engine, work
from simtrust.sweeps.work import Order, carry_out

SAC = ("train", "sac", "--sim", "Pendulum-v1", "--out", "run")
TINY = (
    "--steps 20 --rollout-steps 10 --checkpoint-every 20 --evaluate-every 0 --evaluation-episodes 1 "
    "--hidden-sizes 8 --batch-size 8"
)
NO_PLUGIN = "--device gpu: JAX's CUDA plugin is not installed: pip install 'simtrust[gpu]'"


@pytest.fixture
def simtrust(tmp_path, monkeypatch):
    """``simtrust(*words)`` runs the command line in a process of its own, in an empty folder."""
    monkeypatch.setenv("COLUMNS", "300")

    def simtrust(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "simtrust.cli", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    return simtrust


@pytest.fixture
def python(tmp_path, monkeypatch):
    """``python(script)`` is what a script prints that is run in a process without JAX's variables."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    head = "import jax\nfrom simtrust import device\nfrom simtrust.device import choose_device\n"

    def python(script: str) -> str:
        command = [sys.executable, "-c", head + script]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return python


def may_have_gpu() -> bool:
    seen = Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists()
    return seen or any(map(device._is_installed, device.PLUGINS))


without_gpu = pytest.mark.skipif(may_have_gpu(), reason="there is a GPU, or JAX's plugin for one")


@without_gpu
@pytest.mark.parametrize(
    "words",
    [
        SAC,
        ("resume", "gone"),
        ("sweep", "gone.toml"),
        ("sweep", "gone.toml", "--jobs", "2"),
        ("paper", "table1"),
    ],
)
def test_no_gpu_is_told_before_anything_else(simtrust, words, tmp_path):
    done = simtrust(*words, "--device", "gpu")
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: {NO_PLUGIN}" and not done.stdout
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_run_trains_on_the_processor(simtrust, tmp_path):
    done = simtrust(*SAC, *TINY.split(), "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 20


def test_the_choice_holds_until_jax_computes(python):
    told = python("choose_device('cpu')\nprint(jax.config.values['jax_platforms'], device.device_kind())")
    assert told == "cpu cpu"


def test_the_choice_overrules_the_variable(python, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    assert python("choose_device('cpu'); print(jax.default_backend())") == "cpu"


@without_gpu
def test_a_refusal_leaves_jax_as_it_was(python):
    refused = "try: choose_device('gpu')\nexcept device.ConfigError as error: print(error)\n"
    told = python(f"{refused}print(jax.config.values['jax_platforms'] or 'any', jax.numpy.ones(3).sum())")
    assert told.splitlines() == [NO_PLUGIN, "any 3.0"]


@without_gpu
def test_a_plugin_without_a_gpu_is_told(python):
    told = python(
        "device._is_installed = lambda package: package == 'jax-cuda13-plugin'\n"
        "import os; os.environ['CUDA_VISIBLE_DEVICES'] = '7'\n"
        "try: choose_device('gpu')\nexcept device.ConfigError as error: print(error)"
    )
    assert told == (
        "--device gpu: JAX sees no NVIDIA GPU on this machine, where CUDA_VISIBLE_DEVICES is 7; does "
        "nvidia-smi show one?"
    )


def test_what_jax_says_of_a_broken_gpu_is_told(python):
    """A GPU that the operating system shows, and a backend that does not start."""
    told = python(
        "from jax._src import hardware_utils\n"
        "hardware_utils.has_visible_nvidia_gpu = lambda: True\n"
        "device._is_installed = lambda package: True\n"
        "def broken(): raise RuntimeError('the driver is too old')\n"
        "from jax._src import xla_bridge\n"
        "xla_bridge.register_backend_factory('cuda', broken)\n"
        "try: choose_device('gpu')\nexcept device.ConfigError as error: print(error)\n"
        "print(jax.config.values['jax_platforms'] or 'any')\n"
        "choose_device('cpu'); print(jax.default_backend())"
    )
    assert told.splitlines() == [
        "--device gpu: Unable to initialize backend 'cuda': the driver is too old",
        "any",
        "cpu",
    ]


def test_it_is_too_late_once_jax_computes(monkeypatch):
    assert device_kind() == "cpu"
    choose_device("auto")
    choose_device("cpu")
    with pytest.raises(
        ConfigError, match=r"^--device gpu: JAX computes on cpu in this process already; choose"
    ):
        choose_device("gpu")


def test_every_process_of_a_sweep_computes_there(monkeypatch):
    started: list[tuple] = []

    def start(*call):
        started.append(call)
        raise KeyboardInterrupt

    monkeypatch.setattr(local_engine, "start", start)
    order = Order(None, None, "", None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(KeyboardInterrupt):
        list(local_engine.side_by_side(2, "cpu").train([order]))
    ((function, *arguments),) = started
    chosen: list[str] = []
    monkeypatch.setattr(work, "choose_device", chosen.append)
    monkeypatch.setattr(work, "_outcome", lambda order, quiet: (order, [*chosen]))
    assert function(*arguments) == (order, ["cpu"])


def test_a_run_of_a_sweep_fails_where_there_is_no_such_device():
    order = Order(type("Run", (), {"name": "a"}), None, "", None)  # pyright: ignore[reportArgumentType]
    outcome = carry_out(order, device="gpu")
    assert outcome.name == "a" and "--device gpu: JAX computes on cpu" in (outcome.error or "")


def test_a_gpu_on_ray_is_asked_of_ray(monkeypatch):
    asked = {}
    monkeypatch.setattr(ray_engine, "on_ray", lambda address, **options: asked.update(options))
    with pytest.raises(ConfigError, match=r"--device gpu: Ray shows a run only the GPUs .* give --gpus"):
        sweep_command._engine("ray", None, None, None, None, "gpu")
    sweep_command._engine("ray", None, None, None, 0.5, "gpu")
    assert asked == {"cpus": 1, "gpus": 0.5, "device": "gpu"}


def test_a_device_says_nothing_to_what_trains_nothing():
    for study in ("figure4", "figure5", "theory"):
        assert "device" not in PAPER_OPTIONS[study]
        with pytest.raises(ConfigError, match=f"{study} has no option --device; leave it out"):
            paper(study, device="cpu")


@pytest.mark.parametrize(
    ("stats", "free"),
    [({"bytes_limit": 100, "bytes_in_use": 30}, 70), ({"bytes_limit": 100}, 100), ({}, None), (None, None)],
)
def test_what_a_gpu_has_left_is_what_jax_may_still_take(monkeypatch, stats, free):
    class Device:
        def memory_stats(self):
            return stats

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert free_device_memory() == free


@without_gpu
def test_a_processor_has_no_memory_of_its_own():
    assert free_device_memory() is None
