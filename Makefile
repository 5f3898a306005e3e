# make run    installs, serves, profiles this device and prints what it predicts
# make test   runs all tests          make lint   runs all checks
# make reference brings published measurements of GPUs into the running daemon
# make gpu-check runs the GPU's tests, a point of each kind and a minute's campaign; installs nothing
# make protos generates the gRPC code anew
#
# PYTHON=python3.12 picks an interpreter; ARGS="--address 127.0.0.1:50052" goes to the daemon.

PYTHON ?= $(firstword $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$p; done))
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt
PROTOS := $(wildcard protos/tokenpace/v1/*.proto)
ARGS ?=

.PHONY: run test lint format reference gpu-check protos released

run: $(VENV)/.installed
	@$(BIN)/python -m tokenpace.first_run $(ARGS)

# Threads of two processes on two cores would mostly wait for each other.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/released.binpb
	$(BIN)/python -m pytest -q tests/test_protos.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(VENV)/.installed
	$(INSTALL) -e '.[reference]'
	@$(BIN)/tokenpace reference import $(ARGS)

# With the interpreter that has torch, as it is: a GPU machine may have no network. Its torch and
# transformers may warn of what ours do not: that fails nothing.
GPU_TESTS = $(PYTHON) -m pytest -m gpu -o filterwarnings=default tests/profiler $(ARGS)
gpu-check:
	@test -n "$(PYTHON)" || { echo "name the interpreter that has torch: make gpu-check PYTHON=python3" >&2; exit 1; }
	@echo '$(GPU_TESTS)'; \
	$(GPU_TESTS); passed=$$?; \
	if $(PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
		out=$$(mktemp) && trap 'rm -f "$$out"' EXIT && set -x || exit $$?; \
		$(PYTHON) -m profiler check || passed=$$?; \
		$(PYTHON) -m profiler campaign --budget 60s --out "$$out" || exit $$?; \
	else \
		echo "torch of $(PYTHON) sees no CUDA device: the GPU's tests were skipped, nothing was checked" >&2; \
	fi; \
	exit $$passed

protos: $(VENV)/.installed-dev
	$(BIN)/python -m grpc_tools.protoc -I protos \
		--python_out=protos --pyi_out=protos --grpc_python_out=protos $(PROTOS)

# The contract that later changes are held against; renewed at each release.
released: $(VENV)/.installed-dev
	$(BIN)/buf build -o protos/released.binpb

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 to 3.13; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps keep pip from running when nothing changed. An old pip knows no
# dependency groups, hence the upgrade.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing (torch is large: some minutes)"
	$(INSTALL) -e '.[cli,server,profiler]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --upgrade 'pip>=25.1'
	$(INSTALL) --group dev
	@# Published measurements are for some platforms alone; their tests skip elsewhere.
	$(INSTALL) -e '.[reference]' || echo "without the extra reference: its tests will skip"
	@touch $@
