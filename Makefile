# Targets: build test demo images bench lint docs clean. Everything that is made lies in out/.

GO ?= go
ARCH ?= $(shell $(GO) env GOARCH)
# CERTS is the bundle of CA certificates that goes into the executor image.
CERTS ?= /etc/ssl/certs/ca-certificates.crt
# IMAGE names the executor image in out/executor.tar; with PUSH=1 it is pushed there, too.
IMAGE ?= hako/executor:latest
# EPOCH is the time of every file in the executor image: that of the last commit.
EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
TESTFLAGS ?=
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2

export CGO_ENABLED = 0

.PHONY: build test demo images bench lint docs clean

build:
	$(GO) build -trimpath -ldflags "-s -w" -o out/hako ./cmd/hako

# Tests that need more than Go skip and say what they miss.
test:
	$(GO) test $(TESTFLAGS) -timeout 60m ./...

demo:
	$(GO) run ./demo

# The executor image, built by hako itself.
images: build
	rm -rf out/context && mkdir -p out/context/kaniko/ssl/certs out/context/kaniko/.docker out/context/etc
	GOARCH=$(ARCH) $(GO) build -trimpath -ldflags "-s -w" -o out/context/kaniko/executor ./cmd/hako
	@test -s $(CERTS) || { echo "no CA certificates at $(CERTS); install ca-certificates or set CERTS=FILE" >&2; exit 1; }
	cp $(CERTS) out/context/kaniko/ssl/certs/ca-certificates.crt
	cp images/executor/nsswitch.conf out/context/etc/nsswitch.conf
	chmod 755 out/context/etc out/context/kaniko/ssl out/context/kaniko/ssl/certs out/context/kaniko/executor
	chmod 644 out/context/etc/nsswitch.conf out/context/kaniko/ssl/certs/ca-certificates.crt
	chmod 777 out/context/kaniko out/context/kaniko/.docker
	find out/context -exec touch -h -d @$(EPOCH) {} +
	out/hako build out/context -f images/executor/Dockerfile --log-format=text --platform linux/$(ARCH) \
	  --tar-path out/executor.tar -t $(IMAGE) $(if $(PUSH),,--no-push)

bench:
	$(GO) run ./test/bench

lint:
	@unformatted=$$(gofmt -l cmd internal demo test); test -z "$$unformatted" || { echo "gofmt changes: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# What is generated: the flag reference and the list of linked packages.
docs:
	$(GO) test ./internal/cli -run TestReference -update
	$(GO) test ./internal/archtest -run TestLinkedPackages -update

clean:
	rm -rf out
