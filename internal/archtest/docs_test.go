package archtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// repository is the top of the repository, as seen from this package.
const repository = "../.."

// link finds the targets of Markdown links.
var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// Every relative link of a page leads to a file.
func TestPagesLeadSomewhere(t *testing.T) {
	out, err := exec.Command("git", "-C", repository, "ls-files", "*.md").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	pages := strings.Fields(string(out))
	if len(pages) < 10 {
		t.Fatalf("git ls-files found %d pages only", len(pages))
	}
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join(repository, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(text), -1) {
			target, _, _ := strings.Cut(match[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(repository, filepath.Dir(page), target)); err != nil {
				t.Errorf("%s leads to %s, which does not exist", page, match[1])
			}
		}
	}
}

// The map of ARCHITECTURE.md names every package, or the one it is a part of.
func TestTheMapIsComplete(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages(t) {
		named := false
		for _, folder := range []string{p.ImportPath, filepath.Dir(p.ImportPath)} {
			named = named || strings.Contains(string(text), "`"+folder+"/`")
		}
		if !named {
			t.Errorf("the map of ARCHITECTURE.md does not name %s", p.ImportPath)
		}
	}
}
