"""What to say besides where a command line could not be parsed: what the user may have meant."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import pairwise

from simtrust.algorithms.options import AlgorithmOptions
from simtrust.training.config import TrainConfig

TAKE_LOG = ("train", "gap", "check-sim")
"""Commands whose log is an option, ``--real``."""
LOGS = (".hdf5", ".h5", ".npz", ".csv", ".tsv", ".parquet")
"""As `simtrust.data.formats.SUFFIXES`, which costs pandas."""


def hints(words: Sequence[str]) -> Iterator[str]:
    """Of the words after ``simtrust``, which the parser has refused."""
    command, *rest = words or [""]
    if command in TAKE_LOG and "--real" not in rest:
        for word in _stray(words):
            yield f"did you mean --real {shlex.quote(word)}?"
    if command == "resume":
        options = {word.partition("=")[0] for word in rest} & OF_A_RUN
        for option in sorted(options):
            yield (f"a run's {option} cannot be changed; train anew with another {option} and another --out")


def _stray(words: Sequence[str]) -> list[str]:
    """Logs that belong to no option."""
    return [
        word
        for before, word in pairwise(words)
        if not before.startswith("-") and not word.startswith("-") and _is_log(word)
    ]


def _is_log(word: str) -> bool:
    return word.lower().endswith(LOGS) or word.startswith("minari:")


_RESUMED = {"sim", "real_env", "step_timeout", "learning_rate"}
OF_A_RUN = {
    f"--{field.name.replace('_', '-')}"
    for options in (TrainConfig, AlgorithmOptions)
    for field in fields(options)
    if field.name not in _RESUMED
}
"""Options of ``train`` that ``resume`` does not take."""
