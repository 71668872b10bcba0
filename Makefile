# Each target sets up what it needs in .venv; nothing else on the machine is touched.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
DOCS_READY := .venv/.docs
GATE_SEEDS ?= 0 1
# A process for each core; PARALLEL= runs all tests in one.
PARALLEL ?= -n auto --dist worksteal

OLDEST := .venv-oldest/bin
# Of a commit, what continuous integration installs: exact versions, each file with its SHA-256.
LOCK := .ci/constraints.txt
LOCKED ?=

.PHONY: run test test-all test-oldest faults lock lint docs tables check gate bench bench-gpu clean

run: $(READY)  ## train and score Controllable-LPMoE on the embedded camouflage set
	$(BIN)/lpmoe-bench run --method lpmoe --task cod --embedded

test: $(READY)  ## the tests that take seconds
	$(BIN)/pytest $(PARALLEL)

test-all: $(READY)  ## all tests, minutes
	$(BIN)/pytest $(PARALLEL) -m "slow or not slow"

test-oldest: .venv-oldest/.ready  ## methods and training, with the oldest torch that is allowed
	$(OLDEST)/pytest $(PARALLEL) tests/method_zoo tests/model tests/training tests/inference

faults: $(READY)  ## kills, full disks, closed streams, strange files: what may befall a program
	$(BIN)/pytest $(PARALLEL) -m "faults and not slow"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/python tests/house.py

docs: $(DOCS_READY)  ## the site, into site/; fails on a broken link
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

tables: $(READY)  ## the tables of README.md and docs/results.md, from the committed records
	PYTHONPATH=docs/hooks $(BIN)/python tests/support/written_tables.py

check: lint test docs  ## what a change has to pass; types need node
	$(BIN)/pyright

gate: $(READY)  ## the smoke cell, trained into a fresh folder, against results/baseline.json
	@runs=$$(mktemp -d) && trap 'rm -rf "$$runs"' EXIT && \
	for seed in $(GATE_SEEDS); do \
	  $(BIN)/lpmoe-bench run --config .ci/gate.yaml --embedded --seed $$seed --runs "$$runs" \
	    --quiet >/dev/null || exit; \
	done && \
	$(BIN)/lpmoe-bench check check "$$runs" --baseline results/baseline.json

bench: $(READY)  ## ratios measured here, printed
	$(BIN)/python benchmarks/cosine_attention.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/score.py
	$(BIN)/python benchmarks/score_processes.py
	$(BIN)/python benchmarks/lora_step.py
	$(BIN)/python benchmarks/lpmoe_adapter.py
	$(BIN)/python benchmarks/conv_lora.py
	$(BIN)/python benchmarks/per_image_convolution.py
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/methods.py --alone
	$(BIN)/python benchmarks/feature_cache.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/image_cache.py
	$(BIN)/python benchmarks/image_sizes.py
	$(BIN)/python benchmarks/verdicts.py

bench-gpu: $(READY)  ## steps, loading and evaluation on a GPU, eight minutes at most; without one it says so
	@$(BIN)/python benchmarks/gpu.py

INSTALL := pip install --quiet --disable-pip-version-check

ifneq ($(LOCKED),)  # what builds the package is in the lock too
$(READY): pyproject.toml $(LOCK)
	$(PYTHON) -m venv .venv
	$(BIN)/$(INSTALL) --require-hashes --requirement $(LOCK)
	$(BIN)/$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $(READY) $(DOCS_READY)

$(DOCS_READY): $(READY)
else
$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/$(INSTALL) --editable '.[train,dev]'
	touch $(READY)

# Apart, because no test needs them.
$(DOCS_READY): $(READY)
	$(BIN)/$(INSTALL) --editable '.[train,docs]'
	touch $(DOCS_READY)
endif

.venv-oldest/.ready: pyproject.toml .ci/oldest.txt
	$(PYTHON) -m venv .venv-oldest
	$(OLDEST)/$(INSTALL) --constraint .ci/oldest.txt --editable '.[train,dev]'
	touch $@

lock: $(READY)  ## the newest versions that pyproject.toml allows, into the lock
	$(BIN)/$(INSTALL) uv
	printf 'hatchling\neditables\n' | $(BIN)/uv pip compile --quiet --universal --upgrade \
	  --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --extra train --extra dev --extra docs pyproject.toml - --output-file $(LOCK)

clean:
	rm -rf .venv .venv-oldest .pytest_cache .ruff_cache site
