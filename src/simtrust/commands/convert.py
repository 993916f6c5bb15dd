"""``simtrust convert``: a log in another format."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from simtrust.data import Dataset


def convert(
    log: tyro.conf.Positional[str],
    out: tyro.conf.Positional[str],
    map: tuple[str, ...] = (),
    dones_mean: Literal["terminated", "timeout"] | None = None,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Write a log in another format: D4RL HDF5, npz, CSV, Parquet, or a Minari dataset.

    Reading it again gives the same transitions and episodes, and the same time, names and units where the
    format has a place for them.

    Args:
        log: The log: D4RL HDF5, npz, CSV, Parquet, LeRobot v3's folder, Minari's folder or minari:ID.
        out: The file to write, whose ending says how: .hdf5, .h5, .npz, .csv or .parquet; or minari:ID.
        map: Which columns of a table hold what, as FIELD=NAME[,NAME...]: observation=theta,theta_dot
            action=tau reward=r episode=ep terminated=fell.
        dones_mean: What a log's bare dones mean, if it has neither terminals nor timeouts.
        overwrite: Replace what is already there.
    """
    from simtrust.data import load_dataset
    from simtrust.data.checks import describe
    from simtrust.data.convert import check_out
    from simtrust.data.convert import convert as write

    check_out(out, overwrite=overwrite)
    dataset = load_dataset(log, columns=map, dones_mean=dones_mean)
    written = write(dataset, out, overwrite=overwrite)
    text = f"{describe(dataset)}\n\nWritten: {written}\n\n{_how_to_use(dataset, out)}"
    Console().print(Text(text), soft_wrap=True)


def _how_to_use(dataset: "Dataset", out: str) -> str:
    from simtrust.data.minari import PREFIX
    from simtrust.data.table_out import table_map

    use = f"Use it:\n\n    simtrust check-data {shlex.quote(out)}\n    simtrust.load_dataset({out!r})"
    if out.startswith(PREFIX):
        return f"{use}\n    minari.load_dataset({out.removeprefix(PREFIX)!r})"
    if Path(out).suffix.lower() not in (".csv", ".parquet"):
        return use
    fields = (f"{field}={','.join(names)}" for field, names in table_map(dataset).items())
    return (
        f"{use}\n\nIts columns are known by their names. The same in full:\n\n    --map {shlex.join(fields)}"
    )
