# One word per deed; POSIX make (GNU make and bmake read it alike). `make` alone lists the words.
#
# Everything that is installed goes into .venv. A stamp file in it stands for each set of packages, so
# that setting up happens once, and again only after pyproject.toml has changed.

.POSIX:
.PHONY: help setup demo test lab lint bench docs check notebooks clean
.NOTPARALLEL:

ARGS =
# The interpreter for .venv; empty means: the first one that is new enough.
PYTHON =
CODE = golem_magic tests bench notebooks/execute.py docs/check.py
RUN = .venv/bin/python
PIP = $(RUN) -m pip install --quiet --no-cache-dir --disable-pip-version-check

help:
	@echo "make setup      .venv with everything needed to work here"
	@echo "make demo       a real notebook on real data, on a Golem on this machine"
	@echo "make test       the tests; ARGS=--unit for the quick ones, ARGS=--slow for all"
	@echo "make lab        JupyterLab on the notebooks"
	@echo "make lint       formatting, ruff, mypy"
	@echo "make bench      speed, as ratios to multiprocessing and joblib of the same run"
	@echo "make docs       links and code of the pages, examples in docstrings"
	@echo "make notebooks  execute the notebooks, compare the numbers with the committed ones"
	@echo "make check      what must pass before merging: lint, docs, notebooks, test"
	@echo "make clean      remove .venv, out and caches (not your jobs and results)"

setup: .venv/.has-test

demo: .venv/.has-demo
	@$(RUN) notebooks/execute.py $(ARGS) notebooks/quickstart.ipynb

test: .venv/.has-test
	@$(RUN) -m pytest $(ARGS)

lab: .venv/.has-lab
	@test "$$(id -u)" -ne 0 || root=--allow-root; $(RUN) -m jupyterlab --notebook-dir=notebooks $$root $(ARGS)

lint: .venv/.has-test
	@$(RUN) -m ruff format --check $(CODE)
	@$(RUN) -m ruff check $(CODE)
	@$(RUN) -m mypy golem_magic notebooks/execute.py docs/check.py

bench: .venv/.has-test
	@$(RUN) -m bench $(ARGS)

docs: .venv/.has-test
	@$(RUN) docs/check.py
	@$(RUN) -m pytest -o addopts=--import-mode=importlib --quiet --doctest-modules golem_magic notebooks/execute.py

notebooks: .venv/.has-demo
	@$(RUN) notebooks/execute.py --check $(ARGS) notebooks/*.ipynb

check: lint docs notebooks test

clean:
	rm -rf .venv out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is made last, so that a set-up that was interrupted starts again.
.venv/.has-demo: pyproject.toml .venv/.made
	@echo "installing what the notebooks need into .venv ..."
	@$(PIP) -e '.[demo]'
	@touch $@

.venv/.has-lab: pyproject.toml .venv/.made
	@echo "installing JupyterLab into .venv ..."
	@$(PIP) -e '.[lab]'
	@touch .venv/.has-demo $@

.venv/.has-test: pyproject.toml .venv/.made
	@echo "installing what the tests need into .venv ..."
	@$(PIP) -e '.[test]'
	@touch .venv/.has-demo .venv/.has-lab $@

# On a Mac, Homebrew's folders may be missing from PATH while /usr/bin/python3 is too old.
.venv/.made:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 \
	    /opt/homebrew/bin/python3 /usr/local/bin/python3 ''; do \
	  test -n "$$python" || break; \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	done; \
	if test -z "$$python"; then \
	  echo "No Python 3.11 or newer was found. To install one:"; \
	elif ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$python comes without the modules venv and ensurepip. To install them:"; \
	else \
	  echo "making .venv with $$python ..."; \
	  "$$python" -m venv .venv && touch $@; exit; \
	fi; \
	echo "  Debian, Ubuntu:  apt-get install -y git make python3-venv"; \
	echo "  macOS:           xcode-select --install; brew install python"; \
	exit 1
