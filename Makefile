# make demo: derain and price the bundled photo.   make test: everything that must hold.   Both set up what they need.
PYTHON ?= $(shell command -v python3.10 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("3.10" if sys.version_info[:2] == (3, 10) else "3.11+")')
CONSTRAINTS := constraints/python-$(VERSION).txt
READY := $(VENV)/.ready-$(VERSION)
DEMO := out/demo

.PHONY: demo demo-lava docs test test-all test-gpu lint setup clean

setup: $(READY)

$(READY): $(CONSTRAINTS) pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --constraints $(CONSTRAINTS) --editable '.[all,docs,test]'
	@touch $@

demo: $(READY)
	@mkdir -p $(DEMO)
	$(BIN)/python hw_sim/energy.py --image docs/sample/rainy.png --save-image $(DEMO)/derained.png \
	  --json $(DEMO)/energy.json --html $(DEMO)/energy.html --plots $(DEMO)
	@if $(BIN)/python -c 'import lava' 2>/dev/null; then $(MAKE) --no-print-directory demo-lava; \
	  else echo "Lava is not installed (it exists for Python 3.10 alone): its part of the demo is left out"; fi
	@echo "The derained photo, the report and the charts are in $(DEMO)/"

# a 64x64 crop on the simulator and on Lava: the counts must be equal
demo-lava: $(READY)
	@mkdir -p $(DEMO)
	@for backend in simulator lava; do $(BIN)/python hw_sim/energy.py --image docs/sample/rainy_64.png \
	  --backend $$backend --precision float64 --json $(DEMO)/64_$$backend.json > $(DEMO)/64_$$backend.txt || exit; done
	@$(BIN)/python -m hw_sim.agreement.equal_counts $(DEMO)/64_simulator.json $(DEMO)/64_lava.json

# the pages of docs/ as a site, out/site/index.html; a broken link or a name that is not there ends it
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# two processes, a file each at a time; one thread each: OpenMP's threads spin
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-all: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# what a GPU computes against the CPU, how fast it trains and simulates: out/gpu/gpu.md; under ten minutes
test-gpu: $(READY)
	@$(BIN)/python -m benchmarks.gpu --device cuda --out out/gpu

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
