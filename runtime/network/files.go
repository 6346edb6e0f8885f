package network

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// Hostname returns a pod's host name and its name in the cluster's domain, which
// is "" when it has none.
// Source: kubernetes.io, DNS for Services and Pods, "Pod's hostname and subdomain fields".
func Hostname(pod *corev1.Pod, domain string) (hostname, fqdn string) {
	hostname = pod.Spec.Hostname
	if hostname == "" {
		hostname = pod.Name
	}
	if len(hostname) > 63 {
		hostname = strings.TrimRight(hostname[:63], "-.")
	}
	if pod.Spec.Subdomain != "" {
		fqdn = hostname + "." + pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + domain
	}
	if pod.Spec.HostnameOverride != nil && *pod.Spec.HostnameOverride != "" {
		return *pod.Spec.HostnameOverride, ""
	}
	if pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN && fqdn != "" {
		return fqdn, fqdn
	}
	return hostname, fqdn
}

// Hosts returns a pod's /etc/hosts. node is the machine's own file, used for
// pods with hostNetwork.
func Hosts(pod *corev1.Pod, ips []string, domain string, node []byte) []byte {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.Write(node)
		if len(node) > 0 && node[len(node)-1] != '\n' {
			b.WriteByte('\n')
		}
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		short, fqdn := Hostname(pod, domain)
		for _, ip := range ips {
			if fqdn != "" && fqdn != short {
				fmt.Fprintf(&b, "%s\t%s\t%s\n", ip, fqdn, short)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, short)
			}
		}
	}
	for _, alias := range pod.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	return []byte(b.String())
}

// Resolv is a resolv.conf.
type Resolv struct {
	Nameservers, Search, Options []string
}

// ParseResolv reads a resolv.conf; lines it does not know are dropped.
func ParseResolv(b []byte) Resolv {
	var r Resolv
	lines := bufio.NewScanner(strings.NewReader(string(b)))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			r.Nameservers = append(r.Nameservers, words[1])
		case "search", "domain":
			r.Search = words[1:]
		case "options":
			r.Options = append(r.Options, words[1:]...)
		}
	}
	return r
}

// Bytes returns the file.
func (r Resolv) Bytes() []byte {
	var b strings.Builder
	if len(r.Search) > 0 {
		b.WriteString("search " + strings.Join(r.Search, " ") + "\n")
	}
	for _, s := range r.Nameservers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(r.Options) > 0 {
		b.WriteString("options " + strings.Join(r.Options, " ") + "\n")
	}
	return []byte(b.String())
}

// PodResolv returns a pod's resolv.conf by its dnsPolicy. node is the machine's.
// Source: kubernetes.io, DNS for Services and Pods, "Pod's DNS Policy".
func PodResolv(pod *corev1.Pod, dns runtime.DNSConfig, node Resolv) Resolv {
	policy := pod.Spec.DNSPolicy
	if policy == "" {
		policy = corev1.DNSClusterFirst
	}
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork || dns.Server == "" && policy != corev1.DNSNone {
		policy = corev1.DNSDefault
	}
	out := Resolv{}
	switch policy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		out = Resolv{slices.Clone(node.Nameservers), slices.Clone(node.Search), slices.Clone(node.Options)}
	default:
		out.Nameservers = []string{dns.Server}
		out.Search = append([]string{
			pod.Namespace + ".svc." + dns.Domain, "svc." + dns.Domain, dns.Domain,
		}, node.Search...)
		out.Options = []string{"ndots:5"}
	}
	if own := pod.Spec.DNSConfig; own != nil {
		out.Nameservers = append(out.Nameservers, own.Nameservers...)
		out.Search = append(out.Search, own.Searches...)
		for _, o := range own.Options {
			out.Options = option(out.Options, o)
		}
	}
	out.Nameservers = firsts(out.Nameservers, 3)
	out.Search = firsts(out.Search, 32)
	return out
}

// option adds an option, replacing one of the same name.
func option(options []string, o corev1.PodDNSConfigOption) []string {
	text := o.Name
	if o.Value != nil && *o.Value != "" {
		text += ":" + *o.Value
	}
	for i, old := range options {
		if name, _, _ := strings.Cut(old, ":"); name == o.Name {
			options[i] = text
			return options
		}
	}
	return append(options, text)
}

// firsts returns at most n different words in their order.
func firsts(words []string, n int) []string {
	var out []string
	for _, w := range words {
		if !slices.Contains(out, w) && len(out) < n {
			out = append(out, w)
		}
	}
	return out
}

// NodeResolv reads the machine's resolv.conf. A stub resolver on loopback is of
// no use in a pod: where systemd-resolved runs, its real servers are taken.
func NodeResolv(path string) Resolv {
	if path == "" {
		path = "/etc/resolv.conf"
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Resolv{}
	}
	r := ParseResolv(b)
	if slices.Equal(r.Nameservers, []string{"127.0.0.53"}) {
		if b, err := os.ReadFile("/run/systemd/resolve/resolv.conf"); err == nil {
			return ParseResolv(b)
		}
	}
	return r
}
