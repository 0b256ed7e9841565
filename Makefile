# Everything a newcomer and CI need: `make up` starts Heika on a machine with Python 3.11 or newer, `make check` proves it.

# The first Python that is new enough and can make a virtual environment; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
READY := .venv/requirements.lock
JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help up up-split test check lock openapi lint-openapi fmt clean

help:
	@echo "make up        start Heika in one process, data in .heika/"
	@echo "make up-split  start every service as its own process"
	@echo "make test      run the tests (JOBS=3 at a time)"
	@echo "make check     what CI runs: format, lint, types, imports, documents, tests"
	@echo "make fmt       format the code and fix what can be fixed"
	@echo "make openapi   write docs/openapi.json and the event schemas"
	@echo "make lint-openapi  hold docs/openapi.json against Spectral's rules; needs npm"
	@echo "make lock      resolve requirements.lock anew from pyproject.toml"
	@echo "make clean     remove caches and .venv; the data in .heika/ stays (python -m onebox reset removes it)"

# The copy inside .venv says which lock is installed; a lock that was only touched costs nothing.
$(READY): requirements.lock
	@test -n "$(PYTHON)" || { \
		echo "Heika needs Python 3.11 or newer with venv; found: $$(python3 --version 2>&1 | tail -1)." >&2; \
		echo "Install it (Debian: apt-get install python3 python3-venv; or https://www.python.org/downloads/)," >&2; \
		echo "or name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
		echo "需要 Python 3.11 或更新版本(含 venv 模块)。" >&2; exit 1; }
	@if cmp -s requirements.lock $@ && $(BIN)/python -c ''; then touch $@; else \
		echo "Installing what Heika needs into .venv (once, about a minute) ..."; \
		$(PYTHON) -m venv .venv \
		&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock \
		&& $(BIN)/python -m compileall -q kit contracts services gateway onebox \
		&& { $(BIN)/python -m onebox prepare >/dev/null || echo "Not prepared: the first start makes the databases itself."; } \
		&& cp requirements.lock $@ \
		|| { echo "The installation failed: the lines above say why. Is the package index reachable? Try make again." >&2; \
			echo "安装失败:请查看上面的信息,确认可以访问软件包索引后重试。" >&2; exit 1; }; fi

up: $(READY)
	@exec $(BIN)/python -m onebox up

up-split: $(READY)
	@exec $(BIN)/python -m onebox up --split

test: $(READY)
	$(BIN)/python -m pytest -q -n $(JOBS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m onebox openapi --check
	$(BIN)/python -m pytest -q -n $(JOBS)

COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --prerelease=if-necessary-or-explicit \
	--no-header --no-annotate pyproject.toml

# The first lock is everything, the second what the image needs of it; UPGRADE=--upgrade takes newer versions.
lock: $(READY)
	$(COMPILE) $(UPGRADE) --all-extras -o requirements.lock
	$(COMPILE) --constraint requirements.lock -o deploy/requirements.lock

openapi: $(READY)
	$(BIN)/python -m onebox openapi
	$(BIN)/python -m contracts.schemas

RULES := docs/spectral

$(RULES)/node_modules/.package-lock.json: $(RULES)/package-lock.json
	npm ci --prefix $(RULES)

lint-openapi: $(RULES)/node_modules/.package-lock.json
	$(RULES)/node_modules/.bin/spectral lint --ruleset $(RULES)/.spectral.yaml --fail-severity hint docs/openapi.json

fmt: $(READY)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
