# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY := PASSIVE
export HF_HUB_OFFLINE := 1

.PHONY: setup test quick check demo bench chaos lock clean
setup: $(VENV)/.ready

# The lock holds every package with its hashes, all but torch: its build differs by machine, its version does not.
$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ELIAS needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# Tests of one file stay in one process, the long ones not last: `make test WORKERS=1` runs them one after the other.
WORKERS ?= 2
test: check

quick: setup
	$(BIN)/python -m pytest -m "not slow"

.PHONY: lint
lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/python tools/run_tests.py $(WORKERS)

demo: setup
	$(BIN)/python demo/main_job.py

bench: setup
	$(BIN)/python bench/run.py

# Kills with -9: three at chosen steps of one run, then a hundred at random over the whole walk.
chaos: setup
	$(BIN)/python bench/three_kills.py
	$(BIN)/python bench/chaos.py --kills 100

# Kaggle: the whole strategy and its cost against the emulated service, and two minutes of the real one.
.PHONY: demo-kaggle bench-kaggle test-live-kaggle
demo-kaggle: setup
	$(BIN)/python demo/on_kaggle.py

bench-kaggle: setup
	$(BIN)/python bench/kaggle_backend.py

test-live-kaggle: setup
	ELIAS_LIVE_KAGGLE=1 $(BIN)/python -m pytest -rs -s tests/adapters/kaggle/test_live.py

# SageMaker: the whole strategy against the emulated service, one spot instance taken away on the way.
.PHONY: demo-sagemaker
demo-sagemaker: setup
	$(BIN)/python demo/on_sagemaker.py

# SageMaker: the smallest CPU job of the real one, with your own credentials; skipped visibly without.
.PHONY: test-live-sagemaker
test-live-sagemaker: setup
	ELIAS_LIVE_SAGEMAKER=1 $(BIN)/python -m pytest -rs -s tests/adapters/sagemaker/account/test_live.py

# SageMaker: what its backend costs against the emulated service, beside `aws s3 cp`; its coordinator killed at each call.
.PHONY: bench-sagemaker kills-sagemaker
bench-sagemaker: setup
	$(BIN)/python bench/sagemaker_backend.py

kills-sagemaker: setup
	$(BIN)/python bench/sagemaker_kills.py

# The planner in simulated worlds: a thousand runs beside simple policies and a clairvoyant bound; all that can go wrong.
.PHONY: bench-planner chaos-planner
bench-planner: setup
	$(BIN)/python bench/planner.py

chaos-planner: setup
	$(BIN)/python bench/planner_chaos.py

# The seed's weekly table for two weeks: the real scheduler and coordinator, simulated places and time.
.PHONY: bench-schedules
bench-schedules: setup
	$(BIN)/python bench/schedule_weeks.py

lock:
	tools/lock.sh

clean:
	rm -rf $(VENV) .demo .bench
