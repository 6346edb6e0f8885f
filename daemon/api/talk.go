package api

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// talk is the channels between a client and a command. Those that the client did
// not ask for are nil.
type talk struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	status         io.Writer
	resize         io.Reader
	gone           func() // waits until the client is gone
	end            func() // ends the connection; once
}

// watch calls cancel when the client is gone.
func (t *talk) watch(cancel func()) {
	go func() { // ends with the connection
		t.gone()
		cancel()
	}()
}

// openTalk upgrades a request to what carries the channels. On an error the
// client was told.
func openTalk(w http.ResponseWriter, r *http.Request, o commanded) (*talk, error) {
	if wsstream.IsWebSocketRequest(r) {
		return openWebSocket(w, r, o)
	}
	return openSPDY(w, r, o)
}

// openWebSocket takes a WebSocket in which the first byte of a message names its
// channel. From the fifth version of the protocol on the client can end one.
func openWebSocket(w http.ResponseWriter, r *http.Request, o commanded) (*talk, error) {
	channel := func(wanted bool, kind wsstream.ChannelType) wsstream.ChannelType {
		if !wanted {
			return wsstream.IgnoreChannel
		}
		return kind
	}
	channels := make([]wsstream.ChannelType, 5)
	channels[remotecommand.StreamStdIn] = channel(o.stdin, wsstream.ReadChannel)
	channels[remotecommand.StreamStdOut] = channel(o.stdout, wsstream.WriteChannel)
	channels[remotecommand.StreamStdErr] = channel(o.stderr, wsstream.WriteChannel)
	// Nothing comes on this one: that it can be read no more means that the
	// client is gone.
	channels[remotecommand.StreamErr] = wsstream.ReadWriteChannel
	channels[remotecommand.StreamResize] = channel(o.tty, wsstream.ReadChannel)
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommand.StreamProtocolV5Name:              {Binary: true, Channels: channels},
		remotecommand.StreamProtocolV4Name:              {Binary: true, Channels: channels},
		"v4." + wsstream.Base64ChannelWebSocketProtocol: {Binary: false, Channels: channels},
	})
	conn.SetIdleTimeout(idleTimeout)
	_, streams, err := conn.Open(w, r)
	if err != nil {
		return nil, err
	}
	t := &talk{
		status: streams[remotecommand.StreamErr],
		gone:   func() { _, _ = io.Copy(io.Discard, streams[remotecommand.StreamErr]) },
		end:    func() { _ = conn.Close() }, // whatever it says, it is over
	}
	first := t.status
	if o.stderr {
		t.stderr, first = streams[remotecommand.StreamStdErr], streams[remotecommand.StreamStdErr]
	}
	if o.stdout {
		t.stdout, first = streams[remotecommand.StreamStdOut], streams[remotecommand.StreamStdOut]
	}
	if o.stdin {
		t.stdin = streams[remotecommand.StreamStdIn]
	}
	if o.tty {
		t.resize = streams[remotecommand.StreamResize]
	}
	// An empty message says that the connection is made.
	if _, err := first.Write(nil); err != nil {
		t.end()
		return nil, err
	}
	return t, nil
}

// openSPDY takes a SPDY connection in which every channel is a stream that the
// client opens.
func openSPDY(w http.ResponseWriter, r *http.Request, o commanded) (*talk, error) {
	if _, err := httpstream.Handshake(r, w, []string{remotecommand.StreamProtocolV4Name}); err != nil {
		return nil, err
	}
	opened := make(chan offered, 8)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, replied <-chan struct{}) error {
		select {
		case opened <- offered{stream, replied}:
			return nil
		default:
			return errors.New("too many streams")
		}
	})
	if conn == nil {
		return nil, errors.New("the connection was not upgraded")
	}
	conn.SetIdleTimeout(idleTimeout)
	wanted := map[string]bool{
		corev1.StreamTypeError: true, corev1.StreamTypeStdin: o.stdin, corev1.StreamTypeStdout: o.stdout,
		corev1.StreamTypeStderr: o.stderr, corev1.StreamTypeResize: o.tty,
	}
	streams, err := await(r.Context(), conn, opened, wanted)
	if err != nil {
		_ = conn.Close() // the client has not done its part
		return nil, err
	}
	t := &talk{gone: func() { <-conn.CloseChan() }, status: streams[corev1.StreamTypeError]}
	if o.stdin {
		t.stdin = streams[corev1.StreamTypeStdin]
	}
	if o.stdout {
		t.stdout = streams[corev1.StreamTypeStdout]
	}
	if o.stderr {
		t.stderr = streams[corev1.StreamTypeStderr]
	}
	if o.tty {
		t.resize = streams[corev1.StreamTypeResize]
	}
	t.end = func() {
		for _, kind := range []string{corev1.StreamTypeStdout, corev1.StreamTypeStderr, corev1.StreamTypeError} {
			if streams[kind] != nil {
				_ = streams[kind].Close() // the connection itself ends next
			}
		}
		_ = conn.Close() // whatever it says, it is over
	}
	return t, nil
}

// offered is a stream that a client wants to open.
type offered struct {
	stream  httpstream.Stream
	replied <-chan struct{} // closed when the client was answered
}

// accepted returns the stream, after the client was told that it is open: for a
// client that is told of its end first it was never opened. The answer follows at
// once when the connection's handler has returned.
func (o offered) accepted() httpstream.Stream {
	<-o.replied
	return o.stream
}

// await waits until a client has opened the streams that are wanted.
func await(ctx context.Context, conn httpstream.Connection, opened <-chan offered, wanted map[string]bool) (map[string]httpstream.Stream, error) {
	left := 0
	for _, wants := range wanted {
		if wants {
			left++
		}
	}
	streams := map[string]httpstream.Stream{}
	late := time.NewTimer(remotecommand.DefaultStreamCreationTimeout)
	defer late.Stop()
	for left > 0 {
		select {
		case offer := <-opened:
			stream := offer.accepted()
			kind := stream.Headers().Get(corev1.StreamType)
			if wanted[kind] && streams[kind] == nil {
				streams[kind] = stream
				left--
			}
		case <-conn.CloseChan():
			return nil, io.ErrUnexpectedEOF
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-late.C:
			return nil, errors.New("the client did not open its streams in time")
		}
	}
	return streams, nil
}

// quiet returns the request with a context in which the libraries that serve it
// log nothing: what goes wrong is the client's to see.
func quiet(r *http.Request) *http.Request {
	return r.WithContext(klog.NewContext(r.Context(), klog.Logger{}))
}

// gentle makes connections that are taken from w end gently.
func gentle(w http.ResponseWriter) http.ResponseWriter { return gentleWriter{w} }

type gentleWriter struct{ http.ResponseWriter }

func (g gentleWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(g.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return &gentleConn{Conn: conn}, buffered, nil
}

// lingerFor is how long a client may take to end its side.
const lingerFor = time.Second

// gentleConn ends in the direction to the client first. The kernel resets a
// connection that is closed while something unread came on it, and what the
// client has not read yet is lost with it: how its command ended, above all.
type gentleConn struct {
	net.Conn
	once sync.Once
	err  error
}

func (c *gentleConn) Close() error {
	c.once.Do(func() {
		_ = c.SetDeadline(time.Now().Add(lingerFor)) // what fails here, fails below
		if t, ok := c.Conn.(*tls.Conn); ok && t.CloseWrite() == nil {
			_, _ = io.Copy(io.Discard, c.Conn)
		}
		c.err = c.Conn.Close()
	})
	return c.err
}
