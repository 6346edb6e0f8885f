package manifest

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// scopePage tells users what is served. Its tables and those of this package
// are the same.
const scopePage = "../../SCOPE.md"

var words = map[Verdict]string{Served: "in", Planned: "planned", Out: "out"}

// kindRow is how the page begins the row of a kind.
func kindRow(s KindScope) string {
	group := s.Group
	if group == "" {
		group = "core"
	}
	kind := s.Kind
	if kind == "*" {
		kind = "every other kind"
	}
	return fmt.Sprintf("| %s | %s | %s | %s", kind, group, words[s.Verdict], s.Reason)
}

// fieldRow is how the page writes the row of a field.
func fieldRow(f FieldScope) string {
	allow := "none"
	if f.Allow != "" {
		allow = "`" + strings.Join(strings.Fields(f.Allow), "`, `") + "`"
	}
	then := "refused"
	if f.Warning {
		then = "warning"
	}
	return fmt.Sprintf("| `%s.%s` | %s | %s | %s | %s |", f.Of.Name(), f.Field, allow, words[f.Verdict], then, f.Reason)
}

// The page has a row for every kind and every field that the tables name, and
// no other rows in its tables of fields.
func TestScopePageSaysWhatTheTablesSay(t *testing.T) {
	page, err := os.ReadFile(scopePage)
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	for _, s := range KindScopes {
		if !strings.Contains(text, "\n"+kindRow(s)) {
			t.Errorf("%s has no row that begins\n%s", scopePage, kindRow(s))
		}
	}
	known := map[string]bool{}
	for _, f := range FieldScopes {
		known[fieldRow(f)] = true
		if !strings.Contains(text, "\n"+fieldRow(f)+"\n") {
			t.Errorf("%s has no row\n%s", scopePage, fieldRow(f))
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "| `") && !known[line] {
			t.Errorf("%s has a row that no table knows\n%s", scopePage, line)
		}
	}
}
