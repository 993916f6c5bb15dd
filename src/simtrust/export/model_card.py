"""The page beside an exported policy that says what it is, and how to run it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from simtrust.export.policy_runner import TOLERANCE
from simtrust.simulators.factories import is_simulator_itself

USE = """\
```python
from policy_runner import PolicyRunner  # numpy only
policy = PolicyRunner("policy.npz")
action, valid = policy(observation)  # [O], or [N, O]
if not valid:
    action = your_safe_action
```

In onnxruntime:

```python
import numpy, onnxruntime
policy = onnxruntime.InferenceSession("policy.onnx")
batch = numpy.float32([observation])  # [1, O]
action, valid = policy.run(["action", "valid"], {"observation": batch})
```"""
FILES = """\
| file | |
|---|---|
| `policy.onnx` | the policy: opset 17, float32, weights inside |
| `policy.npz`, `policy_runner.py` | the same for Python and numpy |
| `parity.npz` | observations, and what the trained policy does there; `python policy_runner.py` compares |
| `metadata.json` | all that is below, for programs; `policy.onnx` carries it too |
| `latency.json` | how long a call takes |"""


def model_card(
    metadata: Mapping[str, Any], latency: Mapping[str, Any], deviations: Mapping[str, float]
) -> str:
    """Markdown, from the content of ``metadata.json`` and ``latency.json``, and the deviations by file."""
    parts = [
        f"# A policy trained by {_code(metadata['recipe'])}",
        _what(metadata),
        "## How to run it",
        f"Observations and actions are in the machine's units, in the order below. {_rate(metadata)}",
        USE,
        FILES,
        "## Observation",
        _dimensions(metadata, "observation", "valid"),
        "## Action",
        _dimensions(metadata, "action", "action"),
        "## Limits",
        _limits(metadata),
        "## How it did",
        _evaluation(metadata),
        "## Latency",
        _latency(latency),
        "## Parity",
        _parity(deviations),
        "## How to reproduce it",
        _reproduce(metadata),
    ]
    return "\n\n".join(parts) + "\n"


def _what(metadata: Mapping[str, Any]) -> str:
    seeds, seed = metadata["seeds_of_the_run"], metadata["seed"]
    if metadata["dataset_sha256"] is None:
        trained = ["without a log"]
    else:
        log = f"the log {_code(metadata['dataset'])} (SHA-256 {_code(metadata['dataset_sha256'])})"
        learnt = metadata["learns_from_dataset"]
        trained = [f"on {log}" if learnt else f"with the units and the range of {log}, but not on it,"]
    if metadata["simulator"] is not None:
        shifts = "".join(f", {_code(shift)}" for shift in metadata["shifts"])
        trained.append(f"in the simulator {_code(metadata['simulator'])}{shifts}")
    steps, wanted = metadata["steps"], metadata["steps_asked_for"]
    unfinished = "" if steps == wanted else f" of {wanted:,} asked for: **the training was not finished**"
    chosen = "the only one" if len(seeds) == 1 else f"of the run's {', '.join(map(str, seeds))}"
    which = " (the first, not the best)" if len(seeds) > 1 and seed == seeds[0] else ""
    return (
        f"{metadata['description']}\n\nTrained {' and '.join(trained)}, for {steps:,} steps{unfinished}, "
        f"with a {metadata['actor']} actor, whose best action it takes. Seed {seed}, {chosen}{which}."
    )


def _rate(metadata: Mapping[str, Any]) -> str:
    rate, note = metadata["rate_hz"], _plain(metadata["rate_note"])
    if rate is None:
        return f"At which rate is not known ({note}). Call it as often as the log was recorded."
    return f"Call it at {rate:g} Hz ({note})."


def _dimensions(metadata: Mapping[str, Any], kind: str, bounds: str) -> str:
    low, high = metadata[f"{bounds}_low"], metadata[f"{bounds}_high"]
    ends = [("", "")] * len(metadata[f"{kind}_names"]) if low is None else zip(low, high, strict=True)
    rows = [
        (index, _code(name), _code(unit), *(x if x == "" else f"{x:.6g}" for x in pair))
        for index, (name, unit, pair) in enumerate(
            zip(metadata[f"{kind}_names"], metadata[f"{kind}_units"], ends, strict=True)
        )
    ]
    return _table(("", "name", "unit", "from", "to"), rows)


def _limits(metadata: Mapping[str, Any]) -> str:
    return (
        f"- `valid` is true where the observation is {metadata['valid_means']}, and the action a number.\n"
        "- Where an observation is not finite, `action` is NaN, so that nobody applies it by mistake.\n"
        "- Where an observation is finite but outside of the range, `action` is the policy's, within the "
        "machine's bounds, but nothing in the log supports it. Do something safe instead.\n"
        "- `valid` judges each dimension by itself: a combination that the log never saw may be valid.\n"
        "- `policy_runner.py` finds whatever float32 cannot hold not finite."
    )


def _evaluation(metadata: Mapping[str, Any]) -> str:
    found = metadata["evaluation"]
    if found is None:
        return "Not evaluated: the run has no `result.json`."
    returns = found["episode_returns"] or []
    return (
        f"In {_code(found['environment'])}, over {len(returns)} episodes, when the training ended: return "
        f"{_number(found['return_mean'])} on average, standard deviation {_number(found['return_std'])}."
        f"{_only_simulated(metadata)}"
    )


def _only_simulated(metadata: Mapping[str, Any]) -> str:
    if not is_simulator_itself(str(metadata["evaluation"]["environment"]), metadata["simulator"]):
        return ""
    return " **This is the simulator of the run itself: it says little about the machine.**"


def _latency(latency: Mapping[str, Any]) -> str:
    runtimes = {"policy.onnx in onnxruntime": "onnxruntime", "policy_runner.py": "numpy"}
    timed = {name: latency[key] for name, key in runtimes.items() if latency[key] is not None}
    rows = [(name, f"{found['p50']:.1f}", f"{found['p99']:.1f}") for name, found in timed.items()]
    told = "" if latency["onnxruntime"] else " onnxruntime was not installed, so it was not timed."
    return (
        f"Of one observation on one thread, {latency['calls']:,} calls, on {_plain(latency['processor'])} "
        f"({_plain(latency['system'])}).{told}\n\n{_table(('', 'p50 (µs)', 'p99 (µs)'), rows)}"
    )


def _parity(deviations: Mapping[str, float]) -> str:
    rows = [(name, f"{value:.1e}") for name, value in deviations.items()]
    return (
        "Largest deviation from the trained policy on the rows of `parity.npz`, relative to the actions' "
        f"range, or to more where rounding alone moves the policy so far (allowed: {TOLERANCE:.0e}):\n\n"
        f"{_table(('', 'deviation'), rows)}"
    )


def _reproduce(metadata: Mapping[str, Any]) -> str:
    versions = metadata["training_versions"] or {}
    listed = ", ".join(f"{_plain(name)} {_plain(version)}" for name, version in versions.items())
    return (
        f"Trained and exported by\n\n{_block(metadata['training_command'])}\n\n"
        f"{_block(metadata['export_command'])}\n\nwith {listed or 'unknown versions'}."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _number(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, int | float) else "unknown"


def _plain(text: object) -> str:
    """On one line, and without what Markdown or HTML would read into it."""
    shown = "".join(x if x.isprintable() else repr(x)[1:-1] for x in str(text))
    return re.sub(r"([\\`*_{}\[\]<>#|!~&$])", r"\\\1", shown)


def _code(text: object) -> str:
    """As a span of code on one line, in a table too."""
    shown = "".join(x if x.isprintable() else repr(x)[1:-1] for x in str(text)).replace("|", "\\|")
    if not shown.strip():
        return ""
    fence = _fence(shown, 1)
    return f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown}{fence}"


def _block(text: str) -> str:
    fence = _fence(text, 3)
    return f"{fence}\n{text}\n{fence}"


def _fence(text: str, shortest: int) -> str:
    """More backquotes than there are in a row in the text."""
    return "`" * max(shortest, 1 + max(map(len, re.findall("`+", text)), default=0))
