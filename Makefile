# `make setup` once, `make test` as often as you like; CONTRIBUTING.md says the rest.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup sources lint test quick docs reference fuzz chaos chaos-verify galera-rounds prune-worlds demo bench bench-tools bench-against bench-migrations clean
.DELETE_ON_ERROR:

# CPUCOUNT=1: uWSGI's build, run in parallel, at times links before its last object is there. Compiled once, programs
# start in half the time where Python may not write what it compiles.
setup: .venv/installed

.venv/installed: setup.cfg pyproject.toml Makefile bin/system-packages
	@bin/system-packages || test $$? -eq 3
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade uv setuptools
	CPUCOUNT=1 $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[glance,test,docs]'
	@rm -f .venv/sources
	@touch $@

# A strict editable install links the files it finds: a new file needs another one (about a second). What the build
# leaves beside them would go on naming the entry points of the first time.
sources: .venv/installed
	@find replicas middleware tools -type f ! -name '*.pyc' | sort >.venv/sources.now
	@cmp -s .venv/sources.now .venv/sources || { \
	    $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . && \
	    rm -rf .mypy_cache *.egg-info && mv .venv/sources.now .venv/sources; }

lint: sources
	$(BIN)/ruff check .
	$(BIN)/mypy --strict -p glance_replicas

# Files side by side, in as many processes as WORKERS; they wait more than they compute.
test: lint
	$(BIN)/pytest --numprocesses $(or $(WORKERS),3) --dist loadfile --no-loadscope-reorder

# About a minute on two cores, without root and without a server: rules, the directory, HTTP, SQLite.
quick: sources
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m "not services and not chaos and not slow"

# The documents as a site in build/docs, its first page index.html; a warning is an error.
docs: sources
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs/site . build/docs

# docs/reference/ and etc/glance-replicas.conf.sample, from the commands and the table of options.
reference: sources
	$(BIN)/python docs/site/reference.py
	$(BIN)/oslo-config-generator --config-file etc/oslo-config-generator.conf

# A million hostile inputs; INPUTS=N for another number, SEED=N for the same ones again.
fuzz: sources
	$(BIN)/uv pip install --quiet --python $(BIN)/python 'atheris>=3.0'
	$(BIN)/python tests/fuzzing/run.py $(if $(INPUTS),--inputs $(INPUTS)) $(if $(SEED),--seed $(SEED))

# 1000 times kill -9; SEED=N for the same choices again, ROUNDS=N for fewer.
chaos: sources
	PYTHONPATH=tests $(BIN)/python tests/cache/chaos.py --rounds $(or $(ROUNDS),1000) $(if $(SEED),--seed $(SEED))

# Random worlds for `replica prune`, other ones each time; WORLDS=N for another number.
prune-worlds: sources
	PRUNE_WORLDS=$(or $(WORLDS),20000) $(BIN)/pytest tests/removal/test_prune_worlds.py

# 200 times kill -9 of a verification that two machines share.
chaos-verify: sources
	PYTHONPATH=tests $(BIN)/python tests/verify/verify_chaos.py --rounds $(or $(ROUNDS),200) $(if $(SEED),--seed $(SEED))

# 1000 rounds from three nodes of a Galera cluster, some of which are killed or cut off; about 40 minutes.
galera-rounds: sources
	PYTHONPATH=tests $(BIN)/python tests/database/galera_rounds.py --rounds $(or $(ROUNDS),1000) $(if $(SEED),--seed $(SEED))

demo: sources
	KEEP=$(KEEP) $(BIN)/python demo/run.py

# About twenty minutes on a machine that does nothing else; docs/benchmarks.md says what is measured.
bench: sources
	@bin/bench-packages || test $$? -eq 3
	$(BIN)/python benchmarks/all.py

# This version and an earlier one in turns, part by part; about two hours on a machine that does nothing else. The earlier
# one is cloned to build/ and set up. SCALE=0.2 for a fifth of the sizes, ONLY="requests tools" for some parts.
bench-against: sources
	@bin/bench-packages || test $$? -eq 3
	$(BIN)/python benchmarks/versions/against.py $(or $(BASE),f6fe492) $(if $(SCALE),--scale $(SCALE)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	    $(if $(ONLY),--only $(ONLY))

# What each migration of our tables takes with a million rows; about three minutes.
bench-migrations: sources
	$(BIN)/python benchmarks/migrations.py $(if $(ROWS),--rows $(ROWS))

# Verification beside openssl and curl, and catalogues of a million locations; about ten minutes.
bench-tools: sources
	$(BIN)/python benchmarks/tools.py

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis demo/run
