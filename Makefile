# Each target sets up what it needs in .venv; nothing else on the machine is touched.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
DOCS_READY := .venv/.docs
GATE_SEEDS ?= 0 1
# A process for each core; PARALLEL= runs all tests in one.
PARALLEL ?= -n auto --dist worksteal

.PHONY: run test test-all lint docs tables check gate bench clean

run: $(READY)  ## train and score Controllable-LPMoE on the embedded camouflage set
	$(BIN)/lpmoe-bench run --method lpmoe --task cod --embedded

test: $(READY)  ## the tests that take seconds
	$(BIN)/pytest $(PARALLEL)

test-all: $(READY)  ## all tests, minutes
	$(BIN)/pytest $(PARALLEL) -m "slow or not slow"

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
	$(BIN)/python benchmarks/conv_lora.py
	$(BIN)/python benchmarks/per_image_convolution.py
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/feature_cache.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/verdicts.py

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[train,dev]'
	touch $(READY)

# Apart, because no test needs them.
$(DOCS_READY): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[train,docs]'
	touch $(DOCS_READY)

clean:
	rm -rf .venv .pytest_cache .ruff_cache site
