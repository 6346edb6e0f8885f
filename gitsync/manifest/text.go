package manifest

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/shoal-dev/shoal/api"
)

// MaxFile is the size of the largest manifest that is read, in bytes. It is
// also the limit for a blob of the Git walk.
const MaxFile = 1 << 20

// File is one file of a commit.
type File struct {
	Path string // slash-separated, relative to the root of the repository
	Data []byte // nobody may change it afterwards
}

// unreadable says why the bytes of a file cannot be a manifest at all.
func unreadable(f File) (api.Invalid, bool) {
	wrong := func(line int, format string, args ...any) (api.Invalid, bool) {
		return api.Invalid{File: f.Path, Line: line, Reason: fmt.Sprintf(format, args...)}, true
	}
	switch {
	case len(f.Data) > MaxFile:
		return wrong(0, "the file has %d bytes; manifests may have %d at most", len(f.Data), MaxFile)
	case bytes.HasPrefix(f.Data, []byte("\xef\xbb\xbf")):
		return wrong(1, "the file starts with a byte order mark; save it as UTF-8 without one")
	case bytes.HasPrefix(f.Data, []byte("\xff\xfe")), bytes.HasPrefix(f.Data, []byte("\xfe\xff")):
		return wrong(1, "the file is UTF-16; save it as UTF-8")
	case bytes.HasPrefix(f.Data, []byte("version https://git-lfs.github.com/")):
		return wrong(1, "the file is a Git LFS pointer; LFS is not supported, commit the manifest itself")
	}
	if i := bytes.IndexByte(f.Data, 0); i >= 0 {
		return wrong(lineAt(f.Data, i), "the file holds a NUL byte: it is binary, or UTF-16; save it as UTF-8 text")
	}
	if !utf8.Valid(f.Data) {
		return wrong(lineAt(f.Data, invalidByte(f.Data)), "the file is not UTF-8 text")
	}
	return api.Invalid{}, false
}

func invalidByte(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(data)
}

// lineAt returns the 1-based line of an offset.
func lineAt(data []byte, offset int) int {
	return 1 + bytes.Count(data[:offset], []byte("\n"))
}

// document is one of the "---"-separated parts of a file.
type document struct {
	text []byte
	line int // of the first line of text within the file, 1-based
}

// split cuts a file at its document markers. Like kubectl it takes them by
// line: a marker stands alone, except for a comment.
func split(f File) (documents []document, problems []api.Invalid) {
	start, line, startLine := 0, 0, 1
	for at := 0; at < len(f.Data); {
		line++
		end := len(f.Data)
		if n := bytes.IndexByte(f.Data[at:], '\n'); n >= 0 {
			end = at + n + 1
		}
		text := string(f.Data[at:min(end, at+200)])
		if marker, rest := cutMarker(text); marker {
			if rest != "" {
				problems = append(problems, api.Invalid{
					File: f.Path, Line: line,
					Reason: "nothing but a comment may follow a document marker on its line",
				})
			}
			documents = append(documents, document{f.Data[start:at], startLine})
			start, startLine = end, line+1
		}
		at = end
	}
	return append(documents, document{f.Data[start:], startLine}), problems
}

// cutMarker reports whether a line starts or ends a document, and what else,
// comments aside, stands on it.
func cutMarker(line string) (marker bool, rest string) {
	if !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "...") {
		return false, ""
	}
	rest = line[3:]
	trimmed := strings.TrimSpace(rest)
	if trimmed == "" || strings.HasPrefix(trimmed, "#") && rest[0] != '#' {
		return true, ""
	}
	if rest[0] != ' ' && rest[0] != '\t' {
		return false, "" // "----" or "---x" is text
	}
	return true, trimmed
}

// firstLine returns the line of the document's first key within the file; 0
// when there is nothing but space and comments.
func (d document) firstLine() int {
	line := d.line
	for rest := d.text; len(rest) > 0; line++ {
		var text []byte
		text, rest, _ = bytes.Cut(rest, []byte("\n"))
		text = bytes.TrimSpace(text)
		if len(text) > 0 && text[0] != '#' {
			return line
		}
	}
	return 0
}
