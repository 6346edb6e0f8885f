package gitsync

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

func encodeTree(entries ...treeEntry) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&b, "%o %s\x00", e.mode, e.name)
		b.Write(e.hash[:])
	}
	return b.Bytes()
}

func TestParseTree(t *testing.T) {
	entry := func(mode uint32, name string) treeEntry {
		return treeEntry{name: name, mode: mode, hash: plumbing.NewHash("01")}
	}
	for _, test := range []struct {
		name string
		data []byte
		want string // in the error, "" for none
	}{
		{"empty", nil, ""},
		{"good", encodeTree(entry(modeFile, "a"), entry(modeFile, "a.b"), entry(modeFolder, "a0"), entry(modeExecutable, "b")), ""},
		{"folders sort as if they ended in a slash", encodeTree(entry(modeFile, "a.b"), entry(modeFolder, "a")), ""},
		{"out of order", encodeTree(entry(modeFile, "b"), entry(modeFile, "a")), "not in order"},
		{"twice", encodeTree(entry(modeFile, "a"), entry(modeFile, "a")), "not in order"},
		{"parent", encodeTree(entry(modeFolder, "..")), "forbidden name"},
		{"git folder", encodeTree(entry(modeFolder, ".GIT")), "forbidden name"},
		{"slash", encodeTree(entry(modeFile, "a/b")), "forbidden name"},
		{"no name", encodeTree(entry(modeFile, "")), "forbidden name"},
		{"mode", encodeTree(entry(0o100666, "a")), "mode 100666"},
		{"device", encodeTree(entry(0o060000, "a")), "mode 60000"},
		{"not octal", []byte("10z644 a\x00" + strings.Repeat("x", 20)), "is not a number"},
		{"cut short", encodeTree(entry(modeFile, "a"))[:15], "cut short"},
		{"text", []byte("hello"), "cut short"},
	} {
		entries, err := parseTree(test.data)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want == "" && !bytes.Equal(encodeTree(entries...), test.data):
			t.Errorf("%s: entries are %v", test.name, entries)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
}

// hostile answers for every hash with one of a few trees, so that folders can
// hold themselves, which no honest repository can.
type hostile [][]byte

func (h hostile) tree(hash plumbing.Hash) ([]treeEntry, error) {
	return parseTree(h[int(hash[0])%len(h)])
}

func (h hostile) blob(plumbing.Hash) ([]byte, error) { return nil, nil }

// Whatever the objects of a repository hold, the walk ends, stays within its
// limits and names nothing outside of the folder.
func FuzzWalk(f *testing.F) {
	f.Add(encodeTree(treeEntry{name: "a", mode: modeFile}), encodeTree(treeEntry{name: "b", mode: modeFolder}))
	f.Add(encodeTree(treeEntry{name: "a", mode: modeFolder}, treeEntry{name: "b", mode: modeFolder}), encodeTree(treeEntry{name: "c", mode: modeSymlink}))
	f.Add([]byte("40000 ..\x00xxxxxxxxxxxxxxxxxxxx"), []byte("100644 x"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		trees := &tree{objects: hostile{one, two}}
		files, problems, err := trees.walk(".")
		if len(files)+len(problems) > MaxEntries {
			t.Errorf("%d files, %d problems", len(files), len(problems))
		}
		if err != nil {
			return
		}
		for _, file := range files {
			if strings.HasPrefix(file.path, "/") || strings.Contains("/"+file.path+"/", "/../") || strings.Contains("/"+file.path+"/", "/.git/") {
				t.Errorf("the walk names %q", file.path)
			}
			if len(problems) == 0 && trees.Hash(file.path) != file.hash {
				t.Errorf("%q is not found again", file.path)
			}
		}
	})
}
