# One command per duty; CI runs the same ones.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow check format bench docs clean

demo: $(VENV)/.demo      ## install, then the main job on real data
	$(BIN)/plait demo

test: $(VENV)/.dev       ## all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.dev  ## the slow ones
	$(BIN)/python -m pytest -m slow --timeout=3600 -o faulthandler_timeout=3700

check: $(VENV)/.dev      ## format, lint, types, direction of imports, generated pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

format: $(VENV)/.dev     ## mend what a tool can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev      ## side by side with the peers; results in benchmarks/results
	$(BIN)/python benchmarks/run.py

docs: $(VENV)/.dev       ## write the generated pages anew
	$(BIN)/python docs/generate.py

# pip rather than uv: it is on every machine and honours the machine's own pip configuration.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --progress-bar on -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml requirements-oracles.txt
	$(BIN)/pip install --progress-bar on -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps -r requirements-oracles.txt
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) runs demo build dist
