# Every target sets up what it needs: Python 3.11 and make are enough. `make setup PYTHON=…` picks another Python.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
CONSTRAINTS ?= constraints/cpu.txt
FOLDER ?= quickstart
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(notdir $(CONSTRAINTS))
CODE := dalle2_train tests $(wildcard benchmarks pipelines)

.PHONY: help setup lint format types imports test test-system system-deps quickstart emoji comparison bench-data bench-samplers \
	bench-inversion bench-upsamplers ui clean

help:  ## these lines
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP)  ## .venv with exact versions; a second call does nothing

$(STAMP): pyproject.toml constraints/cpu.txt $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint $(CONSTRAINTS) --editable '.[emoji,judge,nsfw,export,cluster,dev]'
# By all cores, rather than by pip's one. Where PYTHONDONTWRITEBYTECODE is set, no process would keep what it compiles, and
# each would take 18 s to start rather than 8. A few packages bring files for other Pythons, which do not compile.
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib dalle2_train >/dev/null 2>&1 || true
	touch $@

lint: setup types imports  ## style, types, who imports whom, and that `lightning` is absent
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/python -m dalle2_train.doctor

format: setup  ## let ruff write the style
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

types: setup
	$(BIN)/pyright

imports: setup
	$(BIN)/lint-imports

test: setup  ## the tests of seconds
	$(BIN)/python -m pytest

# slurm-wlm and munge: Slurm on one machine; iproute2: network namespaces that play further machines.
SYSTEM_PACKAGES := slurm-wlm munge iproute2
APT_GET := DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes

system-deps: setup  ## what test-system needs beyond setup: Debian packages, which root alone can install
	@missing=$$(for name in $(SYSTEM_PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$name 2>/dev/null | grep -q 'ok installed' || echo $$name; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "tests are skipped that need Debian's" $$missing "(as root: apt-get install)" >&2; exit 0; fi; \
	$(APT_GET) update && $(APT_GET) install --no-install-recommends $$missing

test-system: system-deps  ## the tests of several processes
	$(BIN)/python -m pytest -m system || test $$? -eq 5  # 5: none collected

.PHONY: faults
FAULTS ?= worker_kill node_kill driver_kill resize checkpoint_cut checkpoint_flip node_tmp storage_away tracking_away \
	worker_terminated node_drained worker_frozen stream_kill embed_kill
faults: setup  ## the trials of docs/faults.md that are not on record yet; FAULTS="worker_kill …": some classes alone
	for name in $(FAULTS); do $(BIN)/python tests/faults/$$name.py || exit $$?; done
	$(BIN)/python tests/faults/report.py

quickstart: setup  ## train all four models on emoji and sample pictures: quickstart/
	$(BIN)/python -m pipelines.quickstart

emoji: setup  ## the longer training on all emoji: emoji/
	$(BIN)/python -m pipelines.emoji

comparison: setup  ## what each piece of unCLIP buys, of networks trained for equal CPU time: comparison/, docs/comparison.md
	$(BIN)/python -m pipelines.comparison --docs docs

bench-data: setup  ## samples a second beside webdataset's, on an idle machine: docs/results/data.json
	$(BIN)/python -m benchmarks.data

bench-samplers: setup  ## KID by the decoder's sampler and steps, of RELEASE on DATA: docs/results/sampler_steps.json
	$(BIN)/python -m benchmarks.sampler_steps $(RELEASE) --data $(DATA) $(BENCH)

bench-inversion: setup  ## how well RELEASE's decoder gives pictures of DATA back: docs/results/inversion.json
	$(BIN)/python -m benchmarks.inversion $(RELEASE) --data $(DATA) $(BENCH)

bench-upsamplers: setup  ## both upsamplers against bicubic on held-out emoji, trained first: docs/results/upsamplers.json
	$(BIN)/python -m benchmarks.upsamplers

.PHONY: bench-checkpoints
bench-checkpoints: setup  ## how long a checkpoint keeps a training waiting, on an idle machine: docs/results/checkpoint_stall.json
	$(BIN)/python -m benchmarks.checkpoint_stall

.PHONY: bench-networks
bench-networks: setup  ## our networks beside diffusers', on an idle machine: docs/results/networks.json
	$(BIN)/python -m benchmarks.networks

ui: setup  ## a pipeline's runs in MLflow's UI: the quickstart's, or those of FOLDER=emoji
	$(BIN)/mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///$(FOLDER)/mlflow.db

clean:  ## caches and .venv; quickstart/ and emoji/ are yours and stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
	find dalle2_train tests -name __pycache__ -type d -prune -exec rm -rf {} +
