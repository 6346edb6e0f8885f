package archtest

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/shoal-dev/shoal/"

// mayImport says which packages of this module each package may import, beside
// its own sub-packages. "..." stands for a package and everything below it. A
// package that is missing here fails the test: its place in the house must be
// decided.
var mayImport = map[string][]string{
	"api":              {},
	"scheduler":        {"api"},
	"scheduler/place":  {"api"},
	"gitsync":          {"api", "internal/loop"},
	"gitsync/manifest": {"api", "internal/kube"},
	"gitsync/render":   {"api"},
	"gossip":           {"api"},
	"gossip/identity":  {},
	"gossip/peer":      {"gossip", "gossip/identity"},
	"gossip/members":   {"gossip", "gossip/identity"},

	"gossip/fleet":                   {"api", "gossip", "gossip/consensus", "gossip/identity", "gossip/members", "gossip/peer"},
	"gossip/consensus":               {"api", "gossip"},
	"gossip/consensus/consensustest": {"gossip/consensus"},
	"runtime":                        {"api"},
	"runtime/agent":                  {"api", "runtime/..."},
	"runtime/containerd":             {"api", "runtime"},
	"runtime/evict":                  {},
	"runtime/fence":                  {},
	"runtime/fencer":                 {"runtime/fence", "runtime/satellite"},
	"runtime/keeper":                 {"runtime/logs/cri", "runtime/satellite"},
	"runtime/logs":                   {"runtime/keeper", "runtime/satellite"},
	"runtime/satellite":              {},
	"runtime/logs/cri":               {},
	"runtime/network":                {"api", "runtime"},
	"runtime/probe":                  {"api", "runtime"},
	"runtime/usage":                  {"api"},
	"runtime/volume":                 {"api", "runtime"},
	"runtime/runtimetest":            {"api", "runtime/..."},
	"policy":                         {"api"},
	"policy/iptables":                {"policy"},
	"policy/policytest":              {"policy"},
	"policy/dns":                     {"policy"},
	"daemon":                         {"api", "gitsync", "gossip", "gossip/...", "scheduler", "runtime", "runtime/agent", "runtime/evict", "runtime/fence", "runtime/network", "runtime/usage", "policy", "policy/iptables", "policy/dns", "internal/loop"},
	"daemon/api":                     {"api", "runtime", "internal/kube/...", "internal/loop"},
	"cmd/shoal":                      {"api", "daemon", "gitsync", "gitsync/render", "scheduler"},
	"cmd/shoal-keeper":               {"runtime/fencer", "runtime/keeper"},
	"internal/archtest":              {},
	"internal/images":                {},
	"internal/images/hello":          {},
	"internal/images/examples":       {"internal/images"},
	"internal/kube":                  {"api"},
	"internal/kube/openapi":          {"api", "internal/kube"},
	"internal/kube/table":            {"api", "internal/kube"},
	"internal/loop":                  {},
	"internal/simnet":                {},
	"internal/sim":                   {"api", "daemon", "gitsync", "gitsync/manifest", "gossip/members", "internal/simnet", "policy", "policy/policytest", "runtime", "runtime/agent", "runtime/fence", "runtime/network", "runtime/runtimetest", "scheduler"},
	"internal/scenario":              {},
	"internal/seeds":                 {},
	"internal/testenv":               {"internal/images"},
	"e2e/fleet":                      {},
	"e2e/onenode":                    {},
}

// onlyIn names the one place that may import each big library.
var onlyIn = map[string][]string{
	"github.com/go-git/go-git/":               {"gitsync"},
	"github.com/containerd/containerd/":       {"runtime/containerd"},
	"github.com/containernetworking/cni/":     {"runtime/network"},
	"github.com/coreos/go-iptables/":          {"policy/iptables"},
	"google.golang.org/grpc/":                 {"gossip/peer", "runtime/containerd", "runtime/probe"},
	"github.com/gorilla/websocket":            {"daemon/api"},
	"k8s.io/streaming/":                       {"daemon/api"},
	"github.com/miekg/dns":                    {"policy/dns"},
	"go.etcd.io/raft/":                        {"gossip/consensus"},
	"github.com/hashicorp/memberlist":         {"gossip/members", "internal/simnet"},
	"github.com/robfig/cron/":                 {"scheduler"},
	"k8s.io/kubernetes/":                      {"internal/kube"},
	"sigs.k8s.io/kustomize/":                  {"gitsync/render"},
	"github.com/spf13/cobra":                  {"cmd/shoal"},
	"github.com/spf13/viper":                  {"daemon", "cmd/shoal"},
	"github.com/prometheus/client_golang/":    {"daemon"},
	"github.com/google/go-containerregistry/": {"internal/images", "internal/testenv"},
}

// pure packages decide: they have no clock, no randomness, no input or output.
var pure = []string{"api", "scheduler", "scheduler/place", "gitsync/manifest", "gossip", "runtime", "runtime/evict", "runtime/fence", "policy"}

var impure = []string{"os", "net", "net/http", "os/exec", "sync", "context", "math/rand", "math/rand/v2", "log/slog", "log"}

type pkg struct {
	ImportPath, Doc, Dir string
	GoFiles              []string
	Imports              []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Dir,GoFiles,Imports", module+"...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		all = append(all, p)
	}
	if len(all) < 20 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	return all
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func TestWhoImportsWhom(t *testing.T) {
	for _, p := range packages(t) {
		allowed, known := mayImport[p.ImportPath]
		if !known {
			t.Errorf("%s has no line in mayImport: decide where in the house it is", p.ImportPath)
			continue
		}
		for _, path := range p.Imports {
			own, ours := strings.CutPrefix(path, module)
			if !ours || strings.HasPrefix(own, p.ImportPath+"/") || slices.ContainsFunc(allowed, func(a string) bool { return covers(a, own) }) {
				continue
			}
			t.Errorf("%s imports %s; it may import %v", p.ImportPath, own, allowed)
		}
	}
}

func covers(allowed, path string) bool {
	if base, all := strings.CutSuffix(allowed, "/..."); all {
		return path == base || strings.HasPrefix(path, base+"/")
	}
	return allowed == path
}

func TestBigLibrariesHaveOnePlace(t *testing.T) {
	for _, p := range packages(t) {
		for _, path := range p.Imports {
			for library, places := range onlyIn {
				if !strings.HasPrefix(path+"/", library) && path != library {
					continue
				}
				inPlace := slices.ContainsFunc(places, func(place string) bool { return covers(place+"/...", p.ImportPath) })
				if !inPlace {
					t.Errorf("%s imports %s, which only %v may", p.ImportPath, path, places)
				}
			}
		}
	}
}

func TestPureRoomsArePure(t *testing.T) {
	for _, p := range packages(t) {
		if !slices.Contains(pure, p.ImportPath) {
			continue
		}
		for _, path := range p.Imports {
			if slices.Contains(impure, path) {
				t.Errorf("%s imports %s: decisions take values and return values", p.ImportPath, path)
			}
		}
		for _, file := range p.GoFiles {
			text, err := os.ReadFile(p.Dir + "/" + file)
			if err != nil {
				t.Fatal(err)
			}
			for _, call := range []string{"time.Now(", "time.Since(", "time.Until(", "time.After(", "time.Sleep(", "time.NewTimer(", "time.NewTicker("} {
				if strings.Contains(string(text), call) {
					t.Errorf("%s/%s calls %s): take now as an argument", p.ImportPath, file, call)
				}
			}
		}
	}
}
