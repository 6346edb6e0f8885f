package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine is the length of the longest line that begins a stream, in bytes.
const maxLine = 64 << 10

// writeLine begins a stream with a value, as a line of JSON.
func writeLine(w io.Writer, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = w.Write(append(raw, '\n'))
	return err
}

// readLine reads the line with which a stream begins, and nothing after it.
func readLine(r io.Reader, value any) error {
	var line []byte
	b := make([]byte, 1)
	for {
		if _, err := io.ReadFull(r, b); err != nil {
			return fmt.Errorf("read the beginning of a stream: %w", err)
		}
		if b[0] == '\n' {
			return json.Unmarshal(line, value)
		}
		if line = append(line, b[0]); len(line) > maxLine {
			return errors.New("read the beginning of a stream: the line is too long")
		}
	}
}
