# Everything from a fresh clone: Python 3.11 or newer, make and a package index are all it takes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: run test browser-test docs soak check constraints mutants bench bench-scale bench-workers gpu-check gpu-speed clean
.DEFAULT_GOAL := run

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,hf,dask]'
	touch $@

run: $(INSTALLED)  ## the bundled example with the bundled demo model
	$(BIN)/python -m flows.text2image

# Files go to as many processes as there are cores, each with a Prefect server of its own; tests/conftest.py orders them.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: $(INSTALLED)  ## lint, format, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# ROOM=storage: that one alone. A change is noticed where a quick test fails with it; `mutmut show NAME` shows one.
mutants: $(INSTALLED)  ## change planning, output and storage one place at a time, and say which changes no test notices
	$(BIN)/mutmut run --max-children 1 $(patsubst %,'t2i_core.%.*',$(or $(ROOM),planning output storage))
	@$(BIN)/mutmut results --all true | awk -F '[.: ]+' ' \
	  $$NF == "checked" { next } \
	  $$NF ~ /killed|timeout/ { noticed[$$3]++ } \
	  $$NF !~ /killed|timeout/ { print } \
	  { all[$$3]++ } \
	  END { for (room in all) printf "%s: %d of %d changes noticed\n", room, noticed[room], all[room] }'

browser-test: $(INSTALLED)  ## the gallery in Chromium: CHROMIUM=path, or the one in the path; screenshots in build/gallery
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest browser_tests

docs: $(INSTALLED)  ## the site of the documentation in build/site; a broken link is an error
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python -m docsite build/docs
	$(BIN)/python -m sphinx -q -W --keep-going -c docsite/sphinx -d build/doctrees build/docs build/site

# FUZZ cases of each kind of input; KILLS_FOR seconds of kills.
soak: $(INSTALLED)  ## fuzz all that is read, and kill runs at every moment
	SOAK_CASES=$(or $(FUZZ),3000) $(BIN)/python -m pytest tests/fuzz -n auto --maxprocesses 4 --timeout 3600
	$(BIN)/python -m tests.kill_loop $(or $(KILLS_FOR),300)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.flow

bench-scale: $(INSTALLED)  ## what a run costs besides its images, up to a million rows: 10 GB of disk, half an hour
	$(BIN)/python -m benchmarks.scale

bench-workers: $(INSTALLED)  ## whether several processes make as many times the images; the lag of Prefect's server
	$(BIN)/python -m benchmarks.workers

gpu-speed: $(INSTALLED)  ## on a machine with a GPU: speed with random weights, nothing downloaded, ten minutes
	$(BIN)/python -m benchmarks.gpu_speed

gpu-check: $(INSTALLED)  ## on a machine with a GPU: what docs/unmeasured.md lists; MODEL=flux-schnell for a real model
	$(BIN)/python -m benchmarks.gpu_check --model $(or $(MODEL),demo)

constraints:  ## resolve the ranges of pyproject.toml anew, in a fresh environment, with torch at its pin
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet --disable-pip-version-check \
	  "$$(grep '^torch==' constraints.txt)" -e '.[dev,hf,dask,docs]'
	{ grep '^#' constraints.txt; build/constraints/bin/python -m pip freeze --exclude-editable; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) mutants build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
