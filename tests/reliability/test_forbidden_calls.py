"""Nothing in our code can run what a file says: it neither unpickles, evaluates nor imports by its word.

Names are followed to where they were imported from, so that ``from os import system as run`` is found as
well. What is allowed stands below, each place with its reason; a reason for what is gone fails too. What is
looked up at run time (``getattr(os, name)``) is not seen.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "examples", "benchmarks")

MODULES = {
    "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "dbm", "copyreg",
    "jsonpickle", "runpy", "code", "codeop", "imp", "pkgutil", "pkg_resources", "zipimport", "ctypes",
    "cffi", "subprocess", "pty", "yaml", "torch", "tensorflow", "hdf5plugin", "importlib", "urllib.request",
    "requests", "httpx", "ftplib", "xmlrpc", "pyarrow.dataset", "pyarrow.ipc", "pyarrow.feather",
    "pyarrow.fs", "pyarrow.orc", "onnx.external_data_helper",
}  # fmt: skip
"""Modules that unpickle, import, load libraries, start programs or fetch: importing one needs a reason."""

CALLS = {
    "eval", "exec", "compile", "__import__", "breakpoint", "input", "os.system", "os.popen", "os.execv",
    "os.execve", "os.execvp", "os.spawnv", "os.posix_spawn", "os.fork", "importlib.import_module",
    "importlib.metadata.entry_points", "importlib.util.spec_from_file_location", "importlib.reload",
    "gymnasium.make", "gymnasium.make_vec", "operator.attrgetter", "operator.methodcaller", "numpy.load",
    "numpy.fromfile", "numpy.memmap", "numpy.lib.npyio.NpzFile", "numpy.lib.format.open_memmap",
    "numpy.lib.format.read_array", "numpy.loadtxt", "numpy.genfromtxt", "numpy.ctypeslib.load_library",
    "pandas.read_pickle", "pandas.read_hdf", "pandas.eval", "pandas.read_csv", "pandas.read_parquet",
    "onnx.load", "onnx.load_model", "onnx.load_model_from_string", "onnx.hub.load",
    "onnx.load_external_data_for_model", "pyarrow.parquet.read_table", "pyarrow.deserialize",
    "pyarrow.register_extension_type", "jax.export.deserialize", "equinox.tree_deserialise_leaves",
    "safetensors.safe_open", "h5py.ExternalLink", "h5py.SoftLink", "h5py.VirtualSource",
    "shutil.unpack_archive", "tarfile.open", "logging.config.fileConfig", "string.Template",
    "mujoco.MjModel.from_binary_path", "minari.load_dataset",
}  # fmt: skip
"""Calls that run, import, follow or wait for what a file names, or read more than it should take."""

METHODS = {"extractall", "load_module", "exec_module", "format_map"}
"""The same by the method's name alone, since nobody can tell of what object."""

OWN_TABLE = "names from a table in this file"
ALLOWED = {
    "src/simtrust/__init__.py": {"importlib": OWN_TABLE, "importlib.import_module": OWN_TABLE},
    "src/simtrust/training/trackers/__init__.py": {
        "importlib": OWN_TABLE,
        "importlib.import_module": OWN_TABLE,
    },
    "src/simtrust/training/trackers/common.py": {
        "importlib": (package := "packages of trackers, which our own modules name"),
        "importlib.import_module": package,
    },
    "src/simtrust/simulators/rendering.py": {
        "importlib": (egl := "mujoco.egl or mujoco.osmesa, as the environment says"),
        "importlib.import_module": egl,
        "ctypes": "finds out whether OpenGL is installed",
    },
    "src/simtrust/simulators/factories.py": {
        "importlib": (factory := "module:factory, which only the user may name"),
        "importlib.import_module": factory,
        "operator.attrgetter": factory,
        "gymnasium.make": "ids that are registered; module:Id only as the user says",
    },
    "src/simtrust/doctor.py": {"subprocess": "our own Python, to see whether OpenGL brings it down"},
    "src/simtrust/data/containers.py": {
        "numpy.lib.format.read_array": "after its header was checked, with allow_pickle=False"
    },
}
IN_BENCHMARKS = {
    "subprocess": "simtrust itself, with options that stand in the benchmark",
    "gymnasium.make_vec": "an id that stands in the benchmark",
}
"""Nobody's files are read there."""


def dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)) is not None:
        return f"{before}.{node.attr}"
    return None


def findings(source: str) -> Iterator[tuple[str, int]]:
    """What of the above a source does, each with its line."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                yield from _module(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from _module(node.module, node.lineno)
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                # A submodule may be what is imported.
                if f"{node.module}.{alias.name}" in MODULES or node.module == "importlib":
                    yield from _module(f"{node.module}.{alias.name}", node.lineno)
    for node in ast.walk(tree):
        # A function handed on or kept under another name is as good as a call.
        if isinstance(node, ast.Name | ast.Attribute) and (name := dotted(node)) is not None:
            first, _, rest = name.partition(".")
            full = f"{names.get(first, first)}.{rest}" if rest else names.get(first, first)
            if full in CALLS or full.removeprefix("builtins.") in CALLS or full.split(".")[-1] in METHODS:
                safe = full == "numpy.load" and _is_safe_load(tree, node)
                if not safe:
                    yield full, node.lineno
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else "unknown"
                if keyword.arg == "allow_pickle" and value is not False:
                    yield "allow_pickle", node.lineno
                if keyword.arg == "shell" and value is not False:
                    yield "shell", node.lineno


def _module(name: str, line: int) -> Iterator[tuple[str, int]]:
    if name.startswith(("importlib.metadata", "importlib.resources")):
        return
    parts = name.split(".")
    prefixes = {".".join(parts[: length + 1]) for length in range(len(parts))}
    for found in sorted(prefixes & MODULES):
        yield found, line


def _is_safe_load(tree: ast.AST, function: ast.expr) -> bool:
    """Whether it is called at once, with ``allow_pickle=False`` spelt out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.func is function:
            given = {keyword.arg: keyword.value for keyword in node.keywords}.get("allow_pickle")
            return isinstance(given, ast.Constant) and given.value is False
    return False


def all_findings() -> dict[tuple[str, str], int]:
    found = {}
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            for what, line in findings(file.read_text(encoding="utf-8")):
                found[file.relative_to(ROOT).as_posix(), what] = line
    return found


def test_only_what_is_allowed_is_there():
    found = all_findings()
    assert len(list((ROOT / "src").rglob("*.py"))) > 100
    allowed = {(place, what) for place, reasons in ALLOWED.items() for what in reasons}
    extra = {
        f"{place}:{line}: {what}"
        for (place, what), line in found.items()
        if (place, what) not in allowed and not (place.startswith("benchmarks/") and what in IN_BENCHMARKS)
    }
    assert not extra
    assert not allowed - found.keys(), "what is no longer there needs no reason"


WRONG = {
    "import pickle": "pickle",
    "import numpy, dill as d": "dill",
    "from joblib import load": "joblib",
    "def f():\n    import marshal": "marshal",
    "import shelve": "shelve",
    "from cloudpickle import loads": "cloudpickle",
    "import torch.serialization": "torch",
    "import yaml": "yaml",
    "import importlib": "importlib",
    "from importlib import util": "importlib",
    "import importlib.util": "importlib",
    "eval(text)": "eval",
    "f = exec": "exec",
    "import builtins\nbuiltins.eval(text)": "builtins.eval",
    "compile(text, 'x', 'exec')": "compile",
    "__import__(name)": "__import__",
    "map(eval, texts)": "eval",
    "import numpy as np\nnp.load(file)": "numpy.load",
    "import numpy as np\nnp.load(file, allow_pickle=True)": "numpy.load",
    "import numpy as np\nnp.load(file, allow_pickle=trusted)": "allow_pickle",
    "from numpy import load\nload(file, None, False)": "numpy.load",
    "import numpy as np\nread = np.load": "numpy.load",
    "import numpy as np\nnp.memmap(file)": "numpy.memmap",
    "from importlib.metadata import entry_points\nentry_points()": "importlib.metadata.entry_points",
    "from importlib import import_module as get\nget(name)": "importlib.import_module",
    "import subprocess": "subprocess",
    "run(command, shell=True)": "shell",
    "from os import system as run\nrun('x')": "os.system",
    "import os\nos.popen('x')": "os.popen",
    "import onnx\nonnx.load(path)": "onnx.load",
    "import onnx as o\no.load_model(path)": "onnx.load_model",
    "import pyarrow.ipc": "pyarrow.ipc",
    "from pyarrow import dataset": "pyarrow.dataset",
    "import h5py\nh5py.ExternalLink(a, b)": "h5py.ExternalLink",
    "archive.extractall()": "archive.extractall",
    "text.format_map(x)": "text.format_map",
    "import gymnasium as gym\ngym.make(stored)": "gymnasium.make",
}


@pytest.mark.parametrize("source", WRONG)
def test_what_is_wrong_is_found(source):
    assert WRONG[source] in [what for what, _ in findings(source)]


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile('x')",
        "import numpy as np\nnp.load(file, allow_pickle=False)",
        "np.savez(file, allow_pickle=False, x=x)",
        "from importlib.metadata import version\nversion('numpy')",
        "from importlib.resources import files",
        "jitted.lower(x).compile()",
        "import json\njson.loads(text)",
        "from simtrust.training.code import pickle_free",
        "model.eval()",
        "run(command, shell=False)",
    ],
)
def test_what_is_harmless_is_passed_over(source):
    assert not list(findings(source))
