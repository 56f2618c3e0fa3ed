# The tasks of this project: `make` lists them. They need only Python 3.11 and pip (or uv).
#
#   PYTHON=python3.12   the interpreter to make the environment with
#   VENV=.venv-3.12     where the environment is
#   WORKERS=1           processes that share the tests; by default one for each core
#   ARGS="-k tunnel"    passed on to demo, test, siege, soak and bench

VENV ?= .venv
RUN := $(VENV)/bin/python
WORKERS ?= auto
PYTEST := $(RUN) -m pytest --numprocesses $(WORKERS) --dist worksteal
export PYTHON

ifneq ($(words $(VENV)),1)
$(error VENV must be a path without blanks: '$(VENV)')
endif

.PHONY: help demo test siege soak style types bench docs

help:
	@echo 'make demo    show what the package does, against servers on this machine'
	@echo 'make test    run the tests, on asyncio and on uvloop'
	@echo 'make siege   attack it for up to 20 minutes: the tests that make test leaves out'
	@echo 'make soak    use it with real servers that fail and links that lose packets, for 3 minutes'
	@echo 'make style   check with ruff, its formatter included, and codespell'
	@echo 'make types   check with mypy --strict and pyright'
	@echo 'make bench   compare with other clients and with the floor; ARGS=--quick takes 3 minutes'
	@echo 'make docs    run the examples of the documentation'

demo: $(VENV)/.ready-demo
	$(RUN) -m aiohttpconn demo $(ARGS)

test: $(VENV)/.ready-test
	$(PYTEST) $(ARGS)

siege: $(VENV)/.ready-test
	$(PYTEST) -m siege $(ARGS)

soak: $(VENV)/.ready-test
	$(RUN) -m tests.soak $(ARGS)

style: $(VENV)/.ready-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m codespell_lib aiohttpconn tests benchmarks docs README.md CHANGELOG.md tools

types: $(VENV)/.ready-dev
	$(RUN) -m mypy --strict
	$(RUN) -m mypy --strict tests/typing
	$(RUN) -m basedpyright

# The tests' environment has none of the other projects' clients.
bench: $(VENV)-bench/.ready-bench
	$(VENV)-bench/bin/python benchmarks/run.py $(ARGS)

docs: $(VENV)/.ready-test
	$(RUN) -m pytest tests/test_docs.py $(ARGS)

$(VENV)-bench/.ready-bench: pyproject.toml tools/setup.sh $(wildcard benchmarks/requirements*.txt)
	@sh tools/setup.sh bench $(VENV)-bench

# One target for each kind of tools/setup.sh. It installs again when pyproject.toml has changed.
$(VENV)/.ready-%: pyproject.toml tools/setup.sh
	@sh tools/setup.sh $* $(VENV)
