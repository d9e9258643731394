# `make demo` and `make test` do all the set-up they need; `make help` lists the rest. Works with GNU make 3.81.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help install lock demo test docs lint format clean FORCE

UV_VERSION := 0.13.9
UV = $(BIN)/uv pip
# At install: where PYTHONDONTWRITEBYTECODE is set, as in many containers, every process would compile torch anew.
export UV_COMPILE_BYTECODE := 1
# The interpreter of a new .venv: the first of these that is new enough, or yours: make install PYTHON=python3.12
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.10
PYTHON ?= $(or $(firstword $(foreach p,$(CANDIDATES),$(shell $(p) -c '$(NEW_ENOUGH)' 2>/dev/null && echo $(p)))),python3)
# Processes that share the tests out, a file each at a time.
TEST_JOBS ?= 2
# Empty: the pinned wheel. Otherwise any pip requirement, remembered in .venv for later installs.
STORED := $(shell cat $(VENV)/.detectron2 2>/dev/null)
DETECTRON2 ?= $(STORED)
ifneq ($(strip $(DETECTRON2)),$(strip $(STORED)))
$(STAMP): FORCE
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## set up .venv; options: PYTHON=python3.12, DETECTRON2=<pip requirement>
	@echo "$(VENV) is ready: $$($(BIN)/python --version). To change the interpreter, remove $(VENV) first."

$(STAMP): requirements/lock.txt requirements/detectron2.txt setup.py
	@rm -f $@
	@test -x $(BIN)/python || { command -v $(PYTHON) >/dev/null && $(PYTHON) -c '$(NEW_ENOUGH)'; } || { \
	  echo "sgr_d2 needs Python 3.10 or newer; $(PYTHON) is $$(command -v $(PYTHON) >/dev/null && $(PYTHON) --version 2>&1 || echo missing)." \
	       "Name another one: make install PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/uv || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(UV) install -r requirements/lock.txt
	@$(UV) uninstall --quiet sal-detectron2 detectron2
ifeq ($(strip $(DETECTRON2)),)
	$(UV) install --no-deps --require-hashes --python-version 3.10 --python-platform linux \
	  --target "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  -r requirements/detectron2.txt
	@# The wheel also carries Detectron2's scripts as a package named tools, which would hide ours.
	@rm -rf "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tools"
else
	$(UV) install --no-deps --no-build-isolation "$(DETECTRON2)"
endif
	$(UV) install --no-deps --no-build-isolation --editable .
	@echo "$(strip $(DETECTRON2))" > $(VENV)/.detectron2
	@touch $@

lock: $(STAMP) ## pin anew what requirements/*.in ask for; LOCK_OPTS=--upgrade takes newer versions
	cd requirements && ../$(UV) compile --universal --python-version 3.10 --no-emit-index-url \
	  --custom-compile-command "make lock" --override overrides.txt $(LOCK_OPTS) --output-file lock.txt runtime.in dev.in

demo: $(STAMP) ## train, evaluate and draw SGR on generated scenes, on the CPU, into output/demo
	$(BIN)/python train_net.py --config-file configs/shapes/fpn_sgr.yaml --num-gpus 0 \
	  OUTPUT_DIR output/demo $(DEMO_OPTS)
	@echo "Pictures and curves:" && find output/demo -name '*.png' | sort

test: $(STAMP) ## run the tests; TEST_OPTS="-m slow" adds options of pytest, TEST_JOBS=8 takes more processes than 2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_JOBS) --dist loadfile $(TEST_OPTS)

docs: $(STAMP) ## build the documentation as a web site into output/site
	$(BIN)/python tools/list_keys.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: $(STAMP) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## correct style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove caches and build products; leaves .venv and output
	find . \( -path ./$(VENV) -o -path ./output \) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
