package manifest

import (
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
)

// positions finds the lines of fields in a document. The document is parsed a
// second time, with positions, only when a first line is asked for: most
// documents have no mistakes.
type positions struct {
	document
	parsed bool
	root   *yamlv3.Node
}

// line returns the line of a field ("spec.ports[0].port", "data[a.b]") within
// the file: that of its key or list item or, when it is not written there, of
// the nearest one around it. "" is the first key.
func (p *positions) line(field string) int {
	if !p.parsed {
		p.parsed = true
		var root yamlv3.Node
		if err := yamlv3.Unmarshal(p.text, &root); err == nil && len(root.Content) > 0 {
			p.root = root.Content[0]
		}
	}
	line := p.firstLine()
	if p.root == nil {
		return line
	}
	if found := find(p.root, field, 0, maxDepth); found > 0 {
		line = p.document.line + found - 1
	}
	return line
}

// find descends along a field path and returns the line of the last part that
// is there; line is that of the part before. hops bounds aliases and merges.
func find(n *yamlv3.Node, field string, line, hops int) int {
	for n != nil && n.Kind == yamlv3.AliasNode && hops > 0 {
		n, hops = n.Alias, hops-1
	}
	if n == nil || field == "" || hops == 0 {
		return line
	}
	switch n.Kind {
	case yamlv3.SequenceNode:
		return findItem(n, field, line, hops)
	case yamlv3.MappingNode:
		return findKey(n, field, line, hops)
	default:
		return line
	}
}

func findItem(n *yamlv3.Node, field string, line, hops int) int {
	index, rest, ok := strings.Cut(strings.TrimPrefix(field, "["), "]")
	i, err := strconv.Atoi(index)
	if !ok || err != nil || i < 0 || i >= len(n.Content) {
		return line
	}
	return find(n.Content[i], rest, n.Content[i].Line, hops-1)
}

// findKey takes the longest key that the path starts with, because keys may
// hold dots and brackets themselves.
func findKey(n *yamlv3.Node, field string, line, hops int) int {
	var key, value, merged *yamlv3.Node
	rest := ""
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Value == "<<" {
			merged = n.Content[i+1]
		}
		if r, ok := cutKey(field, k.Value); ok && (key == nil || len(k.Value) > len(key.Value)) {
			key, value, rest = k, n.Content[i+1], r
		}
	}
	if key != nil {
		return find(value, rest, key.Line, hops-1)
	}
	if merged != nil {
		return find(merged, field, line, hops-1)
	}
	return line
}

// cutKey removes ".key", "[key]" or a leading "key" from the front of a path.
func cutKey(field, key string) (rest string, ok bool) {
	if r, ok := strings.CutPrefix(field, "["+key+"]"); ok {
		return r, true
	}
	r, ok := strings.CutPrefix(strings.TrimPrefix(field, "."), key)
	if !ok || r != "" && r[0] != '.' && r[0] != '[' {
		return "", false
	}
	return r, true
}
