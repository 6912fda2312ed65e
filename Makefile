# Targets: build test demo images bench lint docs clean. Everything that is made lies in out/.

GO ?= go
ARCH ?= $(shell $(GO) env GOARCH)
OUT ?= out
# CERTS is the bundle of CA certificates that goes into the images; BUSYBOX the static busybox, of architecture ARCH, of the image debug.
CERTS ?= /etc/ssl/certs/ca-certificates.crt
BUSYBOX ?= /bin/busybox
# REPOSITORY is where the images' names begin, and where they are pushed to with PUSH=1; VERSION=v1.0 makes names like executor:v1.0-debug.
REPOSITORY ?= hako
VERSION ?=
# EPOCH is the time of every file in the images: that of the last commit.
EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
TESTFLAGS ?=
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2

export CGO_ENABLED = 0

image_names = executor slim nonroot warmer debug
images = $(addprefix image-,$(image_names))

.PHONY: build test demo images $(images) context bench lint docs clean

build:
	$(GO) build -trimpath -ldflags "-s -w" -o $(OUT)/hako ./cmd/hako

# Tests that need more than Go skip and say what they miss.
test:
	$(GO) test $(TESTFLAGS) -timeout 60m ./...

demo:
	$(GO) run ./demo

# The images, built by hako itself: executor, and its variants slim, nonroot, debug; warmer. Each is also a target, as image-debug.
images: $(images)

context: build
	GOARCH=$(ARCH) $(GO) build -trimpath -ldflags "-s -w" -o $(OUT)/program ./cmd/hako
	images/prepare $(OUT)/context $(OUT)/program $(CERTS) $(if $(filter debug,$(wanted)),$(BUSYBOX),-) $(EPOCH)

# The images that are wanted: what the command line names, or all.
wanted = $(or $(patsubst image-%,%,$(filter image-%,$(MAKECMDGOALS))),$(image_names))
# The tag: latest, v1.0, debug, v1.0-debug.
tag = $(or $(subst $() ,-,$(strip $(VERSION) $(filter-out executor warmer,$(1)))),latest)

$(images): image-%: context
	$(OUT)/hako build $(OUT)/context -f images/Dockerfile --target $* --log-format=text --platform linux/$(ARCH) \
	  --source-date-epoch $(EPOCH) --rewrite-timestamp --tar-path $(OUT)/$*.tar \
	  -t $(REPOSITORY)/$(if $(filter warmer,$*),warmer,executor):$(call tag,$*) $(if $(PUSH),,--no-push)

bench:
	$(GO) run ./test/bench
	$(GO) run ./test/bench -rebuild

lint:
	@unformatted=$$(gofmt -l cmd internal demo test); test -z "$$unformatted" || { echo "gofmt changes: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# What is generated: the flag reference and the list of linked packages.
docs:
	$(GO) test ./internal/cli -run "TestReference|TestMigration" -update
	$(GO) test ./internal/archtest -run TestLinkedPackages -update

clean:
	rm -rf $(OUT)
