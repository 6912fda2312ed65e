package sentry

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/cpuid"
	"gvisor.dev/gvisor/pkg/memutil"
	"gvisor.dev/gvisor/pkg/rand"
	"gvisor.dev/gvisor/pkg/sentry/devices/memdev"
	"gvisor.dev/gvisor/pkg/sentry/devices/ttydev"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/cgroup2fs"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/dev"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/devpts"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/devtmpfs"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/erofs"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/host"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/mqfs"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/overlay"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/proc"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/sys"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/tmpfs"
	"gvisor.dev/gvisor/pkg/sentry/inet"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/loader"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	_ "gvisor.dev/gvisor/pkg/sentry/platform/ptrace"  // platform "ptrace"
	_ "gvisor.dev/gvisor/pkg/sentry/platform/systrap" // platform "systrap"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
	"gvisor.dev/gvisor/pkg/sentry/socket/hostinet"
	_ "gvisor.dev/gvisor/pkg/sentry/socket/netlink"       // AF_NETLINK
	_ "gvisor.dev/gvisor/pkg/sentry/socket/netlink/route" // NETLINK_ROUTE
	_ "gvisor.dev/gvisor/pkg/sentry/socket/unix"          // AF_UNIX
	_ "gvisor.dev/gvisor/pkg/sentry/syscalls/linux"       // the system call tables
	"gvisor.dev/gvisor/pkg/sentry/time"
	"gvisor.dev/gvisor/pkg/sentry/usage"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/sighandling"
)

// box is the kernel in the child with everything that outlives a single step.
type box struct {
	kernel *kernel.Kernel
	// creds are those of the kernel itself: root with all capabilities.
	creds *auth.Credentials
	// ctx belongs to the kernel and never ends; what ends are the steps.
	ctx context.Context //nolint:containedctx // gVisor's context is a carrier of values, not of cancellation
	// uppers keeps the file data of all writable trees.
	uppers *pgalloc.MemoryFile
	lowers lowers
	caches caches
	// builder is the builder's process ID.
	builder int
}

// newBox boots the kernel and confines the process. It may be called once in a process: gVisor keeps the platform, CPU features and
// signal handlers in process-wide state. data is the file for the uppers, or nil for memory; newBox takes it over.
func newBox(req *bootRequest, data *os.File) (*box, error) {
	cpuid.Initialize()
	seccheck.Initialize()
	if err := rand.Init(); err != nil {
		return nil, fmt.Errorf("seed random numbers: %w", err)
	}
	if err := usage.Init(); err != nil {
		return nil, fmt.Errorf("start memory accounting: %w", err)
	}
	if req.MemoryTotal > 0 {
		usage.MinimumTotalMemoryBytes, usage.MaximumTotalMemoryBytes = req.MemoryTotal, req.MemoryTotal
	}
	network := hostinet.NewStack()
	if err := network.Configure(false); err != nil {
		return nil, fmt.Errorf("set up the network: %w", err)
	}
	k, err := newKernel(req.Platform, network)
	if err != nil {
		return nil, err
	}
	if err := registerFilesystems(k); err != nil {
		return nil, err
	}
	if err := sighandling.IgnoreChildStop(); err != nil {
		return nil, fmt.Errorf("ignore stopped children: %w", err)
	}
	b := &box{kernel: k, creds: auth.NewRootCredentials(k.RootUserNamespace()), ctx: supervisor{Context: k.SupervisorContext()}}
	b.lowers.byID, b.caches.byID = map[string]*lower{}, map[string]*cache{}
	if b.uppers, err = upperMemory(data); err != nil {
		return nil, err
	}
	if err := b.startPause(); err != nil {
		return nil, fmt.Errorf("start the first process: %w", err)
	}
	return b, confineLate(k)
}

func newKernel(platformName string, network *hostinet.Stack) (*kernel.Kernel, error) {
	constructor, err := platform.Lookup(platformName)
	if err != nil {
		return nil, fmt.Errorf("find platform %s: %w", platformName, err)
	}
	cores := runtime.GOMAXPROCS(-1)
	p, err := constructor.New(platform.Options{ApplicationCores: cores})
	if err != nil {
		return nil, fmt.Errorf("start platform %s: %w", platformName, err)
	}
	k := &kernel.Kernel{Platform: p, AllowSUID: true}
	mf, err := anonymousMemory()
	if err != nil {
		return nil, err
	}
	k.SetMemoryFile(mf)
	vdso, err := loader.PrepareVDSO(mf)
	if err != nil {
		return nil, fmt.Errorf("prepare the VDSO: %w", err)
	}
	keeper := kernel.NewTimekeeper()
	params := kernel.NewVDSOParamPage(mf, vdso.ParamPage.FileRange())
	keeper.SetClocks(time.NewCalibratedClocks(false), params)
	userns := auth.NewRootUserNamespace()
	err = k.Init(kernel.InitKernelArgs{
		FeatureSet:           cpuid.HostFeatureSet().Fixed(),
		Timekeeper:           keeper,
		RootUserNamespace:    userns,
		RootNetworkNamespace: inet.NewRootNamespace(network, &loopbackOnly{k}, userns),
		ApplicationCores:     uint(cores), //nolint:gosec // a count of CPUs
		Vdso:                 vdso,
		VdsoParams:           params,
		RootUTSNamespace:     kernel.NewUTSNamespace("localhost", "", userns),
		RootIPCNamespace:     kernel.NewIPCNamespace(userns),
		RootPIDNamespace:     kernel.NewRootPIDNamespace(userns),
		MaxFDLimit:           kernel.MaxFdLimit,
		Cgroup2FSInit:        cgroup2fs.NewFilesystem,
	})
	if err != nil {
		return nil, fmt.Errorf("start the kernel: %w", err)
	}
	return k, nil
}

// registerFilesystems makes every type that steps may mount themselves known to the kernel.
func registerFilesystems(k *kernel.Kernel) error {
	v := k.VFS()
	register := func(name string, t vfs.FilesystemType) {
		v.MustRegisterFilesystemType(name, t, &vfs.RegisterFilesystemTypeOptions{AllowUserMount: true, AllowUserList: true})
	}
	register(devpts.Name, &devpts.FilesystemType{})
	register(devtmpfs.Name, &devtmpfs.FilesystemType{})
	register(overlay.Name, &overlay.FilesystemType{})
	register(proc.Name, &proc.FilesystemType{})
	register(sys.Name, &sys.FilesystemType{})
	register(tmpfs.Name, &tmpfs.FilesystemType{})
	register(mqfs.Name, &mqfs.FilesystemType{})
	// A step must not mount these itself: EROFS takes a descriptor of the host by number.
	v.MustRegisterFilesystemType(erofs.Name, &erofs.FilesystemType{}, &vfs.RegisterFilesystemTypeOptions{})
	v.MustRegisterFilesystemType(dev.Name, &dev.FilesystemType{}, &vfs.RegisterFilesystemTypeOptions{})
	if err := errors.Join(memdev.Register(v), ttydev.Register(v)); err != nil {
		return fmt.Errorf("register devices: %w", err)
	}
	hostFS, err := host.NewFilesystem(v)
	if err != nil {
		return fmt.Errorf("register host files: %w", err)
	}
	k.SetHostMount(v.NewDisconnectedMount(hostFS, nil, &vfs.MountOptions{}))
	return nil
}

func anonymousMemory() (*pgalloc.MemoryFile, error) {
	fd, err := memutil.CreateMemFD("hako-memory", 0)
	if err != nil {
		return nil, fmt.Errorf("create memory: %w", err)
	}
	mf, err := pgalloc.NewMemoryFile(os.NewFile(uintptr(fd), "hako-memory"), pgalloc.MemoryFileOpts{})
	if err != nil {
		return nil, fmt.Errorf("set up memory: %w", err)
	}
	return mf, nil
}

// upperMemory puts the data of the uppers into data, so that the pages of big layers can be written back to a disk
// instead of counting as our memory. It returns nil, which tmpfs takes as the kernel's own memory, if data is nil.
func upperMemory(data *os.File) (*pgalloc.MemoryFile, error) {
	if data == nil {
		return nil, nil
	}
	mf, err := pgalloc.NewMemoryFile(data, pgalloc.MemoryFileOpts{
		DiskBackedFile: true, DecommitOnDestroy: true, DisableIMAWorkAround: true,
	})
	if err != nil {
		return nil, fmt.Errorf("set up the file of the uppers: %w", err)
	}
	return mf, nil
}
