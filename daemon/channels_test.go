package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/shoal-dev/shoal/runtime"
)

// TestChannels: what is sent on each channel comes out of it, whole and in order,
// and the last frame tells how the command ended.
func TestChannels(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789"), maxFrame/5)
	var wire bytes.Buffer
	m := &multiplexer{to: &wire}
	for _, err := range []error{
		m.send(channelStdout, long), m.send(channelStderr, []byte("oh")), m.send(channelStdout, nil), m.sendJSON(channelExit, exit{Code: 7}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	raw := wire.Bytes()
	var out, wrong bytes.Buffer
	code, err := receive(bytes.NewReader(raw), runtime.Streams{Stdout: &out, Stderr: &wrong}, "n2")
	if code != 7 || err != nil || !bytes.Equal(out.Bytes(), long) || wrong.String() != "oh" {
		t.Errorf("got %d, %v, %d bytes and %q", code, err, out.Len(), wrong.String())
	}
	// Wherever it breaks off, that is an error, and no end of the command.
	for _, n := range []int{0, 1, frameHeader, frameHeader + 1, len(raw) - 1} {
		if _, err := receive(bytes.NewReader(raw[:n]), runtime.Streams{}, "n2"); err == nil || !strings.Contains(err.Error(), "the connection to node n2, where the pod is, has ended") {
			t.Errorf("broken off after %d bytes: got %v", n, err)
		}
	}
	if _, err := receive(strings.NewReader("\x01\xff\xff\xff\xff"), runtime.Streams{}, "n2"); err == nil || !strings.Contains(err.Error(), "are the most") {
		t.Errorf("a frame that is too long: got %v", err)
	}
	wire.Reset()
	if err := m.sendJSON(channelExit, exit{Error: "no such thing"}); err != nil {
		t.Fatal(err)
	}
	if _, err := receive(&wire, runtime.Streams{}, "n2"); err == nil || err.Error() != "on node n2: no such thing" {
		t.Errorf("an error there: got %v", err)
	}
}

// TestDistribute: input and sizes reach a command, the end of its input too, and
// input that nobody reads any more does not stand in the way.
func TestDistribute(t *testing.T) {
	var wire bytes.Buffer
	m := &multiplexer{to: &wire}
	for _, err := range []error{
		m.send(channelStdin, []byte("hello")), m.sendJSON(channelResize, runtime.Size{Width: 80, Height: 25}),
		m.send(channelEnd, nil), m.send(channelStdin, []byte("too late")), m.sendJSON(channelResize, runtime.Size{Width: 10, Height: 5}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	stdin, typed := io.Pipe()
	sizes := make(chan runtime.Size, 2)
	done := make(chan error, 1)
	go func() { done <- distribute(t.Context(), &wire, typed, sizes) }()
	got, err := io.ReadAll(stdin)
	if string(got) != "hello" || err != nil {
		t.Errorf("stdin: got %q, %v", got, err)
	}
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Errorf("the end of the stream: got %v", err)
	}
	if one, two := <-sizes, <-sizes; one != (runtime.Size{Width: 80, Height: 25}) || two != (runtime.Size{Width: 10, Height: 5}) {
		t.Errorf("sizes: got %v and %v", one, two)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.sendJSON(channelResize, runtime.Size{}); err != nil {
		t.Fatal(err)
	}
	if err := distribute(ctx, &wire, typed, make(chan runtime.Size)); !errors.Is(err, context.Canceled) {
		t.Errorf("a size that nobody takes: got %v", err)
	}
}
