# Prism's tasks. `make help` lists them; `make run` is the one to begin with.
#
# Everything is set up where it is missing by stack/setup, which says what it does. Nothing is installed outside this
# folder but Debian packages (only as root) and the package managers' caches. CARGO_TARGET_DIR is honoured.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
# Parts run one after the other: two cores are soon full, and mixed output is hard to read.
.NOTPARALLEL:

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
BUF := clients/conformance/node/node_modules/.bin/buf
# What `make run` passes on, for example: make run SERVE="--listen 127.0.0.1:9000 --embedded memory"
SERVE ?=
# Which servers `make stack-up` and the others mean; all when empty.
SERVERS ?=
# Inputs that `make fuzz` gives each target (a thousand take a few seconds), and the seed that repeats a run.
FUZZ_ITERATIONS ?= 200000
FUZZ_SEED ?= $(shell date +%s)

# Random lives of the log that `make sim` tries, and the first seed; crash states that `make crash-states` tries.
SEED ?= 1
COUNT ?= 10000
STATES ?= 10000000
# Kills under load that `make crash` does, and further options of clients/crash/run.
CYCLES ?= 500
CRASH ?=
# Stores (postgres,redis,nats) and rounds of kills of `make chaos`, and its calls of which a tenth is given up.
STORE ?= postgres,redis,nats
ROUNDS ?= 20
CALLS ?= 1000000
# Further options of bench/stores.
BENCH_STORES ?=
# Power cuts of the whole gateway that `make power` does.
CUTS ?= 100
# How often `make repeat` runs each test, and further options of stack/repeat.
TIMES ?= 20
REPEAT ?=
# Which of the log's seeded bugs `make mutants-wal` tries: numbers or words, all when empty.
MUTANTS ?=

.PHONY: help
help: ## This list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: setup
setup: ## Install what building and testing need, where it is missing
	@stack/setup test

.PHONY: run
run: ## Build the gateway and start it on 127.0.0.1:8980
	@stack/setup run
	$(CARGO) build --release --locked -p prism-core
	exec $(TARGET)/release/prism serve $(SERVE)

.PHONY: dist
dist: ## Build the gateway to be handed on: target/dist/prism, stripped, and prism.debug with its symbols
	$(CARGO) build --release --locked -p prism-core
	stack/dist $(TARGET)/release/prism $(TARGET)/dist

.PHONY: stack-up stack-status stack-down
stack-up: ## Start PostgreSQL, Redis, NATS and Kafka on loopback (SERVERS="postgres redis" for some)
	@stack/servers up $(SERVERS)

stack-status: ## What runs of them, and where
	@stack/servers status $(SERVERS)

stack-down: ## Stop them; their data stays (stack/servers wipe removes it)
	@stack/servers down $(SERVERS)

.PHONY: check
check: ## Quick: format, clippy, docs (warnings are errors), unit tests
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked
	$(CARGO) test --workspace --lib --bins --locked
	clients/python/run --quick

.PHONY: test
test: ## Everything, from a clean clone; fails if any part fails
	@stack/test

.PHONY: suites
suites: ## The behaviour suite of each API on each server, at every durability, with one shard and two (make test has one cell of each)
	@stack/setup test
	$(CARGO) test --locked -p prism-core --test gateway -- --include-ignored postgres:: redis:: nats:: kafka:: queue_postgres:: pubsub_postgres::

.PHONY: repeat
repeat: ## Tests with processes, clocks or disks, TIMES=20 times beside a load on all cores (REPEAT="--tests gateway")
	stack/repeat --times $(TIMES) $(REPEAT)

.PHONY: proto
proto: setup ## Lint proto/
	$(BUF) lint proto && $(BUF) format proto --path proto/prism --diff --exit-code

.PHONY: conformance
conformance: setup ## Python, Go and Node clients, curl and h2spec against the real server
	$(CARGO) build --locked -p prism-core -p prism-loadgen
	clients/conformance/run

.PHONY: clients
clients: setup ## The Python client: types, style, tests against real gateways, its wheel in another environment
	$(CARGO) build --locked -p prism-core
	clients/python/run

.PHONY: first-steps
first-steps: ## From a clean clone to the first Put and Get: README's first part, word for word, and its time
	@stack/setup run
	stack/first-steps

.PHONY: bench
bench: ## Criterion benches, then this gateway beside other stacks; takes a while
	@stack/setup bench
	$(CARGO) bench --workspace --locked
	$(CARGO) run --release --locked -p prism-bench

.PHONY: bench-stores
bench-stores: ## The gateway on PostgreSQL, Redis and NATS beside their plain clients, Queue and PubSub (BENCH_STORES="--only redis")
	@stack/setup test
	$(CARGO) build --release --locked -p prism-core -p prism-loadgen -p prism-bench
	bench/stores $(BENCH_STORES)

.PHONY: bench-wal
bench-wal: ## Our log beside other logs and the disk's floor (BENCH_WAL="…" passes options on); half an hour
	@stack/setup bench-wal
	ROCKSDB_LIB_DIR="$$(dirname "$$(cc -print-file-name=librocksdb.so)")" ROCKSDB_INCLUDE_DIR=/usr/include \
		$(CARGO) run --release --locked --manifest-path bench/wal-peers/Cargo.toml -- $(BENCH_WAL)

.PHONY: load
load: ## A bounded load on a running gateway (LOAD="…" passes options on)
	$(CARGO) run --release --locked -p prism-loadgen -- $(LOAD)

.PHONY: fuzz
fuzz: ## The fuzz targets, FUZZ_ITERATIONS inputs each (default 200,000)
	PRISM_FUZZ_ITERATIONS=$(FUZZ_ITERATIONS) PRISM_FUZZ_SEED=$(FUZZ_SEED) \
		$(CARGO) test --release --locked -p prism-codec --test fuzz_brief -- --nocapture

.PHONY: crash
crash: ## Kill, stop and starve the real server under load, then check (CYCLES=… kills, CRASH="--only kill --seed 7")
	$(CARGO) build --locked -p prism-core -p prism-loadgen
	clients/crash/run --cycles $(CYCLES) $(CRASH)

.PHONY: power
power: ## Cut the power of the whole gateway under load, then check (CUTS=…; needs root and loop devices)
	$(CARGO) build --locked -p prism-core -p prism-loadgen
	clients/crash/run --only power --cuts $(CUTS) $(CRASH)

.PHONY: chaos
chaos: ## Kill servers and the gateways on them in turn under load, then cancel calls (STORE=postgres|redis|nats ROUNDS=… CALLS=…)
	$(CARGO) build --locked -p prism-core -p prism-loadgen
	clients/crash/run --only chaos,log,storm --stores $(STORE) --rounds $(ROUNDS) --calls $(CALLS) --message-calls $(CALLS) $(CRASH)

.PHONY: sim
sim: ## Random lives of the log by seed (SEED=… COUNT=…); a failure names its seed
	WAL_SIM_SEED=$(SEED) WAL_SIM_COUNT=$(COUNT) $(CARGO) test --locked -p prism-wal --test random -- --nocapture

.PHONY: crash-states
crash-states: ## Crash states of short sequences of the log (STATES=…, default 10,000,000; hours)
	WAL_CRASH_STATES=$(STATES) $(CARGO) test --locked -p prism-wal --test crash_states -- --nocapture

.PHONY: mutants-wal
mutants-wal: ## Seed bugs into a copy of the log, one at a time; its tests must catch each
	wal/mutants/run.py $(MUTANTS)

.PHONY: clean
clean: ## Remove what was built, generated and installed into this folder
	$(CARGO) clean
	rm -rf .venv .tools fuzz-out clients/conformance/*/gen clients/conformance/node/node_modules
