# make demo: set everything up and ask a sample clip. make test: the whole default suite.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
CLIP := mlx_audio_r1/nano/sample.wav
ifdef UV
CREATE = $(UV) venv --quiet --seed --allow-existing --python $(PYTHON) $(VENV)
INSTALL = $(UV) pip install --quiet --python $(BIN)/python
else
CREATE = $(PYTHON) -m venv $(VENV)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

.PHONY: demo test test-torch test-metal test-long lint nano clean

demo: $(VENV)/installed
	$(BIN)/audio-r1 ask $(CLIP) -p "Name all sounds in order."

# Two processes, a file at a time, the long files first (tests/conftest.py); sets have one order in both.
test: $(VENV)/installed-test
	PYTHONHASHSEED=0 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Parity with PyTorch and transformers; pip, because it honours a local CPU build of torch.
test-torch: $(VENV)/installed-torch
	$(BIN)/python -m pytest -m torch

# The tests of Metal kernels on this Mac's GPU; without it they run in a simulator, in `make test` on Linux.
test-metal: $(VENV)/installed-test
	$(BIN)/python -m pytest tests/kernels --on-metal

# Proofs that take minutes.
test-long: $(VENV)/installed-test
	$(BIN)/python -m pytest -m long

lint: $(VENV)/installed-test
	$(BIN)/python -m ruff check .

# Retrain the embedded model from nothing: hours on two cores.
nano: $(VENV)/installed-test
	$(BIN)/python -m mlx_audio_r1.nano.make

$(BIN)/python:
	$(CREATE)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	$(INSTALL) -e ".[test]"
	@touch $@ $(VENV)/installed

$(VENV)/installed-torch: pyproject.toml $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,torch]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
