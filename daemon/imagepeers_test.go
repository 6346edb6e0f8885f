package daemon

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// Parts of images of all sizes arrive as they were, and one that ends too early is
// never taken for a whole one.
func TestChunks(t *testing.T) {
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize, 5*chunkSize + 7} {
		data := make([]byte, size)
		_, _ = rand.Read(data) // it never fails
		got, err := transfer(t, bytes.NewReader(data))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
	}
	broken := io.MultiReader(bytes.NewReader(make([]byte, 3*chunkSize)), iotest.ErrReader(errors.New("the disk is gone")))
	if got, err := transfer(t, broken); err == nil || !strings.Contains(err.Error(), "read an image from node n2: ") {
		t.Errorf("one that breaks off: got %d bytes, %v", len(got), err)
	}
}

// connection returns both ends of one that holds a little, as streams of nodes do.
func connection(t *testing.T) (near, far net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if near, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// transfer sends what from holds through a connection.
func transfer(t *testing.T, from io.Reader) ([]byte, error) {
	near, far := connection(t)
	done := make(chan error, 1)
	go func() {
		err := sendChunks(far, from)
		if err != nil {
			far.Close() // as the end of a stream's server does
		}
		done <- err
	}()
	r := &chunkReader{from: near, node: "n2", watchdog: time.AfterFunc(time.Minute, func() { t.Error("nothing came") }), end: func() { _ = near.Close() }}
	got, err := io.ReadAll(r)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	<-done
	return got, err
}

// Whoever does not confirm is sent no more than a little.
func TestChunksWait(t *testing.T) {
	near, far := connection(t)
	go func() { _ = sendChunks(far, bytes.NewReader(make([]byte, 10*chunkSize))) }() // it ends with the connection
	buffer := make([]byte, chunksAhead*(chunkSize+4))
	if _, err := io.ReadFull(near, buffer); err != nil {
		t.Fatal(err)
	}
	if err := near.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := near.Read(buffer); n > 0 || err == nil {
		t.Errorf("got %d more bytes, %v", n, err)
	}
	_ = near.Close() // it never fails
}
