# One command per duty; CI runs the same ones.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The versions that were tested together; empty: the newest that pyproject.toml allows.
CONSTRAINTS ?= constraints.txt
# Packages that are built on the spot are built by the tested tools too.
PIP := $(BIN)/pip install $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
BUILD := $(if $(CONSTRAINTS),--build-constraint $(CONSTRAINTS))
NEWEST := VENV=.venv-newest CONSTRAINTS=

.PHONY: demo test test-newest test-slow fuzz mutants check format bench docs constraints clean

demo: $(VENV)/.demo      ## install, then the main job on real data
	$(BIN)/plait demo
	@echo "to go on in this shell: source $(VENV)/bin/activate"

test: $(VENV)/.dev       ## all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-newest:             ## the same tests with today's releases; a failure: see `constraints`
	rm -rf .venv-newest
	$(MAKE) test $(NEWEST)

constraints:             ## write down the releases that `make test-newest` has tested
	$(MAKE) .venv-newest/.dev $(NEWEST)
	.venv-newest/bin/python tools/constraints.py > constraints.new
	mv constraints.new constraints.txt

test-slow: $(VENV)/.dev  ## the slow ones
	$(BIN)/python -m pytest -m slow --timeout=3600 -o faulthandler_timeout=3700

MINUTES ?= 10
fuzz: $(VENV)/.dev       ## mutated files, filters, manifests and requests; MINUTES for each target
	$(BIN)/python -m tests.fuzz.run --minutes $(MINUTES) --json benchmarks/results/fuzz.json $(TARGETS)

SAMPLE ?= 300
mutants: $(VENV)/.dev    ## small changes of the code that tests should notice; goes on where it stopped
	OMP_NUM_THREADS=1 $(BIN)/python tools/mutants.py --minutes $(MINUTES) --sample $(SAMPLE) $(if $(AREAS),--areas $(AREAS))

check: $(VENV)/.dev      ## format, lint, types, direction of imports, generated pages, no binaries
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python tools/tracked.py

format: $(VENV)/.dev     ## mend what a tool can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev      ## side by side with the peers; results in benchmarks/results
	$(BIN)/python benchmarks/run.py

audit: $(VENV)/.dev       ## known weaknesses of the constrained packages, where a database can be asked
	$(BIN)/python deploy/audit.py

docs: $(VENV)/.dev       ## write the generated pages anew
	$(BIN)/python docs/generate.py

# pip rather than uv: it is on every machine and honours the machine's own pip configuration.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS)
	$(PIP) --quiet --upgrade pip
	$(PIP) $(BUILD) --progress-bar on -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml requirements-oracles.txt $(CONSTRAINTS)
	$(PIP) --quiet --upgrade pip
	$(PIP) $(BUILD) --progress-bar on -e '.[dev]'
	$(PIP) $(BUILD) --quiet --no-deps -r requirements-oracles.txt
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) .venv-newest runs demo build dist
