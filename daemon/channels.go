package daemon

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// The channels of a command that runs on another node, as they share one stream.
// The stream's flow control is theirs: whoever does not read one holds back all.
type channel byte

const (
	channelStdin channel = iota
	channelStdout
	channelStderr
	channelExit   // JSON of an exit; the last frame
	channelResize // JSON of a runtime.Size
	channelEnd    // nothing more comes on stdin
)

const (
	frameHeader = 5 // the channel and the length of what follows
	maxFrame    = 32 << 10
)

// exit is how a command ended, or why it did not run.
type exit struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

// multiplexer writes frames. It may be used concurrently.
type multiplexer struct {
	mu sync.Mutex
	to io.Writer
}

// send writes data on a channel, in as many frames as it takes.
func (m *multiplexer) send(on channel, data []byte) error {
	for {
		part := data[:min(len(data), maxFrame)]
		data = data[len(part):]
		frame := make([]byte, frameHeader, frameHeader+len(part))
		frame[0] = byte(on)
		binary.BigEndian.PutUint32(frame[1:], uint32(len(part)))
		m.mu.Lock()
		_, err := m.to.Write(append(frame, part...))
		m.mu.Unlock()
		if err != nil || len(data) == 0 {
			return err
		}
	}
}

// sendJSON writes a value on a channel.
func (m *multiplexer) sendJSON(on channel, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return m.send(on, raw)
}

// on returns a writer to a channel.
func (m *multiplexer) on(c channel) io.Writer { return channelWriter{m, c} }

type channelWriter struct {
	m  *multiplexer
	on channel
}

func (w channelWriter) Write(b []byte) (int, error) {
	if err := w.m.send(w.on, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// readFrame reads the next frame into buffer, which holds maxFrame bytes. The
// data is valid until the next call. The error is io.EOF at the end of the stream.
func readFrame(r io.Reader, buffer []byte) (channel, []byte, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(header[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes: %d are the most", n, maxFrame)
	}
	if _, err := io.ReadFull(r, buffer[:n]); err != nil {
		return 0, nil, fmt.Errorf("read a frame: %w", err)
	}
	return channel(header[0]), buffer[:n], nil
}
