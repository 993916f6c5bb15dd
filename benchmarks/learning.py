"""What each recipe learns from a HalfCheetah log and a simulator with twice the gravity.

    python benchmarks/learning.py --real halfcheetah_medium_replay-v5.hdf5 --out runs/learning

Trains every row that is not there yet, one after the other (a stopped command goes on where it was),
and prints a Markdown table of real returns along training; OUT/learning.csv and learning.png hold the
curves. `--only-print` shows what exists.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

ROWS = {
    "trust": ["trust"],
    "h2o_layer_norm": ["h2o_layer_norm"],
    "h2o": ["h2o"],
    "sac": ["sac"],
    "h2o_layer_norm without dynamics ratio": ["h2o_dr", "--critic-layer-norm", "True"],
    "h2o_layer_norm without value term": ["h2o_reg", "--critic-layer-norm", "True"],
    "cql": ["cql"],
}


def train(label: str, out: Path, arguments: argparse.Namespace) -> None:
    """Start or resume one row's run, in a process of its own."""
    directory = out / label.replace(" ", "-")
    if (directory / "result.json").exists():
        return
    simtrust = [sys.executable, "-m", "simtrust.cli"]
    if (directory / "config.json").exists():
        command = [*simtrust, "resume", str(directory)]
    else:
        command = [*simtrust, "train", *ROWS[label], "--real", arguments.real, "--sim", "HalfCheetah-v5"]
        command += ["--shift", "gravity=2", "--steps", str(arguments.steps), "--seeds", str(arguments.seeds)]
        command += ["--out", str(directory)]
    print("$", *command, flush=True)
    subprocess.run(command, check=True)


def curve(directory: Path) -> dict[int, list[float]]:
    """Real return of every seed at each evaluated step."""
    points: dict[int, list[float]] = {}
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "return_mean" in row:
            points.setdefault(row["step"], []).append(row["return_mean"])
    return points


def begun(out: Path) -> dict[str, dict[int, list[float]]]:
    """The curves of the rows that have been evaluated."""
    directories = {label: out / label.replace(" ", "-") for label in ROWS}
    found = {label: curve(path) for label, path in directories.items() if (path / "metrics.jsonl").exists()}
    return {label: points for label, points in found.items() if points}


def table(out: Path, marks: list[int]) -> str:
    """Markdown: real return at some steps, each seed's, then the mean of the last five evaluations."""
    lines = ["| recipe | " + " | ".join(f"{m // 1000}k" for m in marks) + " | last five |"]
    lines.append("|---" * (len(marks) + 2) + "|")
    for label, points in begun(out).items():
        cells = [" / ".join(f"{v:,.0f}" for v in points[m]) if m in points else "" for m in marks]
        last = [np.mean(v) for v in zip(*(points[s] for s in sorted(points)[-5:]), strict=True)]
        cells.append(" / ".join(f"{v:,.0f}" for v in last))
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curves(out: Path) -> None:
    """Write every evaluation to learning.csv, and draw the mean over seeds and their range."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    lines = ["recipe,step,run,return_mean"]
    for label, points in begun(out).items():
        lines += [f"{label},{step},{run},{v:.1f}" for step, vs in points.items() for run, v in enumerate(vs)]
        steps, values = list(points), np.array(list(points.values()))
        (line,) = axes.plot(steps, values.mean(1), label=label)
        axes.fill_between(steps, values.min(1), values.max(1), color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel("updates")
    axes.set_ylabel("return in the real task")
    axes.legend(frameon=False)
    figure.savefig(out / "learning.png", dpi=120)
    (out / "learning.csv").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--real", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--only-print", action="store_true")
    arguments = parser.parse_args()
    if not arguments.only_print:
        for label in arguments.rows:
            train(label, arguments.out, arguments)
    if not begun(arguments.out):
        print("Nothing has been evaluated yet.")
        return
    curves(arguments.out)
    print(table(arguments.out, [10_000, 20_000, 50_000, 100_000, 150_000, 200_000]))


if __name__ == "__main__":
    main()
