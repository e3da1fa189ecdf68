# One command a line of the README. Everything is installed into .venv/, everything local lives in $EDGE_AI_HOME.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Numeric libraries that start a thread a core only wait for each other in runs as short as ours.
export OMP_NUM_THREADS ?= 1
export ORT_DISABLE_TELEMETRY ?= 1

.PHONY: help demo demo-disconnected demo-azurite ui status test proofs kills check bench integration clean

help: ## What there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-18s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 …"; exit 2; }
	@echo "installing into $(VENV)/: a minute or two, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## The whole loop on this machine; DATA=file uses your own readings
	$(BIN)/edge-ai demo $(if $(DATA),--data '$(DATA)') $(if $(USECASE),--usecase '$(USECASE)')

demo-disconnected: $(VENV)/.installed ## Azure and a ship: two homes that share only a medium carried by hand
	$(BIN)/edge-ai demo --disconnected

demo-azurite: $(VENV)/.installed ## The demo with real servers: storage, registry, PostgreSQL, queue and function
	$(BIN)/python -m edge_ai_assets_tests.integration.demo_azurite

ui: $(VENV)/.installed ## Dagster's web UI on what the demo left
	$(BIN)/edge-ai ui

status: $(VENV)/.installed ## What became of every score
	$(BIN)/edge-ai status

test: $(VENV)/.installed ## All tests that need no server and no patience
	$(BIN)/pytest -n logical --dist loadfile -m 'not integration and not proof and not slow'

integration: $(VENV)/.installed ## Tests with real servers and a browser, and the slow ones
	$(BIN)/pytest -m '(integration or slow) and not proof' -n 2 --dist loadfile

proofs: $(VENV)/.installed ## Half a year at sea, a million canaries, 300 kills of the service: a quarter of an hour
	$(BIN)/pytest -n 2 --dist loadfile -m proof
	SCHEMATHESIS_CASES=10000 SERVICE_KILLS=50 SERVICE_SWITCHES=100 $(BIN)/pytest -n 2 --dist loadfile -m integration \
	  -k 'undocumented or killed_again or while_releases_are_switched'

kills: $(VENV)/.installed ## Kill -9 at more than ten thousand points of the way home: a quarter of an hour
	EDGE_AI_KILLS=10000 $(BIN)/pytest -n logical --dist loadfile -m '' edge_ai_assets_tests/returns/test_kills.py \
	  edge_ai_assets_tests/returns/test_media_kills.py edge_ai_assets_tests/returns/test_inbox_kills.py \
	  edge_ai_assets_tests/delivery/test_kill_anywhere.py

check: $(VENV)/.installed ## Linter, formatter, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed ## All benchmarks; make bench-NAME runs one
	@failed=0; for file in benchmarks/bench_*.py; do $(BIN)/python $$file || failed=1; done; exit $$failed

bench-%: $(VENV)/.installed
	@$(BIN)/python benchmarks/bench_$*.py

clean: ## Stop what runs and remove everything local but the virtual environment
	@test ! -x $(BIN)/edge-ai || $(BIN)/edge-ai reset
