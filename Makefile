# Everything runs in .venv, which `make setup` builds from a Python >= 3.10 alone.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALL := $(RUN)/uv pip install --quiet --python $(RUN)/python --constraint constraints.txt
# Without bytecode every process would compile torch and timm again.
unexport PYTHONDONTWRITEBYTECODE
STAMP := $(VENV)/.installed

.PHONY: help setup demo test elastic fuzz sanitize valgrind wheel-check browser check bench-cpu test-gpu bench-gpu small readme clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

setup: $(STAMP)  ## virtual environment with everything

# uv installs faster than pip and reads the same pinned versions. The kernels are compiled against the torch that is
# installed, hence no isolated build; without a compiler everything else works.
$(STAMP): pyproject.toml constraints.txt setup.py $(wildcard src/foveal/kernels/cpu/*.cpp src/foveal/kernels/cpu/*.h)
	test -x $(RUN)/uv || $(PYTHON) -m venv $(VENV)
	test -x $(RUN)/uv || $(RUN)/python -m pip install --quiet --constraint constraints.txt uv
	$(INSTALL) setuptools --requirements pyproject.toml --extra dev
	$(INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

demo: setup  ## compare ten mechanisms on real digits: report in runs/demo/report.html
	$(RUN)/foveal compare --data digits --epochs 15 --seeds 2 --jobs 2 --out runs/demo

test: setup  ## the whole test suite, on two cores
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 --dist worksteal

elastic: setup  ## kill one of two training processes, ten times: the same weights each time?
	OMP_NUM_THREADS=1 $(RUN)/python -m tests.tasks.elastic --times 10

fuzz: setup  ## two thousand random calls of the native kernels against their definitions
	OMP_NUM_THREADS=2 $(RUN)/python tests/kernels/fuzz.py --cases 2000

sanitize: setup  ## native local attention under the address and undefined behaviour sanitizers
	$(RUN)/python tests/kernels/sanitize.py sanitizers

valgrind: setup  ## the same under valgrind's memcheck
	$(RUN)/python tests/kernels/sanitize.py valgrind

browser:  ## Chromium for the tests of the explorer, where it is missing (Debian, Ubuntu; as root)
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }

# The oldest torch that is admitted on the oldest Python, the pinned torch on a new one; paths are taken too.
WHEEL_PYTHONS ?= 3.10=2.10.* 3.13
wheel-check: setup  ## the wheel, built once, passes the suite on several Pythons and torches
	$(RUN)/python tests/wheel_check.py $(foreach python,$(WHEEL_PYTHONS),'$(python)')

check: setup  ## lint, types, import law
	$(RUN)/ruff check src tests benchmarks
	$(RUN)/ruff format --check src tests benchmarks
	$(RUN)/mypy
	$(RUN)/lint-imports --no-cache

bench-cpu: setup  ## time and memory against convolutions and definitions, in about ten minutes: docs/benchmarks.md
	$(RUN)/python benchmarks/cpu.py

test-gpu: setup  ## the contract suite, the kernels' cases and the fuzz on an NVIDIA GPU
	@$(RUN)/python tests/kernels/gpu/on_gpu.py

bench-gpu: setup  ## the Triton kernels against others on an NVIDIA GPU; TUNE=--tune tunes them first
	@$(RUN)/python benchmarks/gpu.py $(TUNE)

small: setup  ## every task on its small data, with attention and without: docs/small.md, about half an hour
	$(RUN)/python benchmarks/small.py

readme: setup  ## fill the README with what demo and bench-cpu printed
	$(RUN)/python benchmarks/readme.py

clean:  ## remove what make made
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache
