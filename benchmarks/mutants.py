"""Do the tests notice when a line of the estimators, the algorithms or the replay buffer is wrong?

    python benchmarks/mutants.py --work DIR [--sample 200] [--seed 0]

Changes one thing at a time with cosmic-ray (a sign, a comparison, a constant, ...) in a copy of the working
tree, and runs the tests of the changed module; where they notice nothing, then also the rest of their folder.
The mutants are a random sample with a share from every file, without those that mean nothing here (bit
operators and shifts, ``is`` between numbers, no ``jit``), annotations, and the wording of errors. Prints a
Markdown table, the share that was noticed, every file weighted by its size, with Wilson's 95% interval, and
what was not noticed. Interrupted, it prints this of what it has, and goes on when it is called again;
``--again`` runs the tests as they are by now on what was not noticed. Needs ``pip install .[mutation]``.
"""
# pyright: reportMissingImports=false

import argparse
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path

from attrs import astuple, evolve
from cosmic_ray.ast import get_ast_from_path
from cosmic_ray.commands import init
from cosmic_ray.modules import find_modules
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkItem, WorkResult

SOURCE = Path("src/simtrust")
MUTATED = tuple(SOURCE / part for part in ("gap", "algorithms", "data/replay.py"))
NONSENSE = re.compile(
    r"core/(?!ReplaceBinaryOperator_(BitAnd_BitOr|BitOr_BitAnd)$)"  # Of masks, these mean something.
    r"(ReplaceBinaryOperator_(\w+_(Bit\w+|LShift|RShift|Mod|FloorDiv|Pow)|Bit\w+)"
    r"|ReplaceComparisonOperator_(?!Is)\w+_Is(Not)?|ReplaceUnaryOperator_(Invert|USub)_\w+)$"
)
ARITHMETIC = {"arith_expr", "term", "expr", "and_expr", "power"}
OWN_TESTS = {  # Where these have another name than the module.
    "gap/actuator_error.py": "gap/test_corrections.py",
    "gap/dimensions.py": "gap/test_measure.py",
    "gap/dynamics_fitting.py": "gap/test_dynamics_model.py",
    "gap/findings.py": "gap/test_measure.py",
    "gap/scales.py": "gap/test_dynamics_model.py",
    "algorithms/critic.py": "algorithms/test_identities.py",
    "algorithms/recipes.py": "algorithms/test_identities.py",
    "algorithms/inputs.py": "algorithms/test_agent.py",
    "data/replay.py": "training/test_replay.py",
}
OTHER_TESTS = {
    "gap": ("gap/test_*.py", "training/test_gap_model.py", "reports/test_log_report.py"),
    "algorithms": ("algorithms/test_*.py", "test_networks.py", "training/test_fleet.py"),
    "data": ("training/test_fleet.py",),
}


def module_of(item: WorkItem) -> str:
    return item.mutations[0].module_path.relative_to(SOURCE).as_posix()


def means_something(item: WorkItem, tree) -> bool:
    """Neither nonsense, nor in an annotation or an error's text, nor taking away a ``jit``."""
    mutation = item.mutations[0]
    node = tree.get_leaf_for_position(mutation.start_pos, include_prefixes=True)
    # Not in arithmetic, it is a star of a signature or of a call.
    star = "BinaryOperator" in mutation.operator_name and node.parent.type not in ARITHMETIC
    jit, kinds = "RemoveDecorator" in mutation.operator_name and "jit" in node.parent.get_code(), set()
    while node.parent is not None:
        node, inner = node.parent, node
        kinds.add(node.type)
        annotation = {"tfpdef": -1, "annassign": 1, "funcdef": -3}.get(node.type)
        # A function without a return type has its parameters at -3.
        if annotation and inner is node.children[annotation] and inner.type != "parameters":
            return False
    return not (NONSENSE.match(mutation.operator_name) or star or jit or {"raise_stmt", "fstring"} <= kinds)


def mutants(database: WorkDB) -> list[WorkItem]:
    """All that mean something, in a fixed order."""
    trees = {path: get_ast_from_path(path) for path in find_modules(MUTATED)}
    meant = (i for i in database.work_items if means_something(i, trees[i.mutations[0].module_path]))
    return sorted(meant, key=lambda item: astuple(item.mutations[0])[:3])  # File, operator, occurrence.


def draw(items: list[WorkItem], size: int, seed: int) -> list[WorkItem]:
    """About ``size`` of them in random order: of every file its share, and at least two."""
    generator, drawn = random.Random(seed), []
    for file in sorted(set(map(module_of, items))):
        found = [item for item in items if module_of(item) == file]
        drawn += generator.sample(found, min(len(found), max(2, round(size * len(found) / len(items)))))
    generator.shuffle(drawn)
    return drawn


def tests_of(item: WorkItem, python: Path, *, own: bool) -> str:
    """The command for the tests of a module's own, or for those that also use it."""
    folder, name = module_of(item).split("/")
    files = {f"tests/{OWN_TESTS.get(module_of(item), f'{folder}/test_{name}')}"}
    if not own:
        files = {str(file) for test in OTHER_TESTS[folder] for file in Path("tests").glob(test)} - files
    return shlex.join([str(python), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *sorted(files)])


def judge(item: WorkItem, command: str, seconds: dict[str, float]) -> WorkResult:
    """Whether the tests notice. Ten times the ``seconds`` without the mutant count as noticed."""
    if command not in seconds:
        began = time.perf_counter()
        outcome, output = run_tests(command, 3600)
        seconds[command] = time.perf_counter() - began
        if outcome != TestOutcome.SURVIVED:
            sys.exit(f"{command} fails without a mutant:\n{output}")
    result = mutate_and_test(item.mutations, command, max(120, 10 * seconds[command]))
    # Shows which tests a survivor has passed last.
    return result if result.is_killed else evolve(result, output=command)


def shown(item: WorkItem, result: WorkResult) -> str:
    changed = [line for line in (result.diff or "").splitlines()[3:] if line[:1] in "+-"]
    return "\n    ".join([f"{module_of(item)}:{item.mutations[0].start_pos[0]}", *changed])


def report(items: list[WorkItem], drawn: list[WorkItem], results: dict[str, WorkResult]) -> Iterator[str]:
    """The lines of the table, the share, and the survivors."""
    judged = [item for item in drawn if item.job_id in results]
    survivors = [item for item in judged if not results[item.job_id].is_killed]
    size, count, survived = (Counter(map(module_of, some)) for some in (items, judged, survivors))
    yield "| file | mutants | sampled | killed | survived |\n|---|---|---|---|---|"
    for file in size:
        yield f"| {file} | {size[file]} | {count[file]} | {count[file] - survived[file]} | {survived[file]} |"
    yield f"| all | {len(items)} | {len(judged)} | {len(judged) - len(survivors)} | {len(survivors)} |"
    weight = {file: size[file] / sum(size[seen] for seen in count) for file in count}
    share = sum(weight[file] * (1 - survived[file] / count[file]) for file in count)
    # A mutant of a thinly sampled file counts for more, which makes the sample worth fewer draws.
    n, z = 1 / sum(weight[file] ** 2 / count[file] for file in count), 1.96
    spread = z * (share * (1 - share) / n + (z / (2 * n)) ** 2) ** 0.5
    low, high = ((share + z * z / (2 * n) + side) / (1 + z * z / n) for side in (-spread, spread))
    yield f"\nKilled, by size: {share:.1%} ({low:.1%} to {high:.1%})\n"
    yield from (shown(item, results[item.job_id]) for item in survivors)


def copy_tree(work: Path, *, fresh_tests: bool) -> Path:
    """The working tree without what git ignores; as it was when the session began, but for the tests."""
    copy, unchanged = work / "tree", work / "unchanged"
    begun = unchanged.exists()
    if fresh_tests or not begun:
        listing = ["git", "ls-files", "-co", "--exclude-standard", "tests" if begun else "."]
        for name in filter(os.path.isfile, subprocess.check_output(listing, text=True).splitlines()):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, copy / name)
    if not begun:
        shutil.copytree(copy / SOURCE, unchanged)
    # What a run that was stopped left behind.
    shutil.copytree(unchanged, copy / SOURCE, dirs_exist_ok=True)
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", default=sys.executable, help="runs the tests")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    # Not resolved: a virtual environment's interpreter is a link.
    python, work = Path.cwd() / arguments.python, arguments.work.resolve()
    os.chdir(copy_tree(work, fresh_tests=arguments.again))
    # What no mutant changes is compiled once.
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": f"{work}/compiled", "PYTHONPATH": str(Path("src").resolve())}
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    seconds = {}
    with use_db(work / "session.sqlite") as database:
        if not database.num_work_items:
            init(sorted(find_modules(MUTATED)), database, {})
        items = mutants(database)
        drawn = draw(items, arguments.sample, arguments.seed)
        # What survived is judged anew if it shows no tests that it has passed.
        old = ((job, r, arguments.again and not r.is_killed) for job, r in database.results)
        results = {job: evolve(r, output=None) if anew else r for job, r, anew in old}
        with suppress(KeyboardInterrupt):
            for own, item in product((True, False), drawn):
                found, command = results.get(item.job_id), tests_of(item, python, own=own)
                passed = found and found.output and (own or found.output == command)
                if not (found and (found.is_killed or passed)):
                    results[item.job_id] = found = judge(item, command, seconds)
                    database.set_result(item.job_id, found)
                    print(found.test_outcome, shown(item, found), file=sys.stderr, flush=True)
        print("\n".join(report(items, drawn, results)))


if __name__ == "__main__":
    main()
