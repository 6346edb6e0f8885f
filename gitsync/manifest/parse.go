package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/shoal-dev/shoal/api"
)

const (
	maxDepth    = 100     // levels of nesting; a Pod in a List has about 20
	maxExpanded = 1 << 20 // values of a document after its aliases are expanded
)

// parsed is a document as JSON and as plain values.
type parsed struct {
	document
	json  []byte
	value any // of map[string]any, []any, string, bool, int64, float64, nil
}

// parse reads one document. The dialect is that of kubectl (sigs.k8s.io/yaml:
// YAML 1.1, JSON included). The second result lists repeated keys, which leave
// the document readable, or the one reason why it is not; ok tells which.
func parse(path string, d document) (out parsed, problems []api.Invalid, ok bool) {
	fail := func(line int, format string, args ...any) (parsed, []api.Invalid, bool) {
		return parsed{}, append(problems, api.Invalid{File: path, Line: line, Reason: fmt.Sprintf(format, args...)}), false
	}
	if bytes.IndexByte(d.text, '*') >= 0 { // else there is no alias
		if err := checkAliases(d.text); err != nil {
			return fail(d.firstLine(), "%v", err)
		}
	}
	data, err := yaml.YAMLToJSONStrict(d.text)
	if err != nil {
		repeated := repeatedKeys(path, d, err)
		if repeated == nil {
			line, reason := syntaxError(d, err)
			return fail(line, "%s", reason)
		}
		problems = repeated
		if data, err = yaml.YAMLToJSON(d.text); err != nil {
			line, reason := syntaxError(d, err)
			return fail(line, "%s", reason)
		}
	}
	out = parsed{document: d, json: data}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &out.value); err != nil {
		return fail(d.firstLine(), "%v", err)
	}
	if deeper(out.value, maxDepth) {
		return fail(d.firstLine(), "the document is nested more than %d levels deep", maxDepth)
	}
	return out, problems, true
}

func deeper(value any, limit int) bool {
	if limit == 0 {
		return true
	}
	switch v := value.(type) {
	case map[string]any:
		for _, item := range v {
			if deeper(item, limit-1) {
				return true
			}
		}
	case []any:
		for _, item := range v {
			if deeper(item, limit-1) {
				return true
			}
		}
	}
	return false
}

// checkAliases refuses documents whose aliases expand to something huge: ten
// lines can stand for ten billion values ("billion laughs").
func checkAliases(text []byte) error {
	var root yamlv3.Node
	if err := yamlv3.Unmarshal(text, &root); err != nil {
		return nil // the real parser will say it better
	}
	if expanded(&root, map[*yamlv3.Node]int{}) > maxExpanded {
		return errors.New("the document's aliases expand to more than a million values or bytes")
	}
	return nil
}

// expanded counts the values and bytes under a node with aliases replaced by
// what they stand for, up to just over maxExpanded.
func expanded(n *yamlv3.Node, known map[*yamlv3.Node]int) int {
	if n.Kind == yamlv3.AliasNode {
		n = n.Alias
	}
	if size, found := known[n]; found {
		return size
	}
	known[n] = maxExpanded + 1 // one that contains itself is endless
	size := 1
	if n.Kind == yamlv3.ScalarNode {
		size += len(n.Value)
	}
	for _, child := range n.Content {
		size = min(size+expanded(child, known), maxExpanded+1)
	}
	known[n] = size
	return size
}

var (
	repeatedKey = regexp.MustCompile(`line (\d+): key "?(.*?)"? already set in map`)
	lineNumber  = regexp.MustCompile(`line (\d+): `)
)

func repeatedKeys(path string, d document, err error) (out []api.Invalid) {
	for _, match := range repeatedKey.FindAllStringSubmatch(err.Error(), -1) {
		line, _ := strconv.Atoi(match[1])
		out = append(out, api.Invalid{
			File: path, Line: d.line + line - 1,
			Reason: fmt.Sprintf("key %q is written twice in one mapping", match[2]),
		})
	}
	return out
}

// syntaxError puts a message of the YAML parser into the file's own lines and
// adds what usually is behind it.
func syntaxError(d document, err error) (line int, reason string) {
	reason = strings.TrimPrefix(err.Error(), "yaml: ")
	line = d.firstLine()
	if match := lineNumber.FindStringSubmatchIndex(reason); match != nil {
		n, _ := strconv.Atoi(reason[match[2]:match[3]])
		reason = reason[:match[0]] + reason[match[1]:]
		if strings.Contains(reason, "did not find expected") {
			n++ // these count from zero
		}
		line = d.line + min(max(n, 1), 1+bytes.Count(d.text, []byte("\n"))) - 1
	}
	reason = "not valid YAML: " + strings.TrimSpace(strings.TrimPrefix(reason, "unmarshal errors:"))
	if n := d.lineWith("{{"); n > 0 {
		return n, `looks like a template ("{{"), not a manifest: Helm charts are planned but not rendered yet; commit what "helm template" prints`
	}
	if n := tabLine(d); n > 0 && strings.Contains(reason, "tab") || strings.Contains(reason, "cannot start any token") && n > 0 {
		return n, "a tab indents this line; YAML allows only spaces"
	}
	return line, reason
}

// lineWith returns the first line of the document that contains text, 0 if none does.
func (d document) lineWith(text string) int {
	if i := bytes.Index(d.text, []byte(text)); i >= 0 {
		return d.line + bytes.Count(d.text[:i], []byte("\n"))
	}
	return 0
}

func tabLine(d document) int {
	for i, text := range strings.Split(string(d.text), "\n") {
		indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
		if strings.Contains(indent, "\t") && strings.TrimSpace(text) != "" {
			return d.line + i
		}
	}
	return 0
}
