# Everything runs from .venv, which `make install` fills with the versions pinned in requirements.lock.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test check format docs lock bench clean

install: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(STAMP)

# Records two logs of a wheel-legged robot, trains on them and on an ideal simulator, compares on the robot.
demo: install
	$(BIN)/python examples/wheel_legged.py

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/sphinx-build -W --keep-going -q -E -b html docs docs/_build

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The documentation as pages, in docs/_build.
docs: install
	$(BIN)/sphinx-build -W --keep-going -q -E -b html docs docs/_build

# Pins the newest versions that pyproject.toml allows, for every supported Python.
lock: install
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --extra dev \
	    --no-header --no-annotate --output-file requirements.lock pyproject.toml

bench: install
	$(BIN)/python benchmarks/update_rate.py

clean:
	rm -rf $(VENV) build dist docs/_build .pytest_cache .ruff_cache .hypothesis
