# Every target has one comment, which `make help` shows.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# Without this tag kustomize imports Go's plugin package, which makes every
# binary 20 MB larger.
TAGS := kustomize_disable_go_plugin_support
export GOFLAGS := -buildvcs=false -tags=$(TAGS)
export CGO_ENABLED := 0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: keeper
keeper: ## build the keeper, which the daemon carries inside
	go build -trimpath -ldflags '-s -w' -o runtime/logs/keeper/shoal-keeper ./cmd/shoal-keeper

.PHONY: build
build: keeper ## build bin/shoal
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/shoal ./cmd/shoal

.PHONY: examples
examples: ## build the program that builds the images of examples-repo
	go build -trimpath -o bin/hello ./internal/images/hello
	go build -trimpath -o bin/examples ./internal/images/examples

.PHONY: setup
setup: ## install what Shoal runs on (Debian, Ubuntu)
	scripts/setup.sh run

.PHONY: run
run: setup build examples ## run the examples on this machine, as root
	scripts/run.sh

.PHONY: demo
demo: build examples ## three nodes on this machine: one dies, its pods come back elsewhere; as root
	scripts/setup.sh test
	scripts/demo.sh

.PHONY: reset
reset: ## remove every trace of make run
	[ ! -x bin/shoal ] || bin/shoal reset --yes --containerd-address "$$(scripts/containerd.sh start)"
	scripts/containerd.sh stop
	rm -rf .run

.PHONY: test
test: ## run all tests but the long ones, as root
	scripts/setup.sh test
	$(MAKE) --no-print-directory keeper
	PATH="$$PATH:$(CURDIR)/bin" go test -timeout 20m $$(go list ./... | grep -v /e2e)
	PATH="$$PATH:$(CURDIR)/bin" go test -timeout 25m -tags=$(TAGS),e2e -p 2 -count=1 ./e2e/...

.PHONY: e2e-full
e2e-full: ## run the end-to-end tests, long ones included, as root
	scripts/setup.sh test
	$(MAKE) --no-print-directory keeper
	PATH="$$PATH:$(CURDIR)/bin" SHOAL_E2E=full go test -timeout 80m -tags=$(TAGS),e2e -p 2 -count=1 -v ./e2e/...

.PHONY: sim
sim: ## run fleets in virtual time: 2,000 seeds of the pure cores, 200 of whole fleets
	SHOAL_SEEDS=2000 go test -count=1 -timeout 60m -run 'Seeds|Planted' ./gossip ./gossip/consensus
	SHOAL_RUNS=200 go test -count=1 -timeout 60m ./internal/sim

.PHONY: race
race: ## run the tests that start no processes with the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race -timeout 20m ./api/... ./scheduler/... ./policy ./internal/loop ./runtime ./daemon/... ./gitsync/manifest

.PHONY: golden
golden: ## rewrite golden files; review the diff
	go test ./scheduler ./scheduler/place ./internal/sim -run Scenarios -update
	go test ./gitsync/manifest -run Golden -update
	go test ./gitsync -run 'Corpus|Layout' -update
	go test ./cmd/shoal -run GoldenPlans -update

.PHONY: props
props: ## run the property tests with 20,000 cases each
	go test ./scheduler ./scheduler/place ./policy ./runtime -rapid.checks=20000 -timeout 60m

.PHONY: fmt
fmt: ## format the code
	gofmt -w $$(git ls-files '*.go')

.PHONY: check
check: ## check format, lint, modules and house rules
	test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	go mod tidy -diff
	go vet ./...
	go vet -tags=$(TAGS),e2e ./e2e/...
	go test ./internal/archtest
	go tool -modfile=tools/go.mod golangci-lint run ./...

.PHONY: bench-onenode
bench-onenode: keeper ## measure one node: start, roll, restart, memory; JSON lines, as root
	scripts/setup.sh test
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/shoal ./cmd/shoal
	SHOAL_BIN=$(CURDIR)/bin/shoal go test -timeout 40m -tags=$(TAGS),e2e -count=1 -run '^$$' -bench OneNode -benchtime 1x ./e2e/onenode | grep --line-buffered '^{'

.PHONY: bench-fleet
bench-fleet: keeper ## measure fleets: deaths, splits, pushes, what idling costs; JSON lines, as root, half an hour
	scripts/setup.sh test
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/shoal ./cmd/shoal
	SHOAL_BIN=$(CURDIR)/bin/shoal go test -timeout 80m -tags=$(TAGS),e2e -count=1 -run '^$$' -bench Fleet -benchtime 1x ./e2e/fleet | grep --line-buffered '^{'
	go test -timeout 30m -count=1 -run '^$$' -bench BigFleet -benchtime 1x ./gossip | grep --line-buffered '^{'

.PHONY: bench-scheduler
bench-scheduler: ## measure placing in memory on 100 to 10,000 nodes, on one core; JSON lines
	GOMAXPROCS=1 go test -timeout 30m -count=1 -run '^$$' -bench Place -benchtime 1x ./scheduler/place | grep --line-buffered '^{'
	GOMAXPROCS=1 go test -timeout 30m -count=1 -run '^$$' -bench Steady -benchtime 1x ./scheduler | grep --line-buffered '^{'

.PHONY: bench-runtime
bench-runtime: keeper ## measure pods: start and stop beside bare containerd, what 110 cost, how usage is measured; JSON lines, as root
	scripts/setup.sh test
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/shoal ./cmd/shoal
	go test -timeout 20m -count=1 -run '^$$' -bench Runtime -benchtime 1x ./runtime/agent | grep --line-buffered '^{'
	SHOAL_BIN=$(CURDIR)/bin/shoal go test -timeout 20m -tags=$(TAGS),e2e -count=1 -run '^$$' -bench Runtime -benchtime 1x ./e2e/onenode | grep --line-buffered '^{'

.PHONY: bench
bench: bench-onenode bench-fleet bench-scheduler bench-runtime ## run all benchmarks

.PHONY: fuzz
fuzz: ## run each fuzz target for 30 seconds
	for target in $$(grep -rhoE --include='*_test.go' 'func (Fuzz[A-Za-z0-9]+)' . | awk '{print $$2}' | sort -u); do \
	  dir=$$(dirname $$(grep -rlE --include='*_test.go' "func $$target\\(" . | head -n 1)); \
	  go test $$dir -run '^$$' -fuzz "^$$target\$$" -fuzztime 30s; \
	done
