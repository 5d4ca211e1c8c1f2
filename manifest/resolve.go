package manifest

import (
	"net/netip"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

var (
	kindExtraHost      = kind{shape: shapeText, check: checkExtraHost}
	kindHostAddress    = kind{shape: shapeText, check: checkHostAddress}
	kindResolver       = kind{shape: shapeText, check: checkResolver}
	kindSearchDomain   = kind{shape: shapeText, check: checkSearchDomain}
	kindResolverOption = kind{shape: shapeText, check: checkResolverOption}
)

// hostGateway stands for the host in extra_hosts.
const hostGateway = "host-gateway"

func checkExtraHost(v string) error {
	name, addrs, ok := strings.Cut(v, "=")
	if !ok {
		name, addrs, ok = strings.Cut(v, ":")
	}
	if !ok {
		return refuse("Write NAME=ADDRESS", "%q has no address", clip(v))
	}
	if err := checkHostname(name); err != nil {
		return err
	}
	for a := range strings.SplitSeq(addrs, ",") {
		if err := checkHostAddress(a); err != nil {
			return err
		}
	}
	return nil
}

func checkHostAddress(v string) error { _, err := parseHostAddress(v); return err }

// parseHostAddress returns the zero address for host-gateway.
func parseHostAddress(v string) (netip.Addr, error) {
	if v == hostGateway {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(strings.Trim(v, "[]"))
	if err != nil || a.Zone() != "" {
		return a, refuse("Write an address or "+hostGateway, "%q isn't an IP address", clip(v))
	}
	return a.Unmap(), nil
}

func checkResolver(v string) error { _, err := parseResolver(v); return err }

func parseResolver(v string) (netip.Addr, error) {
	a, err := netip.ParseAddr(v)
	if err != nil || a.Zone() != "" {
		return a, refuse("Write the address of a DNS server, such as 192.0.2.53", "%q isn't an IP address", clip(v))
	}
	return a.Unmap(), nil
}

func checkSearchDomain(v string) error {
	if v == "." {
		return nil
	}
	return checkHostname(strings.TrimSuffix(v, "."))
}

func checkResolverOption(v string) error {
	if v == "" || strings.ContainsAny(v, " \t\r\n#;") {
		return refuse("Write one option an item, such as ndots:2", "%q isn't an option of resolv.conf", clip(v))
	}
	return nil
}

// resolution fills in how a container finds names.
func resolution(in types.ServiceConfig, box *spec.Container) {
	for _, name := range sorted(in.ExtraHosts) {
		for _, v := range in.ExtraHosts[name] {
			addr, _ := parseHostAddress(v) // checked by the walk, as is the rest
			box.ExtraHosts = append(box.ExtraHosts, spec.HostName{Name: name, Addr: addr})
		}
	}
	for _, v := range in.DNS {
		addr, _ := parseResolver(v)
		box.DNS.Servers = append(box.DNS.Servers, addr)
	}
	box.DNS.Search = append(box.DNS.Search, in.DNSSearch...)
	box.DNS.Options = append(box.DNS.Options, in.DNSOpts...)
}

// composeResolution is what Encode writes of it.
type composeResolution struct {
	ExtraHosts []string `yaml:"extra_hosts,omitempty"`
	DNS        []string `yaml:"dns,omitempty,flow"`
	DNSSearch  []string `yaml:"dns_search,omitempty,flow"`
	DNSOpt     []string `yaml:"dns_opt,omitempty,flow"`
}

func encodeResolution(box spec.Container) composeResolution {
	out := composeResolution{DNSSearch: box.DNS.Search, DNSOpt: box.DNS.Options}
	for _, h := range box.ExtraHosts {
		addr := hostGateway
		if h.Addr.IsValid() {
			addr = h.Addr.String()
		}
		out.ExtraHosts = append(out.ExtraHosts, h.Name+"="+addr)
	}
	for _, a := range box.DNS.Servers {
		out.DNS = append(out.DNS, a.String())
	}
	return out
}
