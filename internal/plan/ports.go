package plan

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// ports turns the words of EXPOSE into "port/protocol", ranges spelled out.
// A word is [[address:]host:]port[-port][/protocol]; address and host are checked and dropped, as in BuildKit.
func (p *planner) ports(words []string) ([]string, error) {
	var out []string
	for _, w := range words {
		ports, err := p.port(w)
		if err != nil {
			return nil, fmt.Errorf("EXPOSE %s: %w", w, err)
		}
		// A port is in a map, in the history and here.
		if err := p.budget.spend(256 * len(ports)); err != nil {
			return nil, err
		}
		out = append(out, ports...)
	}
	return out, nil
}

func (p *planner) port(word string) ([]string, error) {
	address, host, port := splitPort(word)
	port, proto, _ := strings.Cut(port, "/")
	if port == "" {
		return nil, fmt.Errorf("the port is missing")
	}
	switch strings.ToLower(proto) {
	case "":
		proto = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return nil, fmt.Errorf("%q is not a protocol (tcp, udp, sctp)", proto)
	}
	p.lintPort(word, proto, address+host)
	if err := checkAddress(address); err != nil {
		return nil, err
	}
	first, last, err := portRange(port)
	if err != nil {
		return nil, err
	}
	if host != "" {
		hostFirst, hostLast, err := portRange(host)
		if err != nil {
			return nil, err
		}
		if last-first != hostLast-hostFirst && last != first {
			return nil, fmt.Errorf("the ranges %s and %s differ in length", port, host)
		}
	}
	var out []string
	for n := first; n <= last; n++ {
		out = append(out, strconv.Itoa(n)+"/"+strings.ToLower(proto))
	}
	return out, nil
}

// splitPort cuts a word at the colons that are not part of an IPv6 address.
func splitPort(word string) (address, host, port string) {
	parts := strings.Split(word, ":")
	n := len(parts)
	switch n {
	case 1:
		return "", "", parts[0]
	case 2:
		return "", parts[0], parts[1]
	}
	return strings.Join(parts[:n-2], ":"), parts[n-2], parts[n-1]
}

func checkAddress(address string) error {
	if address == "" {
		return nil
	}
	bare := address
	if strings.HasPrefix(address, "[") {
		var err error
		if bare, _, err = net.SplitHostPort(address + ":"); err != nil {
			return fmt.Errorf("%q is not an IP address", address)
		}
	}
	if bare != "" && net.ParseIP(bare) == nil {
		return fmt.Errorf("%q is not an IP address", address)
	}
	return nil
}

func portRange(s string) (first, last int, err error) {
	a, b, isRange := strings.Cut(s, "-")
	if first, err = portNumber(a); err != nil {
		return 0, 0, err
	}
	if !isRange || a == b {
		return first, first, nil
	}
	if last, err = portNumber(b); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("the range %s is upside down", s)
	}
	return first, last, nil
}

func portNumber(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 65535 {
		return 0, fmt.Errorf("%q is not a port (0 to 65535)", s)
	}
	return n, nil
}

func (p *planner) lintPort(word, proto, mapping string) {
	if proto != strings.ToLower(proto) {
		p.lint.Run(&linter.RuleExposeProtoCasing, p.cmd.Location(), linter.RuleExposeProtoCasing.Format(word))
	}
	if mapping != "" {
		p.lint.Run(&linter.RuleExposeInvalidFormat, p.cmd.Location(), linter.RuleExposeInvalidFormat.Format(word))
	}
}
