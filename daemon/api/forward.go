package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/portforward"
	tunnel "k8s.io/client-go/tools/portforward"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// maxForwards is how many connections one client may have open at a time
// through one of its connections.
const maxForwards = 256

// serveForward connects a client to ports of a pod: to each pair of streams that
// it opens, one for data and one for an error, belongs a connection.
func (s *Server) serveForward(w http.ResponseWriter, r *http.Request, to Target) {
	opened := make(chan offered)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	conn, err := openForward(w, r, func(stream httpstream.Stream, replied <-chan struct{}) error {
		if _, err := portOf(stream); err != nil {
			return err
		}
		select {
		case opened <- offered{stream, replied}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return // the client was told
	}
	defer conn.Close() //nolint:errcheck // it is over
	conn.SetIdleTimeout(idleTimeout)
	halves := map[string]httpstream.Stream{} // the first stream of a pair, by the pair's name
	slots := make(chan struct{}, maxForwards)
	for {
		select {
		case <-conn.CloseChan():
			return
		case <-ctx.Done():
			return
		case offer := <-opened:
			stream := offer.accepted()
			name := stream.Headers().Get(corev1.PortForwardRequestIDHeader)
			other := halves[name]
			delete(halves, name)
			if other == nil && len(halves) < maxForwards {
				halves[name] = stream
				continue
			}
			p, err := pairOf(stream, other)
			if err != nil {
				for _, stream := range []httpstream.Stream{stream, other} {
					if stream != nil {
						_ = stream.Reset() // the client has not kept to the protocol
					}
				}
				continue
			}
			select {
			case slots <- struct{}{}:
			default:
				p.refuse(fmt.Errorf("more than %d connections at a time", maxForwards))
				conn.RemoveStreams(p.data, p.failure)
				continue
			}
			go func() { // ends with ctx, which ends with the connection
				defer func() { <-slots }()
				defer conn.RemoveStreams(p.data, p.failure)
				s.forward(ctx, to, p)
			}()
		}
	}
}

// openForward upgrades a request to a SPDY connection, through a WebSocket if
// the client wants it so. On an error the client was told.
func openForward(w http.ResponseWriter, r *http.Request, opened httpstream.NewStreamHandler) (httpstream.Connection, error) {
	if !wsstream.IsWebSocketRequest(r) {
		if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardV1Name}); err != nil {
			return nil, err
		}
		conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, opened)
		if conn == nil {
			return nil, errors.New("the connection was not upgraded")
		}
		return conn, nil
	}
	if !slices.Contains(websocket.Subprotocols(r), portforward.WebsocketsSPDYTunnelingPortForwardV1) {
		err := errors.New("ports are forwarded over the subprotocol " + portforward.WebsocketsSPDYTunnelingPortForwardV1 + " only")
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, err
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: 10 * time.Second, Subprotocols: []string{portforward.WebsocketsSPDYTunnelingPortForwardV1},
	}
	socket, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil, err
	}
	return spdy.NewServerConnection(tunnel.NewTunnelingConnectionWithLogger(klog.Logger{}, socket), opened)
}

// portOf returns the port that a stream is for.
func portOf(stream httpstream.Stream) (uint16, error) {
	text := stream.Headers().Get(corev1.PortHeader)
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%q is no port", text)
	}
	return uint16(port), nil
}

// pair is the two streams of a forwarded connection.
type pair struct {
	data, failure httpstream.Stream
	port          uint16
}

func pairOf(one, other httpstream.Stream) (pair, error) {
	var p pair
	for _, stream := range []httpstream.Stream{one, other} {
		if stream == nil {
			continue
		}
		switch stream.Headers().Get(corev1.StreamType) {
		case corev1.StreamTypeData:
			p.data = stream
		case corev1.StreamTypeError:
			p.failure = stream
		}
	}
	if p.data == nil || p.failure == nil {
		return p, errors.New("a forwarded connection has a stream of data and one of errors")
	}
	var err error
	p.port, err = portOf(p.data)
	return p, err
}

// refuse says why there is no connection.
func (p pair) refuse(err error) {
	_, _ = io.WriteString(p.failure, err.Error()) // a client that is gone needs no answer
	_ = p.failure.Close()                         // likewise
	_ = p.data.Reset()                            // likewise
}

// forward connects a pair of streams to a port, until the port's end ends.
func (s *Server) forward(ctx context.Context, to Target, p pair) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := s.cfg.Containers.Forward(ctx, to, p.port)
	if err != nil {
		p.refuse(fmt.Errorf("error forwarding port %d to pod %s: %w", p.port, to.Pod, err))
		return
	}
	defer conn.Close() //nolint:errcheck // all that came was passed on
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	go func() { // ends with the stream
		_, _ = io.Copy(conn, p.data) // the other end sees what is missing
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	_, _ = io.Copy(p.data, conn) // likewise
	_ = p.data.Close()
	_ = p.failure.Close()
}
