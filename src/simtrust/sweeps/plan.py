"""What a sweep is to train: configurations with names, none twice."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from simtrust.errors import ConfigError
from simtrust.sweeps.options import to_config
from simtrust.sweeps.sweep_file import Asked, read_sweep_file
from simtrust.training.config import TrainConfig

NAME_MAX = 200
"""Characters; file systems allow 255 bytes, and what is being written has a longer name."""
OWN_FOLDERS = frozenset({"leases", "errors", "attempts", "sweep.csv"})
"""What lies beside the runs."""


class PlannedRun(NamedTuple):
    """One run of a sweep; ``config.out`` is None, since the run has a folder of its name."""

    name: str
    config: TrainConfig


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep file."""

    file: Path
    runs: tuple[PlannedRun, ...]
    varied: tuple[str, ...]
    """The options that differ between runs, in the file's order."""


def make_plan(file: str | Path) -> Plan:
    """Read a sweep file. Relative paths in it are those of the working directory, as on the command line.

    Raises:
        ConfigError: as `read_sweep_file`; or a run's options cannot work together, two runs are the same, or
            two have the same name.
    """
    file = Path(file)
    asked = read_sweep_file(file)
    runs: dict[str, PlannedRun] = {}
    known: dict[TrainConfig, str] = {}
    for one in asked:
        where = f"{file}: run {one.name}"
        config = to_config(where, {**one.options, **_place_of_log(where, one)})
        _check_name(file, one, runs)
        if (same := known.setdefault(config, one.name)) != one.name:
            raise ConfigError(f"{file}: the runs {same} and {one.name} have the same options; drop one")
        runs[one.name] = PlannedRun(one.name, config)
    varied = dict.fromkeys(option for one in asked for option in one.varied)
    return Plan(file, tuple(runs.values()), tuple(varied))


def _place_of_log(where: str, asked: Asked) -> dict[str, Any]:
    """The log as an absolute path: a run may go on elsewhere."""
    real = asked.options.get("real")
    if real is None or real.startswith("minari:"):
        return {}
    if not real:
        raise ConfigError(f"{where}: real is empty; name the log, or leave it out")
    try:
        return {"real": str(Path(real).expanduser().absolute())}
    except RuntimeError as error:
        raise ConfigError(f"{where}: real is {real[:80]!r}: {error}") from error


def _check_name(file: Path, asked: Asked, runs: dict[str, PlannedRun]) -> None:
    if asked.name in runs:
        raise ConfigError(
            f"{file}: two runs have the name {asked.name}; drop one if they are the same, else give their "
            "[[variants]] a name each"
        )
    if len(asked.name) > NAME_MAX:
        raise ConfigError(
            f"{file}: the name {asked.name[:60]}... of a run has {len(asked.name)} characters, more than "
            f"{NAME_MAX}; give [[variants]] a short name in place of options in the grid"
        )
    if asked.name in OWN_FOLDERS:
        raise ConfigError(f"{file}: a run cannot have the name {asked.name}, which the sweep uses itself")


def option_of(config: TrainConfig, option: str) -> Any:
    """The value that a configuration has for an option, the algorithm's among them."""
    owner = config if hasattr(config, option) else config.algorithm
    return getattr(owner, option)


def same_run(planned: TrainConfig, stored: TrainConfig) -> list[str]:
    """The options in which a stored run differs from the planned one; where it lies is none of them."""
    ours, theirs = _flat(planned), _flat(stored)
    return [f"{name} {theirs[name]!r} and not {ours[name]!r}" for name in ours if ours[name] != theirs[name]]


def _flat(config: TrainConfig) -> dict[str, Any]:
    values = asdict(replace(config, out=None))
    algorithm = values.pop("algorithm")
    return {**values, **algorithm}
