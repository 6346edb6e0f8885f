package logs

import (
	"bytes"
	"io"
	"os"

	"github.com/shoal-dev/shoal/runtime/logs/cri"
)

// Last returns the text of the last entries of a log, at most so many lines and
// bytes; "" when it cannot be read.
func Last(path string, lines int64, limit int) string {
	offset, _, err := tail(path, lines)
	if err != nil {
		return ""
	}
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close() //nolint:errcheck // only read
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return ""
	}
	raw, err := io.ReadAll(io.LimitReader(file, cri.MaxSize))
	if err != nil {
		return ""
	}
	var out []byte
	for line := range bytes.Lines(raw) {
		entry, err := cri.Parse(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			continue
		}
		out = append(out, entry.Text...)
		if !entry.Partial {
			out = append(out, '\n')
		}
	}
	return string(out[max(0, len(out)-limit):])
}
