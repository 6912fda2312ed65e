package sentry

import (
	"errors"
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/inet"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/socket/netfilter"
	"gvisor.dev/gvisor/pkg/sentry/socket/netstack"
	"gvisor.dev/gvisor/pkg/sentry/uniqueid"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/raw"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// Steps use the sockets of the host. A step without network gets a namespace of its own, with a TCP/IP stack that is
// gVisor's own and has one interface, the loopback, as runc gives to a container without network. Nothing of it ever
// reaches a descriptor of the host.

var errNetworkCapability = errors.New("the step's process cannot leave the network")

// loopbackOnly makes the network stacks of namespaces.
type loopbackOnly struct{ ids uniqueid.Provider }

var _ inet.NetworkStackCreator = (*loopbackOnly)(nil)

// CreateStack implements inet.NetworkStackCreator.
func (l *loopbackOnly) CreateStack() (inet.Stack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
		Clock: tcpip.NewStdClock(), HandleLocal: true, RawFactory: raw.EndpointFactory{}, DefaultIPTables: netfilter.DefaultLinuxTables,
	})
	if err := setLinuxDefaults(s); err != nil {
		return nil, err
	}
	err := s.CreateNICWithOptions(linux.LOOPBACK_IFINDEX, ethernet.New(loopback.New()), stack.NICOptions{Name: "lo", DeliverLinkPackets: true})
	if err != nil {
		return nil, fmt.Errorf("make the loopback interface: %s", err)
	}
	for _, addr := range []string{"127.0.0.1/8", "::1/128"} {
		if err := addAddress(s, netip.MustParsePrefix(addr)); err != nil {
			return nil, err
		}
	}
	return netstack.NewStack(s, l.ids.UniqueID()), nil
}

// setLinuxDefaults sets what gVisor's socket layer expects of a stack.
func setLinuxDefaults(s *stack.Stack) error {
	sack, buffers, ttl := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true), tcpip.DefaultTTLOption(netstack.DefaultTTL)
	for _, err := range []tcpip.Error{
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack),
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &buffers),
		s.SetNetworkProtocolOption(ipv4.ProtocolNumber, &ttl),
		s.SetNetworkProtocolOption(ipv6.ProtocolNumber, &ttl),
	} {
		if err != nil {
			return fmt.Errorf("set up TCP/IP: %s", err)
		}
	}
	return nil
}

// addAddress gives the loopback interface an address, and a route to what is behind it.
func addAddress(s *stack.Stack, p netip.Prefix) error {
	protocol := ipv4.ProtocolNumber
	if p.Addr().Is6() {
		protocol = ipv6.ProtocolNumber
	}
	a := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(p.Addr().AsSlice()), PrefixLen: p.Bits()}
	err := s.AddProtocolAddress(linux.LOOPBACK_IFINDEX, tcpip.ProtocolAddress{Protocol: protocol, AddressWithPrefix: a}, stack.AddressProperties{})
	if err != nil {
		return fmt.Errorf("give the loopback interface %s: %s", p, err)
	}
	s.AddRoute(tcpip.Route{Destination: a.Subnet(), NIC: linux.LOOPBACK_IFINDEX})
	return nil
}

// leaveNetwork gives the process tg, which has not started, a network namespace of its own. gVisor has no way to create
// a process in one, and demands the right to make one of the process itself. Its credentials are its own and nobody
// reads them before it starts, so they can have that right for a moment.
func leaveNetwork(tg *kernel.ThreadGroup) error {
	t := tg.Leader()
	creds := t.Credentials()
	had := creds.EffectiveCaps
	creds.EffectiveCaps |= auth.CapabilitySetOf(linux.CAP_SYS_ADMIN)
	err := t.Unshare(linux.CLONE_NEWNET)
	creds.EffectiveCaps = had
	if err != nil {
		return fmt.Errorf("%w: %w", errNetworkCapability, err)
	}
	return nil
}
