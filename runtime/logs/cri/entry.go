package cri

import (
	"bytes"
	"errors"
	"time"
)

// Stream is where a container wrote an entry.
type Stream string

// The two streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// MaxEntry is the length of an entry's text, in bytes, beyond which a line is
// cut into partial entries.
const MaxEntry = 16 << 10

const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// Entry is one line of a log file.
type Entry struct {
	Time    time.Time
	Stream  Stream
	Partial bool
	Text    []byte // without the newline
}

// Append appends the entry as it stands in a file, with its newline.
func (e Entry) Append(to []byte) []byte {
	to = e.Time.UTC().AppendFormat(to, timeFormat)
	to = append(to, ' ')
	to = append(to, e.Stream...)
	if e.Partial {
		to = append(to, " P "...)
	} else {
		to = append(to, " F "...)
	}
	to = append(to, e.Text...)
	return append(to, '\n')
}

var errEntry = errors.New("not an entry of a CRI log")

// Parse parses a line without its newline. Text shares memory with it.
func Parse(line []byte) (Entry, error) {
	stamp, rest, ok := bytes.Cut(line, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tag, text, ok3 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 {
		return Entry{}, errEntry
	}
	if !ok3 && len(tag) != 1 {
		return Entry{}, errEntry
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return Entry{}, errEntry
	}
	entry := Entry{Time: at, Stream: Stream(stream), Partial: tag[0] == 'P', Text: text}
	if entry.Stream != Stdout && entry.Stream != Stderr {
		return Entry{}, errEntry
	}
	return entry, nil
}

// Lines cuts one stream into entries. The zero Lines is empty. Not safe for
// concurrent use.
type Lines struct {
	rest []byte // begun and not ended by a newline, at most MaxEntry bytes
}

// Next appends to out the entries that a chunk of the stream completes.
func (l *Lines) Next(out []byte, stream Stream, now time.Time, chunk []byte) []byte {
	for len(chunk) > 0 {
		end := bytes.IndexByte(chunk, '\n')
		room := MaxEntry - len(l.rest)
		switch {
		case end >= 0 && end <= room:
			l.rest = append(l.rest, chunk[:end]...)
			out = Entry{Time: now, Stream: stream, Text: l.rest}.Append(out)
			chunk = chunk[end+1:]
			l.rest = l.rest[:0]
		case len(chunk) >= room && room >= 0 && (end < 0 || end > room):
			l.rest = append(l.rest, chunk[:room]...)
			out = Entry{Time: now, Stream: stream, Partial: true, Text: l.rest}.Append(out)
			chunk = chunk[room:]
			l.rest = l.rest[:0]
		default:
			l.rest = append(l.rest, chunk...)
			chunk = nil
		}
	}
	if len(l.rest) == 0 {
		l.rest = nil // idle streams hold no memory
	}
	return out
}

// Flush appends what the stream began and did not end.
func (l *Lines) Flush(out []byte, stream Stream, now time.Time) []byte {
	if len(l.rest) > 0 {
		out = Entry{Time: now, Stream: stream, Partial: true, Text: l.rest}.Append(out)
		l.rest = nil
	}
	return out
}
