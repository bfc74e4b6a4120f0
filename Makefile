# make help lists what there is. Nothing needs to be installed by hand: the tools of the build are pinned in
# tools/go.mod, tools/package.json and tools/mcp/package.json and are built into bin/ or installed beside these files
# when a target first needs them; what the tests need of the system is installed or named by tools/setup.sh.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO ?= go
# Where git cannot tell the commit (an archive, a clone of another user), the build must not ask for it.
ifeq ($(findstring -buildvcs,$(GOFLAGS)),)
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=$(if $(shell git rev-parse -q --verify HEAD 2>/dev/null),auto,false))
endif

# The branch or commit that the contract must stay compatible with.
BASE ?= $(shell for b in main origin/main HEAD; do git rev-parse -q --verify "$$b" >/dev/null 2>&1 && echo "$$b" && break; done)
# Which packages, for test and bench: make test PKG=./internal/engine/...
PKG ?= ./...
# The browser's tests take longest, and those of the whole service second: they begin early, and the others fill in beside them.
EARLY := ./internal/test/web ./cmd/... ./internal/test/e2e
# More arguments for go test: make test ARGS='-run TestCancel -v'
ARGS ?=
# How long each fuzz target runs.
FUZZTIME ?= 10s
# make cover COVER_GOAL=90 fails where a room is below.
COVER_GOAL ?= 0

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ── build ────────────────────────────────────────────────────────────────────────────────────────────────────────

.PHONY: build
build: ## build the programs into bin/
	@mkdir -p bin
	$(GO) build -o bin/ ./cmd/...

.PHONY: sdk
sdk: node_modules/.package-lock.json ## compile the TypeScript SDK into sdk/typescript/dist
	@rm -rf sdk/typescript/dist
	node_modules/.bin/tsc -p sdk/typescript

.PHONY: web
web: node_modules/.package-lock.json ## build the web UI into web/dist, which is committed
	cd web && ../node_modules/.bin/tsc -p tsconfig.json && ../node_modules/.bin/vite build --logLevel warn
	@node web/size.mjs web/dist

.PHONY: demo
demo: build ## see it work: a service, a host, a live command, a cancel; ends by itself
	@$(GO) build -o bin/ ./internal/test/demo
	@bin/demo

.PHONY: run
run: build ## a service with a host to play with, until Ctrl-C
	@$(GO) build -o bin/ ./internal/test/demo
	@bin/demo -stay

# ── tests ────────────────────────────────────────────────────────────────────────────────────────────────────────

.PHONY: setup
setup: ## install what the tests need of the system, or say what is missing
	@tools/setup.sh

# SQLite is C that was translated to Go, six times as slow under the detector, and has locks of its own; what it is called
# with is ours, and watched.
RACE := -race -gcflags=modernc.org/...=-race=false

.PHONY: test
test: setup bin/tools/grpcurl node_modules/.package-lock.json ## all tests, with the race detector
# The detector has a program with other threads wait for a second before it exits: with each of the many that tests run.
	GORACE=atexit_sleep_ms=0 $(GO) test $(RACE) -p 2 -timeout 15m $(ARGS) $(if $(filter ./...,$(PKG)),$(EARLY)) $(PKG)

.PHONY: cover
cover: setup bin/tools/grpcurl node_modules/.package-lock.json ## coverage per room, over unit, integration and transcript tests together
	@rm -rf cover && mkdir -p cover/data
# go test gives each test a GOCOVERDIR of its own and throws it away; -exec puts ours back, for the programs that tests
# start, and -test.gocoverdir makes the tests themselves write there too.
	$(GO) test -count=1 -p 2 -timeout 10m -coverpkg=./cmd/...,./internal/...,./pkg/... -exec 'env GOCOVERDIR=$(CURDIR)/cover/data' \
		$(ARGS) $(PKG) -args -test.gocoverdir=$(CURDIR)/cover/data >cover/tests.txt 2>&1 || { grep -v 'no test files' cover/tests.txt; exit 1; }
	@$(GO) tool covdata textfmt -i=cover/data -o=cover/profile.txt
	@$(GO) run ./internal/test/cover -goal $(COVER_GOAL) cover/profile.txt

.PHONY: bench
bench: setup ## the benchmarks, side by side with what they are measured against
	$(GO) test -run '^$$' -bench . -benchmem -p 1 -timeout 30m $(ARGS) $(PKG) | grep -v -e 'no test files' -e '^PASS$$' -e '^ok .*\[no tests to run\]'

# The last commit that had one administrator and no rules.
BASE_WITHOUT_GUARDS ?= f5d9456

.PHONY: bench-guards
bench-guards: setup ## what identity, policy and audit add to an Execute, against a build without
	rm -rf bin/base && mkdir -p bin/base
	git archive $(BASE_WITHOUT_GUARDS) | tar -x -C bin/base
	cd bin/base && $(GO) build -o ../telexecd-base ./cmd/telexecd
	rm -rf bin/base
	$(GO) test -run '^$$' -bench '^BenchmarkGuards$$' -benchtime 500x -timeout 20m $(ARGS) ./internal/test/bench -args -bench.base '$(CURDIR)/bin/telexecd-base'

.PHONY: chaos
chaos: setup ## everything breaks at random, and no command may be lost; CHAOS_SEED=N repeats a run
	$(GO) test -count=1 -v -timeout 40m -run '^TestChaos$$' ./internal/test/chaos -args -chaos.full $(ARGS)

.PHONY: bench-many
bench-many: setup ## 1,000 durable commands at once on one sshd, and a kill -9 in their middle
	$(GO) test -count=1 -v -timeout 30m -run '^TestMany$$' ./internal/test/chaos -args -chaos.many 1000 -chaos.seconds 60 $(ARGS)

.PHONY: bench-cancel
bench-cancel: setup ## 320 cancels of mixed trees, measured on the host
	$(GO) test -count=1 -v -timeout 30m -run '^TestCancels$$' ./internal/test/chaos -args -chaos.cancels 320 $(ARGS)

.PHONY: bench-web
bench-web: setup node_modules/.package-lock.json ## what people see of the web UI in time: lines, cancels, 1 GB of output
	$(GO) test -count=1 -v -timeout 90m -run '^TestWeb$$/^(latency|cancel|shared|big)$$' ./internal/test/web -args -web.strict -web.big 1000000000 $(ARGS)

.PHONY: screenshots
screenshots: setup node_modules/.package-lock.json ## the pages of the web UI, dark and light, into bin/screenshots
	@$(GO) test -count=1 -timeout 10m -run '^TestWeb$$/^look$$' ./internal/test/web -args -web.shots '$(CURDIR)/bin/screenshots' $(ARGS)
	@ls bin/screenshots/*.png

.PHONY: bench-socket
bench-socket: setup ## 500 WebSockets on one command with one slow reader, and 2,000 that only stand there
	$(GO) test -count=1 -v -timeout 30m -run '^TestSockets$$' ./internal/test/bench -args -bench.socket.watchers 500 -bench.socket.idle 2000 -bench.socket.stalled 500 -bench.socket.settle 150s $(ARGS)

.PHONY: bench-task
bench-task: setup ## simple calls about tasks, with 1,000 and with 100,000 of them in the store
	$(GO) test -count=1 -v -timeout 30m -run '^TestTasks$$' ./internal/test/bench -args -bench.task.history 100000 -bench.task.calls 1000 $(ARGS)

.PHONY: bench-session
bench-session: setup ## terminals: echo of a key beside ssh, 10 s of yes with a viewer who does not read, late viewers, cancels
	$(GO) test -count=1 -v -timeout 10m -run '^TestSessions$$' ./internal/test/bench -args -bench.session.full -bench.session.flood 10s -bench.session.keys 1000 -bench.session.rounds 20 $(ARGS)

.PHONY: mcp-check
mcp-check: setup tools/mcp/node_modules/.package-lock.json ## telexec-mcp against the MCP Inspector and the conformance suite
	$(GO) test -count=1 -v -timeout 10m $(ARGS) ./internal/test/mcpcheck

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (10s)
	@for dir in $$(grep -rl '^func Fuzz' --include='*_test.go' cmd internal pkg | xargs -rn1 dirname | sort -u); do \
		for target in $$($(GO) test -list '^Fuzz' "./$$dir" | grep '^Fuzz'); do \
			echo "$$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$dir"; \
		done; \
	done

# ── checks ───────────────────────────────────────────────────────────────────────────────────────────────────────

.PHONY: check
check: lint check-tidy check-proto check-gen check-openapi check-apipage check-sdk check-web ## everything a change must pass besides the tests

.PHONY: lint
lint: bin/tools/staticcheck ## gofmt, vet, staticcheck, the rooms' import rules, the shell scripts
	@bad=$$(gofmt -l cmd gen internal pkg); [ -z "$$bad" ] || { echo "gofmt would change:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	bin/tools/staticcheck ./...
	$(GO) test ./internal/test/archtest
	@for f in .ci/run tools/*.sh; do bash -n "$$f"; done
	@! command -v shellcheck >/dev/null || shellcheck .ci/run tools/*.sh

.PHONY: check-tidy
check-tidy:
	$(GO) mod tidy -diff
	cd tools && $(GO) mod tidy -diff

.PHONY: check-proto
check-proto: bin/tools/buf bin/proto/.laid
	bin/tools/buf format --diff --exit-code proto
	bin/tools/buf lint
	@if [ -n "$(BASE)" ] && git cat-file -e '$(BASE):proto' 2>/dev/null; then \
		echo 'bin/tools/buf breaking --against $(BASE)'; \
		rm -rf bin/against && mkdir -p bin/against/bin; \
		git archive '$(BASE)' proto buf.yaml | tar -x -C bin/against; cp -r bin/proto bin/against/bin/; \
		bin/tools/buf breaking --against bin/against; \
	fi

.PHONY: check-gen
check-gen: $(addprefix bin/tools/,buf protoc-gen-go protoc-gen-go-grpc protoc-gen-grpc-gateway protoc-gen-openapiv3) bin/proto/.laid node_modules/.package-lock.json
	tools/gen.sh check

.PHONY: check-openapi
check-openapi: tools/node_modules/.package-lock.json
	@tools/node_modules/.bin/validate-api gen/openapi/telexec.openapi.json >bin/openapi.txt || { cat bin/openapi.txt; exit 1; }
	@echo 'gen/openapi/telexec.openapi.json is valid OpenAPI 3.1'

.PHONY: check-apipage
check-apipage: node_modules/.package-lock.json
	tools/apipage.sh check

.PHONY: check-sdk
check-sdk: node_modules/.package-lock.json
	node_modules/.bin/tsc -p sdk/typescript --noEmit
	node_modules/.bin/tsc -p sdk/typescript/test

# The same sources must give the same files, or nobody could tell what is in them.
.PHONY: check-web
check-web: node_modules/.package-lock.json
	cd web && ../node_modules/.bin/tsc -p tsconfig.json
	node_modules/.bin/tsc -p internal/test/web
	@rm -rf bin/web && cd web && ../node_modules/.bin/vite build --logLevel warn --outDir ../bin/web --emptyOutDir
	@node web/size.mjs bin/web
	@diff -r web/dist bin/web || { echo 'web/dist is not what web/src gives: make web'; exit 1; }

.PHONY: golangci
golangci: ## golangci-lint with .golangci.yml; optional, and not installed by make
	@command -v golangci-lint >/dev/null || { echo 'golangci-lint is not installed: https://golangci-lint.run/welcome/install/'; exit 1; }
	golangci-lint run

# ── generated code and tools ─────────────────────────────────────────────────────────────────────────────────────

.PHONY: gen
gen: $(addprefix bin/tools/,buf protoc-gen-go protoc-gen-go-grpc protoc-gen-grpc-gateway protoc-gen-openapiv3) bin/proto/.laid node_modules/.package-lock.json ## generate gen/ and the types of the SDK from proto/
	tools/gen.sh write

.PHONY: apipage
apipage: node_modules/.package-lock.json ## copy what /docs shows of Swagger UI from its npm package
	tools/apipage.sh write

bin/proto/.laid: tools/protos.sh tools/protos.sum
	@tools/protos.sh

package-buf                     := github.com/bufbuild/buf/cmd/buf
package-grpcurl                 := github.com/fullstorydev/grpcurl/cmd/grpcurl
package-protoc-gen-go           := google.golang.org/protobuf/cmd/protoc-gen-go
package-protoc-gen-go-grpc      := google.golang.org/grpc/cmd/protoc-gen-go-grpc
package-protoc-gen-grpc-gateway := github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway
package-protoc-gen-openapiv3    := github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv3
package-staticcheck             := honnef.co/go/tools/cmd/staticcheck

# One tool at a time, so that a target pays only for what it uses (buf alone takes minutes the first time).
bin/tools/%: tools/go.mod tools/go.sum
	@mkdir -p bin/tools
	cd tools && GOBIN=$(CURDIR)/bin/tools $(GO) install $(package-$*)
	@touch $@

tools/node_modules/.package-lock.json: tools/package.json tools/package-lock.json
	cd tools && npm ci --silent
	@touch $@

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --silent --ignore-scripts
	@touch $@

# With a node of its own, for these need a newer one than most systems have. Nothing of it needs an install script.
tools/mcp/node_modules/.package-lock.json: tools/mcp/package.json tools/mcp/package-lock.json
	cd tools/mcp && npm ci --silent --ignore-scripts
	@touch $@

.PHONY: clean
clean: ## remove what was built
	rm -rf bin cover tools/node_modules tools/mcp/node_modules sdk/typescript/dist
