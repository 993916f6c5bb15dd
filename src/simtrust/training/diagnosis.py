"""The diagnosis bundle: what a run leaves behind when one of its numbers is no longer finite.

``DIR/diagnosis-STEP/`` holds ``diagnosis.json``, the rows behind the number as ``batch.npz``, and a README.
The checkpoints are not touched: the last one is good, since no state is saved that has not been checked.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simtrust.errors import RunError, SimtrustError, SimulatorError
from simtrust.training.config import TrainConfig
from simtrust.training.metrics import plain
from simtrust.training.non_finite import Finding
from simtrust.training.run_directory import CHECKPOINTS, resume_command
from simtrust.training.storage import storing, write_atomically
from simtrust.training.update_trace import Named

DIAGNOSIS_FORMAT = 1
ROWS_SHOWN = 10
README = """\
{message}

diagnosis.json says which number was the first that was not finite (first_bad), what had been computed before
it (computed_before, in order, with the least, largest and mean of each), and by which rows (rows): those that
it was computed of, or, if it belongs to no single row (rows_not_finite is 0), those with the largest loss.
log_row is the row in the log's file, from 0; step is the simulator step that a simulated row is of.
{batch}
What to look at:

1. rows: is one of these rewards or observations out of all proportion? Correct the log or the simulator;
   `simtrust check-data` and `simtrust check-sim` find most of such rows. A simulated row of a step before the
   checkpoint's lies in the replay buffer: train anew then.
2. computed_before: what grew first? Q and parameters that grow from line to line are a divergence: a lower
   learning rate, layer-normalised critics (the recipe trust, or --critic-layer-norm True), a smaller
   --target-update-rate. Rewards of 1e6 and more want a --reward-scale.
3. {go_on}
"""
NO_BATCH = ""
BATCH = """\
batch.npz (numpy.load) has all rows of that mini-batch or rollout, and what was computed of each of them.
A mini-batch is in training's units: actions in [-1, 1], rewards times reward_scale. A rollout is in the
machine's.
"""


class NonFiniteError(RunError):
    """A number of a run became NaN or infinite. The message names it, the seed and the step.

    ``bundle`` is the folder that says what led there; None if it could not be written.
    """

    def __init__(self, message: str, bundle: Path | None):
        super().__init__(message)
        self.bundle = bundle


def diagnose(
    directory: Path,
    config: TrainConfig,
    extra: Mapping[str, Any],
    finding: Finding,
    *,
    reward_scale: float,
    saved: int,
    in_checkpoint: bool = False,
) -> NonFiniteError:
    """Write the bundle; return the error to raise.

    ``saved`` is the step of the last checkpoint, 0 if there is none; ``in_checkpoint`` if that is itself
    what is not finite.
    """
    go_on = resume_command_with_rate(directory, config, extra, config.algorithm.learning_rate / 10)
    message = f"{finding.first.name} of seed {finding.seed} became {_value(finding.first)} in {finding.where}"
    if finding.rows_are_bad:
        named = list(dict.fromkeys(_row_in_words(row) for row in finding.rows))
        message += f" ({', '.join(named[:3])}{' and others' if len(named) > 3 else ''})"
    if finding.problem:
        message += f". {finding.problem}"
    if in_checkpoint:
        path = directory / CHECKPOINTS / f"checkpoint-{saved:012d}.json"
        remedy = (
            f"The checkpoint itself is bad: delete {path}, and the one before it is used by: "
            f"{resume_command(directory, config, extra)}"
        )
    elif not finding.learnt:
        remedy = (
            "Correct the simulator, its units, or --reward-scale; the last good checkpoint is step "
            f"{saved}: {resume_command(directory, config, extra)}"
        )
    else:
        remedy = f"The last good checkpoint is step {saved}; go on from there with a lower rate: {go_on}"
    message = f"{message.removesuffix('.')}. {remedy}"
    content = {
        **_content(config, extra, finding, remedy),
        "reward_scale": reward_scale,
        "last_good_checkpoint": None if in_checkpoint else saved,
    }
    bundle, told = _write(directory, finding, content, message, remedy)
    return NonFiniteError(f"{message}. {told}", bundle)


def diagnose_answer(
    directory: Path,
    config: TrainConfig,
    extra: Mapping[str, Any],
    finding: Finding,
    error: SimulatorError,
    *,
    reward_scale: float,
) -> str:
    """Write the bundle of a simulator that answered NaN or infinity; return where it is, in words."""
    remedy = f"When the simulator is mended, go on with: {resume_command(directory, config, extra)}"
    content = {**_content(config, extra, finding, remedy), "reward_scale": reward_scale}
    return _write(directory, finding, content, str(error), remedy)[1]


def _content(config: TrainConfig, extra: Mapping[str, Any], finding: Finding, remedy: str) -> dict[str, Any]:
    return {
        "format": DIAGNOSIS_FORMAT,
        **_finding_as_json(finding),
        "recipe": config.recipe,
        "learning_rate": config.algorithm.learning_rate,
        "go_on": remedy,
        "versions": extra.get("versions"),
    }


def _write(
    directory: Path, finding: Finding, content: Mapping[str, Any], message: str, remedy: str
) -> tuple[Path | None, str]:
    """The bundle's folder, None if it could not be written; and what to tell of it."""
    arrays = finding.arrays or {}
    batch = BATCH if arrays else NO_BATCH
    try:
        bundle = _new_folder(directory, finding.step)
        if arrays:
            packed = io.BytesIO()
            np.savez_compressed(packed, allow_pickle=False, **arrays)
            write_atomically(bundle / "batch.npz", packed.getvalue())
        text = README.format(message=message, batch=batch, go_on=remedy)
        write_atomically(bundle / "README.txt", text.encode())
        write_atomically(bundle / "diagnosis.json", (json.dumps(content, indent=1) + "\n").encode())
    except (OSError, SimtrustError) as error:
        return None, f"What led there could not be written: {error}"
    return bundle, f"What led there is in {bundle}"


def resume_command_with_rate(
    directory: Path, config: TrainConfig, extra: Mapping[str, Any], rate: float
) -> str:
    """`resume_command` with another learning rate."""
    command, rate = resume_command(directory, config, extra), float(f"{rate:.3g}")
    if "evaluators" in extra:
        return command.replace(", evaluators=", f", learning_rate={rate}, evaluators=")
    return f"{command} --learning-rate {rate}"


def _new_folder(directory: Path, step: int) -> Path:
    """A folder of its own, so that the diagnosis of an earlier attempt stays."""
    number, path = 1, directory / f"diagnosis-{step}"
    while path.exists():
        number += 1
        path = directory / f"diagnosis-{step}-{number}"
    with storing(path):
        path.mkdir()
    return path


def _value(named: Named) -> float:
    """The first entry that is not finite."""
    value = np.asarray(named.value)
    return float(value[~np.isfinite(value)][0])


def _row_in_words(row: Mapping[str, Any]) -> str:
    if "log_row" in row:
        return f"row {row['log_row']} of the log, episode {row['episode']}"
    return f"the simulated row of step {row['step']}"


def _finding_as_json(finding: Finding) -> dict[str, Any]:
    value = np.asarray(finding.first.value)
    bad = ~np.isfinite(value)
    return {
        "step": finding.step,
        "where": finding.where,
        "seed": finding.seed,
        "other_seeds": list(finding.other_seeds),
        "problem": finding.problem,
        "first_bad": {
            "name": finding.first.name,
            "shape": list(value.shape),
            "entries": value.size,
            "not_finite": int(bad.sum()),
            "nan": int(np.isnan(value).sum()),
            "first_index": np.argwhere(bad)[0].tolist(),
            "first_value": str(_value(finding.first)),
        },
        "rows_not_finite": len(finding.rows) if finding.rows_are_bad else 0,
        "rows": [{name: _plain(v) for name, v in row.items()} for row in finding.rows[:ROWS_SHOWN]],
        "computed_before": [_summary(each) for each in finding.before],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(each) for each in value]
    # JSON has no infinity, but here it is what is to be told.
    return str(value) if isinstance(value, float) and not np.isfinite(value) else plain(value)


def _summary(each: Named) -> dict[str, Any]:
    value = np.asarray(each.value, np.float64)
    if not value.size:
        return {"name": each.name, "shape": list(value.shape)}
    return {
        "name": each.name,
        "shape": list(value.shape),
        "min": float(value.min()),
        "max": float(value.max()),
        "mean": float(value.mean()),
    }
