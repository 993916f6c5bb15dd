"""How a model that was fitted before training is kept in the run's directory, as two files of its name."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from simtrust import __version__
from simtrust.data.json_file import read_json
from simtrust.errors import RunError
from simtrust.training.checkpoint import (
    StoredFile,
    Tree,
    arrays_to_tree,
    read_tensors,
    tree_to_arrays,
    write_tensors,
)
from simtrust.training.storage import write_atomically


class FittedModelFile(NamedTuple):
    """One kind of model, and the version of what is written of it."""

    name: str
    """Of ``NAME.json``, the manifest, and ``NAME.safetensors``."""
    what: str
    """As messages call it."""
    format: int

    def is_in(self, directory: Path) -> bool:
        """Whether the whole model was written; a run that was killed before that fits it again."""
        return self._manifest(directory).exists()

    def save(self, directory: Path, model: Any, **told: Any) -> None:
        """Write the model's arrays, and then the manifest: their SHA-256, and what is ``told`` of the fit."""
        content = {
            "format": self.format,
            "versions": {"simtrust": __version__},
            "file": asdict(write_tensors(directory, f"{self.name}.safetensors", tree_to_arrays(model))),
            **told,
        }
        write_atomically(self._manifest(directory), (json.dumps(content, indent=1) + "\n").encode())

    def load(self, directory: Path, like: Tree) -> Tree:
        """Read `save`'s files into the structure and shapes of ``like``.

        Raises `RunError` if they are missing, damaged, of another format, or of other sizes.
        """
        path = self._manifest(directory)
        try:
            stored = read_json(path)
            version = stored["format"]
            if version != self.format:
                writer = stored.get("versions", {}).get("simtrust", "unknown")
                raise RunError(
                    f"{path} has format {version}, this version of simtrust reads {self.format}; "
                    f"use the version that wrote it: {writer}"
                )
            file = StoredFile.from_json(stored["file"])
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise RunError(
                f"{path} is damaged ({error}); delete it to have the {self.what} fitted again"
            ) from error
        try:
            return arrays_to_tree(read_tensors(directory, file), like, directory / file.name)
        except RunError as error:
            error.add_note(f"To have the {self.what} fitted again, delete {path}")
            raise

    def _manifest(self, directory: Path) -> Path:
        return directory / f"{self.name}.json"
