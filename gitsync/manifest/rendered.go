package manifest

import (
	"strings"

	kjson "sigs.k8s.io/json"

	"github.com/shoal-dev/shoal/api"
)

// Rendered is one object that a renderer made from a folder of files.
type Rendered struct {
	Origin    string // the file it was written in, relative to the repository's root
	Generated bool   // made by a generator: Origin is the file that asks for it
	JSON      []byte
}

// DecodeRendered decodes the objects that a renderer made of the folder dir.
// Problems point at the authored file: at the field when it is written there,
// else at the object. source returns the bytes of a file, nil if there is none.
func DecodeRendered(dir string, objects []Rendered, source func(path string) []byte) Decoded {
	d := decoder{file: dir}
	origins := map[string][]origin{}
	for _, r := range objects {
		if _, known := origins[r.Origin]; !known {
			origins[r.Origin] = readOrigin(r.Origin, source(r.Origin))
		}
		d.rendered(r, origins[r.Origin])
	}
	d.file = dir
	return d.result()
}

// origin is one authored object of a file that was rendered.
type origin struct {
	lines  *positions
	prefix string
	kind   string
	name   string
}

// readOrigin lists the objects of an authored file. The renderer has read the
// file already, so what cannot be read is simply not found again.
func readOrigin(path string, data []byte) (out []origin) {
	if data == nil {
		return nil
	}
	documents, _ := split(File{Path: path, Data: data})
	for _, doc := range documents {
		p, _, ok := parse(path, doc)
		object, isObject := p.value.(map[string]any)
		if !ok || !isObject {
			continue
		}
		lines := &positions{document: doc}
		out = append(out, originOf(lines, "", object))
		items, _ := object["items"].([]any)
		for i, item := range items {
			if itemObject, ok := item.(map[string]any); ok {
				out = append(out, originOf(lines, itemPrefix(i), itemObject))
			}
		}
	}
	return out
}

func originOf(lines *positions, prefix string, object map[string]any) origin {
	kind, _ := object["kind"].(string)
	meta, _ := object["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	return origin{lines: lines, prefix: prefix, kind: kind, name: name}
}

// rendered decodes one object with the positions of the document it most
// likely comes from: the same kind, and a name that prefixes and suffixes may
// have been added to.
func (d *decoder) rendered(r Rendered, candidates []origin) {
	d.file = r.Origin
	var object map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(r.JSON, &object); err != nil {
		d.problems = append(d.problems, api.Invalid{File: r.Origin, Reason: "the rendered object is not JSON: " + err.Error()})
		return
	}
	made := originOf(nil, "", object)
	best := origin{lines: at(1)}
	if len(candidates) > 0 && (r.Generated || len(candidates) == 1) {
		best.lines = candidates[0].lines
	}
	length := -1
	for _, c := range candidates {
		if c.kind == made.kind && strings.Contains(made.name, c.name) && len(c.name) > length {
			best, length = c, len(c.name)
		}
	}
	e := entry{lines: best.lines, prefix: best.prefix, object: object, json: r.JSON, depth: 1}
	if r.Generated {
		e.lines = at(best.lines.line(generatorOf(made.kind)))
	}
	d.envelope(e)
}

// at returns positions that give one line for everything.
func at(line int) *positions {
	return &positions{document: document{text: []byte("-"), line: line}, parsed: true}
}

// generatorOf names the field of a kustomization that makes objects of a kind.
func generatorOf(kind string) string {
	switch kind {
	case "ConfigMap":
		return "configMapGenerator"
	case "Secret":
		return "secretGenerator"
	default:
		return "generators"
	}
}
