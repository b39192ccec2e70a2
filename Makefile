# Everything runs in .venv, made once from constraints.txt; `make clean` removes it.
PYTHON ?= python3
# What pip is told beside the package when .venv is made: `make clean`, then `make test VERSIONS=` takes the newest of
# each, VERSIONS='torch==2.11.*' that one.
VERSIONS ?= --constraint constraints.txt
# The same for what builds the package, where pip hears these variables alone: before 25.3 the first.
BUILT_BY := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
VENV := .venv
SCRIPTS := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN := $(VENV)/$(SCRIPTS)
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo demo-ir demo-real test test-slow test-network test-wheel check docs bench model package format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Tapetum needs Python 3.11 or newer: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(if $(filter constraints.txt,$(VERSIONS)),$(BUILT_BY)) $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(VERSIONS) --editable '.[dev,docs]'
	touch $(STAMP)

install: $(STAMP)  ## create the environment

demo: $(STAMP)  ## generate a night scene, train IDE+ and IDF on it, evaluate, search, write runs/demo/report.html
	$(BIN)/tapetum demo --out runs/demo

demo-ir: $(STAMP)  ## the same across visible and infrared: the two-stream baseline, AGW and DEEN, runs/demo-ir/report.html
	$(BIN)/tapetum demo-ir --out runs/demo-ir

demo-real: $(STAMP)  ## the same on a real clip: make demo-real CLIP=path/to/clip.mp4
	@test -n "$(CLIP)" || { echo "make demo-real needs a video of a static camera: make demo-real CLIP=path/to/clip.mp4"; exit 2; }
	$(BIN)/tapetum demo --out runs/demo --clip "$(CLIP)"

test: $(STAMP)  ## the test suite, offline
	$(BIN)/python -m pytest -m "not slow and not network" -n auto --dist worksteal

test-slow: $(STAMP)  ## what takes longer: kills, fuzzing, the browser, load, clusters
	$(BIN)/python -m pytest -m "slow and not network" -n auto --dist worksteal

test-network: $(STAMP)  ## the detectors that `tapetum detector get` has fetched here, on real clips
	$(BIN)/python -m pytest -m network

check: $(STAMP)  ## ruff, mypy (strict), documentation build; the import layers are a test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) docs

docs: $(STAMP)  ## build the documentation into docs/_build/html (warnings are errors)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

bench: $(STAMP)  ## measure against peers, print ratios, write runs/bench.json; more with WORDS=long, WORDS="growth device"
	$(BIN)/python -m benchmarks $(WORDS)

LITE0 := src/tapetum/packaged/tapetum-lite0.safetensors

model: $(STAMP)  ## make the packaged model again from nothing, with its calibration; an hour or so, stopped and typed again it goes on
	$(BIN)/tapetum train lite0 --out runs/lite0
	rm -f $(LITE0)
	$(BIN)/tapetum export runs/lite0 --to weights --out $(LITE0)
	$(BIN)/tapetum data generate runs/lite0-people --layout city --seed 5 --cameras 40 --light both --pictures 1 \
		--set num_train_people=0 --set num_test_people=600 --set cameras_per_person=3
	$(BIN)/tapetum calibrate $(LITE0) --data city=runs/lite0-people --precision fp32
	rm $(LITE0:.safetensors=.calibration_)*.svg

TOOLS := build/tools
FRESH := build/fresh

package:  ## build the wheel and the source distribution into dist/
	rm -rf build dist
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/$(SCRIPTS)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt build
	$(BUILT_BY) $(TOOLS)/$(SCRIPTS)/python -m build

test-wheel: package  ## install the wheel into an environment of its own and run the README's lines there on a drawn clip, and on TAPETUM_CLIP=file
	$(PYTHON) -m venv $(FRESH)
	$(FRESH)/$(SCRIPTS)/python -m pip install --quiet --disable-pip-version-check "$$(echo dist/*.whl)[all]"
	$(FRESH)/$(SCRIPTS)/tapetum --version
	mkdir $(FRESH)/empty
	cd $(FRESH)/empty && ../$(SCRIPTS)/python -P $(CURDIR)/tests/install/walk.py

format: $(STAMP)  ## format and fix what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and what was built
	rm -rf $(VENV) build dist docs/_build .pytest_cache .mypy_cache .ruff_cache
