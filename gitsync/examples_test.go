package gitsync

import (
	"os"
	"path/filepath"
	"testing"
)

// TestExamples: what users copy is right, every folder by itself.
func TestExamples(t *testing.T) {
	const root = "../examples-repo"
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		snapshot, problems, err := Check(t.Context(), root, filepath.Join(root, e.Name()))
		if err != nil || len(problems) > 0 || snapshot.Len() == 0 {
			t.Errorf("%s: %d objects, %v, %v", e.Name(), snapshot.Len(), problems, err)
		}
	}
}
