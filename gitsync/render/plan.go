package render

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/shoal-dev/shoal/api"
)

// FileNames are the names by which kustomize finds a kustomization.
var FileNames = []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}

// IsKustomization reports whether a file of this name makes its folder a kustomization.
func IsKustomization(name string) bool { return slices.Contains(FileNames, name) }

// Tree is the files of a commit. Paths are slash-separated and relative to the
// root of the repository.
type Tree interface {
	// Hash returns the hash of a file's content, "" when there is no such file.
	Hash(file string) string
	// Read returns the bytes of a file that exists.
	Read(file string) ([]byte, error)
	// Under returns the paths of all files below a folder, sorted; none when
	// there is no such folder. "." is the root.
	Under(folder string) []string
}

// Plan is everything that is needed to build one kustomization.
type Plan struct {
	Dir       string   // the folder with the kustomization
	Component bool     // it is only of use to the kustomizations that name it
	Folders   []string // of all kustomizations that take part, Dir included; sorted
	Files     []string // that are needed; sorted
	Key       string   // changes when a file does
}

// NewPlan reads the kustomization of a folder and those it refers to, and
// reports everything in them that a build may not use. A plan with problems
// must not be built.
func NewPlan(tree Tree, dir string) (Plan, []api.Invalid) {
	p := planner{tree: tree, folders: map[string]bool{}, files: map[string]bool{}}
	p.folder(dir)
	plan := Plan{Dir: dir, Component: p.component, Folders: sorted(p.folders), Files: sorted(p.files)}
	sum := sha256.New()
	for _, file := range plan.Files {
		fmt.Fprintf(sum, "%s %q\n", tree.Hash(file), file)
	}
	plan.Key = dir + " " + hex.EncodeToString(sum.Sum(nil))
	return plan, api.SortInvalid(p.problems)
}

func sorted(set map[string]bool) []string {
	out := make([]string, 0, len(set))
	for name := range set {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Find returns the kustomization file of a folder, "" when there is none.
func Find(tree Tree, dir string) string {
	for _, name := range FileNames {
		if file := path.Join(dir, name); tree.Hash(file) != "" {
			return file
		}
	}
	return ""
}

type planner struct {
	tree      Tree
	folders   map[string]bool
	files     map[string]bool
	problems  []api.Invalid
	component bool // of the first folder
}

func (p *planner) wrong(file string, line int, format string, args ...any) {
	p.problems = append(p.problems, api.Invalid{File: file, Line: line, Reason: fmt.Sprintf(format, args...)})
}

// folder adds a kustomization, everything below it, and what it refers to.
func (p *planner) folder(dir string) {
	if p.folders[dir] {
		return
	}
	p.folders[dir] = true
	for _, file := range p.tree.Under(dir) {
		p.files[file] = true
	}
	file := Find(p.tree, dir)
	data, err := p.tree.Read(file)
	if err != nil {
		p.wrong(file, 0, "%v", err)
		return
	}
	root, err := parse(data)
	if err != nil {
		p.wrong(file, 0, "not a kustomization: %v", err)
		return
	}
	p.kustomization(file, root)
}

// parse returns the top mapping of a kustomization.
func parse(data []byte) (*yamlv3.Node, error) {
	decoder := yamlv3.NewDecoder(bytes.NewReader(data))
	var document yamlv3.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return &yamlv3.Node{Kind: yamlv3.MappingNode}, nil
	} else if err != nil {
		return nil, err
	}
	if root := document.Content[0]; root.Kind == yamlv3.MappingNode {
		return root, nil
	}
	return nil, fmt.Errorf("it must be a mapping")
}

// refused are the fields of a kustomization that run programs or fetch things.
var refused = map[string]string{
	"helmCharts":                  "Helm charts are planned, not rendered yet; commit what \"helm template\" prints",
	"helmChartInflationGenerator": "Helm charts are planned, not rendered yet; commit what \"helm template\" prints",
	"helmGlobals":                 "Helm charts are planned, not rendered yet; commit what \"helm template\" prints",
}

// loaded are the fields whose entries kustomize loads from wherever they point.
var loaded = []string{"resources", "bases", "components", "crds", "configurations", "generators", "transformers", "validators"}

func (p *planner) kustomization(file string, root *yamlv3.Node) {
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if reason, bad := refused[key.Value]; bad {
			p.wrong(file, key.Line, "%s: %s", key.Value, reason)
			continue
		}
		switch {
		case key.Value == "kind":
			p.kind(file, value)
		case slices.Contains(loaded, key.Value):
			p.entries(file, key.Value, value)
		default:
			p.mentions(file, value, 0)
		}
	}
}

func (p *planner) kind(file string, value *yamlv3.Node) {
	switch value.Value {
	case "Kustomization":
	case "Component":
		p.component = p.component || len(p.folders) == 1
	default:
		p.wrong(file, value.Line, "kind: a file named %s must hold a Kustomization or Component of kustomize.config.k8s.io, not %s",
			path.Base(file), cmp.Or(value.Value, "nothing"))
	}
}

// entries resolves a list of files, folders and inline documents.
func (p *planner) entries(file, field string, list *yamlv3.Node) {
	for _, item := range list.Content {
		text := item.Value
		if item.Kind != yamlv3.ScalarNode || strings.Contains(text, "\n") {
			continue // inline; kustomize checks it
		}
		target := path.Join(path.Dir(file), text)
		switch {
		case strings.HasPrefix(text, "/"), target == "..", strings.HasPrefix(target, "../"):
			p.wrong(file, item.Line, "%s: %s lies outside of the repository", field, text)
		case p.tree.Hash(target) != "":
			p.files[target] = true
		case Find(p.tree, target) != "":
			p.folder(target)
		case remote(text):
			p.wrong(file, item.Line, "%s: %s is remote; only what the commit itself holds is rendered: vendor it into the repository", field, text)
		case len(p.tree.Under(target)) > 0:
			p.wrong(file, item.Line, "%s: folder %s holds no kustomization.yaml", field, text)
		default:
			p.wrong(file, item.Line, "%s: there is no file or folder %s", field, target)
		}
	}
}

// remote reports whether kustomize would fetch an entry: it takes URLs, and
// paths whose first part looks like a host.
func remote(text string) bool {
	host, _, isPath := strings.Cut(text, "/")
	return strings.Contains(text, "://") || strings.Contains(text, "?ref=") || strings.Contains(text, "::") ||
		strings.HasPrefix(text, "git@") || isPath && strings.Contains(strings.Trim(host, "."), ".") ||
		strings.Contains(host, ":")
}

// mentions adds every file that some text below a node may refer to: patches,
// generator inputs ("key=file"), replacements.
func (p *planner) mentions(file string, n *yamlv3.Node, depth int) {
	if depth > 20 {
		return
	}
	if n.Kind == yamlv3.ScalarNode && len(n.Value) < 4096 {
		_, after, _ := strings.Cut(n.Value, "=")
		for _, text := range []string{n.Value, after} {
			if target := path.Join(path.Dir(file), text); text != "" && p.tree.Hash(target) != "" {
				p.files[target] = true
			}
		}
	}
	for _, child := range n.Content {
		p.mentions(file, child, depth+1)
	}
}
