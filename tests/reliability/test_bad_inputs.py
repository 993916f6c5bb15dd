"""What a user may get wrong, at one glance, and what simtrust says to it.

Every line of `MISTAKES` is a command line, every line of `FROM_PYTHON` a call; in a message … stands for
anything. The command line answers in one line, ``error: ...``, with exit status 2 and no
traceback; Python raises a `SimtrustError`. Either way no file is written or changed.
"""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simtrust
from simtrust import cli
from simtrust.errors import ConfigError, DataError, ExportError, RunError, SimtrustError, SimulatorError
from simtrust.gap import measure
from simtrust.paper import robot
from simtrust.training import fleet

GOLDEN = Path(__file__).parent / "golden"
SAC = "train sac --sim Pendulum-v1"
CSV_MAP = "action=tau reward=r episode=ep"


MISTAKES = [
    # Options of training -----------------------------------------------------------------------------------
    ("no steps", f"{SAC} --steps 0", "--steps is 0; it must be at least 1"),
    ("negative steps", f"{SAC} --steps -1", "--steps is -1; it must be at least 1"),
    ("no seeds", f"{SAC} --seeds 0", "--seeds is 0; it must be at least 1"),
    ("a negative seed", f"{SAC} --first-seed -1", "--first-seed is -1; it must be 0 or more"),
    ("a seed beyond 32 bits", f"{SAC} --first-seed 4294967296", "--first-seed … 4294967296"),
    ("more steps than can be counted", f"{SAC} --steps 99999999999999999999",
     "--steps … 99999999999999999999"),
    ("no batch", f"{SAC} --batch-size 0", "--batch-size is 0; it must be at least 1"),
    ("no hidden layer", f"{SAC} --hidden-sizes", "--hidden-sizes is (); it must be one or more positive"),
    ("an empty hidden layer", f"{SAC} --hidden-sizes 16 0",
     "--hidden-sizes is (16, 0); it must be one or more"),
    ("a negative learning rate", f"{SAC} --learning-rate -1",
     "--learning-rate is -1.0; it must be in (0, 1]"),
    ("a learning rate of nan", f"{SAC} --learning-rate nan", "--learning-rate is nan; it must be in (0, 1]"),
    ("no learning rate", f"{SAC} --learning-rate 0", "--learning-rate is 0.0; it must be in (0, 1]"),
    ("a discount above 1", f"{SAC} --discount 1.5", "--discount is 1.5; it must be in [0, 1)"),
    ("a negative beta", f"{SAC} --beta -0.1", "--beta is -0.1; it must be 0 or more"),
    ("an infinite beta", f"{SAC} --beta inf", "--beta is inf; it must be 0 or more"),
    ("a target that never moves", f"{SAC} --target-update-rate 0",
     "--target-update-rate is 0.0; it must be in"),
    ("no critic", f"{SAC} --critic-ensemble 0", "--critic-ensemble is 0; it must be at least 1"),
    ("all of the batch from the log", f"{SAC} --real-fraction 1",
     "--real-fraction is 1.0; it must be between"),
    ("an odd classifier batch", f"{SAC} --classifier-batch-size 3", "--classifier-batch-size is 3 … even"),
    ("evaluations within a round", f"{SAC} --evaluate-every 1500",
     "--evaluate-every 1500 … --rollout-steps 1000"),
    ("checkpoints within a round", f"{SAC} --checkpoint-every 7", "--checkpoint-every 7 must be a multiple"),
    ("no evaluation episode", f"{SAC} --evaluation-episodes 0",
     "--evaluation-episodes is 0; it must be at least"),
    ("a buffer below a round", f"{SAC} --buffer-capacity 10",
     "--buffer-capacity 10 is less than --rollout-steps"),
    ("a reward scale of nan", f"{SAC} --reward-scale nan",
     "--reward-scale is nan; it must be positive, or auto"),
    ("a scale of no log", f"{SAC} --reward-scale auto", "--reward-scale auto need a log: give --real"),
    ("negative workers", f"{SAC} --sim-workers -1", "--sim-workers is -1; it must be 0 or more"),
    ("three instances of a round", f"{SAC} --sim-instances 3", "--rollout-steps 1000 must be a multiple of"),
    ("too few rows for the gap", f"{SAC} --gap-probe-rows 5",
     "--gap-probe-rows is 5; it must be at least 100"),
    ("no simulator", "train sac", "recipe sac learns from a simulator: give --sim ID"),
    ("no log", "train h2o --sim Pendulum-v1", "recipe h2o learns from a log: give --real FILE"),
    ("nothing that tells the bounds", "train cql --real log.npz", "give --real-env ID or --sim ID"),
    # Logs --------------------------------------------------------------------------------------------------
    ("a log that is not there", "check-data gone.npz", "gone.npz: no such file. Remedy: check the path"),
    ("the same in training", "train h2o --sim Pendulum-v1 --real gone.npz", "gone.npz: no such file. Remedy"),
    ("a folder", "check-data folder.hdf5", "folder.hdf5: is a directory … Remedy: name the log file itself"),
    ("a device", "check-data /dev/zero", "/dev/zero: is a directory or a device … Remedy"),
    ("a link to itself", "check-data circle.npz", "circle.npz … Remedy"),
    ("an empty file", "check-data empty.hdf5",
     "empty.hdf5: is empty (0 bytes). Remedy: copy or record it again"),
    ("another format", "check-data text.hdf5",
     "text.hdf5: is neither an HDF5 file nor an npz … Remedy: store"),
    ("another suffix", "check-data log.txt",
     "log.txt: has the unknown extension '.txt'. Remedy: store the log as"),
    ("a cut archive", "check-data cut.npz", "cut.npz: is damaged or cut short … Remedy: copy or record"),
    ("a cut HDF5 file", "check-data cut.hdf5", "cut.hdf5: is damaged or cut short … Remedy: copy or record"),
    ("Python objects", "check-data objects.npz",
     "objects.npz: key 'rewards' … never unpickled. Remedy: store plain"),
    ("NaN", "check-data nan.npz",
     "nan.npz: key 'observations', row 60, dimension 1: value nan … Remedy: drop"),
    ("an infinite reward", "check-data inf.npz", "inf.npz: key 'rewards', row 7: value inf … Remedy: drop"),
    ("no reward", "train h2o --sim Pendulum-v1 --real no_reward.npz",
     "key 'rewards': missing; the file has actions … Remedy: store"),
    ("no reward in a map", "train h2o --sim Pendulum-v1 --real table.csv --map observation=theta action=tau",
     "--map: 'reward' is missing; add reward=NAME"),
    ("a row too few", "check-data short.npz",
     "key 'rewards', row 199: has 199 rows … 200. Remedy: store every key"),
    ("no row", "check-data no_rows.npz", "key 'observations': has zero rows. Remedy: record at least one"),
    ("no end of an episode", "check-data no_end.npz", "key 'terminals': no row is a terminal … Remedy: add"),
    ("words for rewards", "check-data words.npz",
     "key 'rewards': has type <U1 … Remedy: store it as float32"),
    ("observations of no width", "check-data flat.npz",
     "key 'observations': has shape (200,). Remedy: store one"),
    ("a misspelt key", "check-data misspelt.npz",
     "key 'timeout_': looks like a misspelt 'timeouts'. Remedy: rename"),
    ("half a terminal", "check-data half.npz",
     "key 'terminals', row 3: value 0.5 is neither 0 nor 1. Remedy"),
    ("actions out of bounds", "train h2o --real beyond.npz --sim Pendulum-v1",
     "beyond.npz: key 'actions', row 3, dimension 0: value 9.0 lies outside [-2.0, 2.0] … Remedy: record"),
    ("another machine's log", "check-data wide.npz --sim Pendulum-v1",
     "wide.npz: key 'observations', row 0: is 6 wide where simulator 'Pendulum-v1' has 3. Remedy: name the"),
    ("an unknown table", "check-data table.csv",
     "no column is recognised … Remedy: say which column is what"),
    ("half a map", "check-data table.csv --map observation=theta",
     "--map: 'action' is missing; add action=NAME"),
    ("a misspelt column", f"check-data table.csv --map observation=theta,omga {CSV_MAP}",
     "table.csv: column 'omga' … did you mean 'omega'? … Remedy: correct --map"),
    ("a misspelt field", f"check-data table.csv --map obs=theta {CSV_MAP}",
     "unknown field 'obs'; fields are"),
    ("a word in a column", f"check-data word.csv --map observation=theta,omega {CSV_MAP}",
     "word.csv: column 'omega', line 3: 'oops' is not a number. Remedy"),
    ("cells missing", f"check-data ragged.csv --map observation=theta,omega {CSV_MAP}",
     "ragged.csv: line 3: has 3 cells where the header has 5. Remedy"),
    ("a Minari dataset not here", "check-data minari:no/such-v0",
     "there is no such dataset … Remedy: minari download"),
    ("an option of check-data", "check-data log.npz --sim Pendulum-v1 --seed -1",
     "--seed is -1; it must be 0"),
    ("a page in a file", "check-data log.npz --out a_file/page.html", "--out a_file/page.html … folder"),
    ("a page without an ending", "check-data log.npz --out page", "--out page must end in .html or .htm"),
    # Simulators --------------------------------------------------------------------------------------------
    ("an unknown simulator", "train sac --sim Pendulum-v9",
     "unknown simulator 'Pendulum-v9' (did you mean Pendulum-v1"),
    ("a misspelt one", "train sac --sim HalfCheeta-v5", "'HalfCheeta-v5' (did you mean HalfCheetah-v5"),
    ("a module not there", "train sac --sim no_module:f",
     "no_module:f: No module named 'no_module'; is it installed"),
    ("a module that is no Python", "train sac --sim typo:f",
     "typo:f: cannot import the factory: SyntaxError"),
    ("no such factory", "train sac --sim machines:gone",
     "machines:gone: cannot import … no attribute 'gone'"),
    ("no function", "check-sim machines:number", "machines:number: number is int, not a function"),
    ("a factory that returns nothing", "check-sim machines:nothing",
     "must return a gymnasium.Env, got NoneType"),
    ("a factory that raises", "check-sim machines:fails",
     "machines:fails: the factory raised ZeroDivisionError: boom"),
    ("a factory with arguments", "gap --real log.npz --sim machines:asks --out g",
     "machines:asks … missing 1 required"),
    ("discrete actions", "train sac --sim machines:discrete",
     "its action space is Discrete(3). Supported are … wrap"),
    ("a dictionary", "train sac --sim machines:dictionary",
     "its observation space is Dict … Supported are … wrap"),
    ("no bounds", "train sac --sim machines:unbounded",
     "its action bounds are [-inf] to [inf]. Supported are … wrap"),
    ("an unknown shift", "train sac --sim Ant-v5 --shift gravty=2",
     "unknown shift 'gravty' (did you mean 'gravity'?)"),
    ("a shift of nothing", "gap --real log.npz --sim Ant-v5 --shift gravity=1",
     "gravity=1.0 changes nothing … leave it"),
    ("a shift twice", "check-sim Ant-v5 --shift gravity=2 --shift gravity=3",
     "'gravity' is given 2 times; give one"),
    ("a negative shift", "check-sim Ant-v5 --shift gravity=-2",
     "gravity=-2.0: the amount must be a finite number"),
    ("a shift without an amount", "check-sim Ant-v5 --shift gravity",
     "'gravity' is not of the form kind=number"),
    ("half a step of delay", "check-sim Ant-v5 --shift delay=1.5",
     "delay=1.5: a delay is a whole number of control"),
    ("a time limit of nothing", "check-sim machines:E --step-timeout 0",
     "--step-timeout … must be a positive number, got 0"),
    ("a time limit for a built-in one", "check-sim Ant-v5 --step-timeout 1",
     "Ant-v5 is built in … leave out the time limit"),
    ("a shift of another's", "check-sim Pendulum-v1 --shift gravity=2",
     "'Pendulum-v1' supports no shifts … leave out"),
    ("two machines", f"{SAC} --real-env Ant-v5",
     "simulator Pendulum-v1 has shape (3,) … Ant-v5 (105,); they must agree"),
    # The gap -----------------------------------------------------------------------------------------------
    ("a negative seed of a gap", "gap --real log.npz --sim Pendulum-v1 --seed -1 --out g",
     "--seed is -1; it must be 0"),
    ("a gap from one row", "gap --real one_row.npz --sim Pendulum-v1 --out g",
     "1 rows … Remedy: record more"),
    ("a policy not there", "gap --real log.npz --sim Pendulum-v1 --policy gone --out g",
     "gone is not a run directory"),
    ("a report on a file", "gap --real log.npz --sim Pendulum-v1 --out a_file",
     "a_file cannot be made … choose another"),
    # Run directories ---------------------------------------------------------------------------------------
    ("no run", "resume gone", "gone/config.json does not exist: gone is not a run directory"),
    ("a file for a run", "evaluate a_file", "a_file/config.json"),
    ("an empty folder for a run", "report empty", "empty is not a run directory of simtrust"),
    ("a cut configuration", "resume cut",
     "cut/config.json is damaged … start the run again in a new directory"),
    ("a newer run", "evaluate newer",
     "newer/config.json has format 2 … reads 1; use the version that wrote it: 9.9"),
    ("a recipe that is none", "evaluate no_recipe", "no_recipe/config.json is damaged … 'best'"),
    ("a count that is a word", "report word", "word/config.json is damaged … start the run again"),
    ("another log", "resume other_log", "is not the log that this run began with … restore the file"),
    ("a log that is gone", "resume log_gone", "gone.npz: no such file"),
    ("code that is not confirmed", "resume own_code",
     "uses code of your own … if you trust it, add --sim machines:E"),
    ("another simulator", "resume own_code --sim machines:F",
     "was begun with --sim machines:E, not machines:F"),
    ("a run there already", f"{SAC} --out finished",
     "already holds a run; go on with: simtrust resume finished"),
    ("a run in use", "resume in_use", "in_use is in use by another process; wait for it"),
    ("a result without runs", "report no_runs",
     "no_runs/result.json is damaged … delete it, and simtrust resume"),
    ("a result without returns", "resume no_returns", "no_returns/result.json is damaged … delete it, and"),
    ("a result without its speed", "resume no_speed", "no_speed/result.json is damaged … delete it, and"),
    ("no checkpoint", "evaluate no_checkpoint", "no_checkpoint holds no checkpoint yet; wait for the first"),
    ("cut checkpoints", "evaluate cut_states", "state-000000000200.safetensors is damaged … SHA-256"),
    ("no scaling", "evaluate no_scaling", "no_scaling/config.json is damaged … scaling"),
    ("no environment", "evaluate no_environment",
     "no_environment/config.json is damaged … evaluation_environment"),
    ("another machine to evaluate in", "evaluate finished --env Ant-v5",
     "Ant-v5 has observations and actions of shapes"),
    ("no episode", "evaluate finished --episodes 0", "--episodes is 0; it must be at least 1"),
    ("a run to compare with that is none", "report finished --no-video --compare gone",
     "gone is not a run directory"),
    # What is written ---------------------------------------------------------------------------------------
    ("a run in a file", f"{SAC} --out a_file/run", "a_file/run cannot be made … choose another --out"),
    ("a log there already", "convert log.npz log.hdf5",
     "log.hdf5 exists already; replace it with --overwrite, or"),
    ("a log of unknown ending", "convert log.npz log.xyz",
     "log.xyz: nothing is written under this ending; choose"),
    ("a log in a file", "convert log.npz a_file/log.csv",
     "a_file/log.csv: cannot be written … Remedy: check the folder"),
    ("a broken log converted", "convert nan.npz new.csv", "nan.npz: key 'observations', row 60 … Remedy"),
    ("a page in a folder", "report finished --no-video --out empty", "--out empty must end in .html or .htm"),
    ("an export over a run", "export finished --out finished --overwrite",
     "finished holds … which no export wrote"),
    ("an export over a folder", "export finished --out empty",
     "empty exists already; replace it with --overwrite"),
    ("an export in a file", "export finished --out a_file/new",
     "a_file/new cannot be written … name another --out"),
    ("an unknown seed", "export finished --out new --seed 7", "--seed is 7; finished has 0, 1"),
    ("a rate of nothing", "export finished --out new --rate 0", "--rate is 0.0; it must be positive"),
    ("a rate of nan", "export finished --out new --rate nan", "--rate is nan; it must be positive"),
    ("no rows to generate", "generate wheel-legged standing-still --rows 0", "rows: 0 is below 1"),
    ("rows beyond memory", "generate wheel-legged standing-still --rows 99999999999999", "rows … memory"),
    ("a recording over a log", "generate wheel-legged standing-still --out log.hdf5",
     "log.hdf5 exists already"),
    ("a recording of another kind", "generate wheel-legged standing-still --out new.csv",
     "new.csv: is not a name for"),
    # The paper ---------------------------------------------------------------------------------------------
    ("a figure without a log", "paper figure3",
     "figure3 learns from a log of HalfCheetah-v5: give --real FILE"),
    ("an option of another figure", "paper figure2 --real log.npz",
     "figure2 has no option --real; leave it out"),
    ("a recipe of no figure", "paper figure2 --recipe best", "--recipe 'best' is none of sac, cql"),
    ("a figure of no seeds", "paper figure2 --seeds 0", "--seeds is 0; it must be at least 1"),
    ("a figure of no steps", "paper figure2 --steps 0 --recipe sac", "--steps is 0; it must be at least 1"),
    ("a figure within rounds", "paper figure3 --real log.npz --steps 5",
     "--steps is 5; it must be a multiple of 10,000"),
    ("a figure of another machine", "paper figure3 --real log.npz --steps 10000",
     "is 3 wide where simulator 'HalfCheetah"),
    ("a table without logs", "paper table1", "learns from a dataset … --data"),
    ("a device for no training", "paper figure4 --device cpu",
     "figure4 has no option --device; leave it out"),
    # Many runs, and logs to learn from ---------------------------------------------------------------------
    ("no sweep", "sweep gone.toml", "gone.toml: there is no such file"),
    ("a log for a sweep", "sweep log.npz", "log.npz: it is not TOML"),
    ("a GPU that Ray is not asked for", "sweep sweep.toml --engine ray --device gpu",
     "--device gpu: Ray shows a run only the GPUs … give --gpus"),
    ("a task of no log", "generate Pendulum-v1 medium", "'Pendulum-v1' is nothing to make logs of"),
    ("rows of a replay", "generate HalfCheetah medium-replay --rows 10", "leave it out"),
    ("an odd half", "generate HalfCheetah medium-expert --rows 11", "--rows is 11 … even"),
    ("a short training", "generate HalfCheetah medium --steps 5", "--steps is 5; it must be a multiple of"),
]  # fmt: skip

PARSER = [
    ("half a step", f"{SAC} --steps 1.5", "--steps … '1.5'"),
    ("a word for a number", f"{SAC} --seeds many", "--seeds … 'many'"),
    ("a word for a scale", f"{SAC} --reward-scale automatic", "--reward-scale … automatic"),
    ("an unknown recipe", "train best", "'best' … h2o"),
    ("an unknown option", f"{SAC} --sedes 3", "--sedes … --seeds"),
    ("an unknown tracker", f"{SAC} --track neptune", "'neptune' … --track … tensorboard"),
    ("a half episode", "evaluate finished --episodes 1.5", "--episodes … '1.5'"),
    ("dones of no meaning", "check-data log.npz --dones-mean maybe", "'maybe' … --dones-mean"),
    ("no simulator for a gap", "gap --real log.npz", "gap … --sim"),
    ("no folder for an export", "export finished", "export … --out"),
    ("nothing to write", "convert log.npz", "missing … convert"),
    ("another robot", "generate two-legged standing-still", "'two-legged' … wheel-legged"),
    ("another level", "generate HalfCheetah best", "'best' … 'medium-replay'"),
    ("another figure", "paper figure8", "'figure8' … figure2"),
    ("an option of nobody", "doctor --loud", "--loud"),
    ("no directory", "resume", "resume … DIRECTORY"),
    ("an unknown command", "dance", "dance … train"),
]


untyped: Any = simtrust


def sac(**options: Any) -> Any:
    return simtrust.train("sac", sim="Pendulum-v1", quiet=True, out="new", **options)


FROM_PYTHON = [
    ("half a seed", lambda: sac(seeds=1.5), ConfigError, "seeds … 1.5"),
    ("a truth for a count", lambda: sac(seeds=True), ConfigError, "seeds … True"),
    ("half a step", lambda: sac(steps=1.5), ConfigError, "steps … 1.5"),
    ("a word for a number", lambda: sac(steps="many"), ConfigError, "steps … 'many'"),
    ("steps of nan", lambda: sac(steps=float("nan")), ConfigError, "steps … nan"),
    ("steps of None", lambda: sac(steps=None), ConfigError, "steps … None"),
    ("a list of seeds", lambda: sac(seeds=[0, 0]), ConfigError, "seeds"),
    ("a half batch", lambda: sac(batch_size=2.5), ConfigError, "size … 2.5"),
    ("a word for a rate", lambda: sac(learning_rate="fast"), ConfigError, "rate … 'fast'"),
    ("a number for layers", lambda: sac(hidden_sizes=16), ConfigError, "sizes … 16"),
    ("half a unit", lambda: sac(hidden_sizes=(1.5,)), ConfigError, "sizes … 1.5"),
    ("a text of layers", lambda: sac(hidden_sizes="16"), ConfigError, "sizes … '16'"),
    ("an unknown actor", lambda: sac(actor="random"), ConfigError,
     "--actor is random; it must be stochastic or"),
    ("a misspelt option", lambda: sac(sedes=2), ConfigError, "no option 'sedes'; did you mean 'seeds'?"),
    ("an unknown recipe", lambda: simtrust.train("best"), ConfigError,
     "unknown recipe 'best'; choose one of trust"),
    ("an unknown tracker", lambda: sac(track=("neptune",)), ConfigError, "--track … 'neptune' … tensorboard"),
    ("a bare shift", lambda: sac(shifts="gravity=2"), ConfigError, "shift … 'gravity=2'"),
    ("a scale of no meaning", lambda: sac(reward_scale="big"), ConfigError, "reward … 'big'"),
    ("no run", lambda: simtrust.resume("gone"), RunError, "gone is not a run directory"),
    ("a run of nobody", lambda: simtrust.Policy("gone"), RunError, "gone is not a run directory"),
    ("no episode", lambda: simtrust.evaluate("finished", episodes=0), ConfigError, "--episodes is 0"),
    ("half an episode", lambda: untyped.evaluate("finished", episodes=1.5), ConfigError, "--episodes … 1.5"),
    ("a log not there", lambda: simtrust.load_dataset("gone.npz"), DataError, "gone.npz: no such file"),
    ("dones of no meaning", lambda: untyped.load_dataset("log.npz", dones_mean="x"), ConfigError,
     "dones_mean: 'x'"),
    ("an unknown simulator", lambda: simtrust.make_simulator("Pendulum-v9", num_envs=1), SimulatorError,
     "Pendulum-v1"),
    ("no instances", lambda: simtrust.make_simulator("Pendulum-v1", num_envs=0), SimtrustError,
     "num_envs … 0"),
    ("a factory of nothing", lambda: simtrust.make_simulator("machines:nothing", num_envs=1), SimulatorError,
     "NoneType"),
    ("a shift of nothing", lambda: simtrust.parse_shifts(["friction=1"]), ConfigError, "changes nothing"),
    ("a gap over a gap", lambda: simtrust.measure_gap("log.npz", "Pendulum-v1", out="a_gap"), RunError,
     "a_gap already"),
    ("a gap of the wrong log", lambda: simtrust.measure_gap("wide.npz", "Pendulum-v1"), DataError, "6 wide"),
    ("a log to nowhere", lambda: simtrust.save_dataset("new.txt", {}), DataError,
     "new.txt: is not a name for HDF5"),
    ("an export there", lambda: simtrust.export_policy("finished", "empty"), ExportError,
     "empty exists already"),
    ("a page of no run", lambda: simtrust.report_run("gone"), RunError, "gone is not a run directory"),
    ("a recording of no rows", lambda: simtrust.generate_wheel_legged_log("new.hdf5",
     "standing-still", rows=0),
     ConfigError, "rows: 0 is below 1"),
]  # fmt: skip

MACHINES = """
import gymnasium, numpy as np
from gymnasium.spaces import Box, Dict, Discrete
class E(gymnasium.Env):
    observation_space, action_space = Box(-1, 1, (3,)), Box(-2, 2, (1,))
    def reset(self, *, seed=None, options=None): return np.zeros(3, np.float32), {}
    def step(self, action): return np.zeros(3, np.float32), 0.0, False, False, {}
def changed(**spaces):
    e = E()
    vars(e).update(spaces)
    return e
number = 3
def nothing(): return None
def fails(): raise ZeroDivisionError("boom")
def asks(x): return E()
def discrete(): return changed(action_space=Discrete(3))
def dictionary(): return changed(observation_space=Dict({"a": Box(-1, 1, (2,))}))
def unbounded(): return changed(action_space=Box(-np.inf, np.inf, (1,)))
"""


def bad_logs() -> None:
    """Files in the working directory, each the golden log but for one thing."""
    with np.load("log.npz") as stored:
        good = {name: stored[name] for name in stored.files if "/" not in name}

    def write(name: str, **changes: Any) -> None:
        columns = {key: value for key, value in {**good, **changes}.items() if value is not None}
        np.savez(name, **columns)

    def at(key: str, place: Any, value: float) -> dict[str, np.ndarray]:
        column = good[key].astype(np.float32)
        column[place] = value
        return {key: column}

    write("nan.npz", **at("observations", (60, 1), np.nan))
    write("inf.npz", **at("rewards", 7, np.inf))
    write("beyond.npz", **at("actions", (3, 0), 9.0))
    write("half.npz", **at("terminals", 3, 0.5))
    write("no_reward.npz", rewards=None)
    write("short.npz", rewards=good["rewards"][:-1])
    write("no_end.npz", timeouts=None, next_observations=None)
    write("misspelt.npz", timeouts=None, timeout_=good["timeouts"])
    write("words.npz", rewards=np.array(["a"] * 200))
    write("objects.npz", rewards=np.array([None] * 200, dtype=object))
    write("flat.npz", observations=good["observations"][:, 0])
    write("wide.npz", **{key: np.tile(good[key], 2) for key in ("observations", "next_observations")})
    np.savez("no_rows.npz", **{key: value[:0] for key, value in good.items()})
    np.savez("one_row.npz", **{key: value[:1] for key, value in good.items()})
    for suffix in ("npz", "hdf5"):
        Path(f"cut.{suffix}").write_bytes(Path(f"log.{suffix}").read_bytes()[:5000])
    texts = {"log.txt": "log", "text.hdf5": "no HDF5", "a_file": "", "empty.hdf5": ""}
    header = "theta,omega,tau,r,ep\n"
    texts["table.csv"] = header + "".join(f"{i},{i},0,1,{i // 5}\n" for i in range(20))
    texts |= {"word.csv": f"{header}0,1,0,1,0\n0,oops,0,1,0\n", "ragged.csv": f"{header}0,1,0,1,0\n0,1,0\n"}
    for name, text in texts.items():
        Path(name).write_text(text)
    Path("circle.npz").symlink_to("circle.npz")


def bad_runs() -> None:
    """Run directories in the working directory, each a golden one but for one thing."""

    def copy(name: str, source: str = "finished") -> Path:
        return Path(shutil.copytree(source, name))

    def edit(file: Path, **changes: Any) -> None:
        stored = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({key: value for key, value in stored.items() if value is not None}))

    newer = {"format": 2, "versions": {"simtrust": "9.9"}}
    for name, changes in {"newer": newer, "no_recipe": {"recipe": "best"}, "word": {"seeds": "two"}}.items():
        edit(copy(name) / "config.json", **changes)
    for name, key in {"no_scaling": "scaling", "no_environment": "evaluation_environment"}.items():
        edit(copy(name) / "config.json", **{key: None})
    unfinished = {"other_log": {"dataset_sha256": "0"}, "log_gone": {"real": "gone.npz"}}
    for name, changes in {**unfinished, "own_code": {"sim": "machines:E"}}.items():
        edit(copy(name, "unfinished") / "config.json", **changes)
    without = {"no_runs": "runs", "no_speed": "updates_per_second"}
    for name, key in without.items():
        edit(copy(name) / "result.json", **{key: None})
    edit(copy("no_returns") / "result.json", runs=[{"seed": 0}, {"seed": 1}])
    (copy("cut") / "config.json").write_text('{"format": 1, "rec')
    shutil.rmtree(copy("no_checkpoint") / "checkpoints")
    for state in (copy("cut_states") / "checkpoints").glob("state-*"):
        state.write_bytes(state.read_bytes()[:99])
    copy("in_use", "unfinished")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where every mistake is made: none of them may change a file in it."""
    folder = tmp_path_factory.mktemp("mistakes")
    shutil.copytree(GOLDEN, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        bad_logs()
        bad_runs()
        for name in ("empty", "folder.hdf5", "a_gap"):
            Path(name).mkdir()
        Path("a_gap/gap.json").write_text("{}")
        Path("machines.py").write_text(MACHINES)
        Path("typo.py").write_text("def f(:\n")
    return folder


@pytest.fixture(autouse=True)
def workplace(folder, monkeypatch):
    """The folder; what is trained for all that is no longer a mistake that was found before any work."""

    def trained(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(fleet.Fleet, "begin_updates", trained)
    monkeypatch.setattr(robot, "generate_wheel_legged_log", trained)
    monkeypatch.setattr(measure, "PROBE_ROWS", 600)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("COLUMNS", "400")


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file, its size and when it was written; locks, which stay and hold nothing, left out."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def pattern(says: str) -> str:
    return ".*".join(re.escape(part) for part in says.split(" … "))


@pytest.fixture
def refused(folder, monkeypatch, capsys) -> Callable[[str], str]:
    """``refused(line)``: what ``simtrust LINE`` says, which must end with status 2 and change no file."""

    def refused(line: str) -> str:
        before = files(folder)
        monkeypatch.setattr(sys, "argv", ["simtrust", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        assert ended.value.code == 2, told
        assert "Traceback" not in told.out + told.err
        assert files(folder) == before
        return told.out + told.err

    return refused


def named(table: list[Any]) -> list[Any]:
    assert len({what for what, *_ in table}) == len(table)
    return [pytest.param(*line, id=what) for what, *line in table]


@pytest.fixture(autouse=True)
def someone_else(folder, request):
    """Another process at work in the run ``in_use``."""
    if "in_use" not in request.node.name and "a run in use" not in request.node.name:
        yield
        return
    import filelock

    with filelock.FileLock(folder / "in_use" / ".lock"):
        yield


@pytest.mark.parametrize(("line", "says"), named(MISTAKES))
def test_a_mistake_is_told_in_one_line(refused, line, says):
    told = refused(line)
    *stages, error = told.splitlines()
    assert re.match(f"error: .*{pattern(says)}", error), told
    assert all(re.fullmatch(r"[\w ,:-]+", stage) for stage in stages), told


@pytest.mark.parametrize(("line", "says"), named(PARSER))
def test_what_cannot_be_parsed_is_named(refused, line, says):
    assert re.search(pattern(says), refused(line), re.DOTALL | re.IGNORECASE)


@pytest.mark.parametrize(("call", "kind", "says"), named(FROM_PYTHON))
def test_a_mistake_in_python_is_a_simtrust_error(folder, call, kind, says):
    before = files(folder)
    try:
        with pytest.raises(SimtrustError) as raised:
            call()
    finally:
        left = files(folder)
        shutil.rmtree("new", ignore_errors=True)
    assert isinstance(raised.value, kind)
    assert re.search(pattern(says), str(raised.value), re.DOTALL), raised.value
    assert left == before


@pytest.mark.parametrize("command", ["train sac --sim Pendulum-v9", "train h2o --sim Ant-v5 --real nan.npz"])
def test_a_refused_run_leaves_no_folder(refused, folder, command):
    refused(f"{command} --out refused")
    assert not (folder / "refused").exists()


def test_every_command_is_here():
    lines = [line for _, line, _ in (*MISTAKES, *PARSER)]
    assert {line.split()[0] for line in lines} >= set(cli.COMMANDS)
    assert len(MISTAKES) + len(PARSER) + len(FROM_PYTHON) == 197
