package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"

	kubeapi "github.com/shoal-dev/shoal/daemon/api"
	"github.com/shoal-dev/shoal/gossip/peer"
	"github.com/shoal-dev/shoal/runtime"
)

// Commands, outputs and ports of containers, on whichever node they are.

// The kinds of streams that carry them. Each begins with a question.
const (
	streamExec    = "exec"
	streamForward = "forward"
	streamDebug   = "debug"
)

// execQuestion asks a node to run a command in a container, or to attach to it
// when there is no command.
type execQuestion struct {
	Instance  string   `json:"instance"`
	Container string   `json:"container"`
	Command   []string `json:"command,omitempty"`
	Stdin     bool     `json:"stdin,omitempty"`
	Stdout    bool     `json:"stdout,omitempty"`
	Stderr    bool     `json:"stderr,omitempty"`
	TTY       bool     `json:"tty,omitempty"`
}

// forwardQuestion asks for a connection to a port of a pod. A line with an exit
// answers it, then the bytes follow.
type forwardQuestion struct {
	Instance string `json:"instance"`
	Port     uint16 `json:"port"`
}

// containers is what the API reaches containers through.
type containers struct{ c *control }

// Exec runs a command in a container, wherever it is.
func (r containers) Exec(ctx context.Context, in kubeapi.Target, command []string, streams runtime.Streams) (int, error) {
	node, remote, err := r.c.whereIs(in.Instance)
	r.c.log.Info("a command is run in a container", "user", in.User, "pod", in.Pod, "container", in.Container, "node", node, "command", command)
	switch {
	case err != nil:
		return 0, err
	case remote:
		return r.c.execOn(ctx, node, question(in, command, streams), streams)
	}
	return r.c.agent.Exec(ctx, in.Instance, in.Container, command, streams)
}

// Attach follows the outputs of a container, wherever it is.
func (r containers) Attach(ctx context.Context, to kubeapi.Target, streams runtime.Streams) error {
	node, remote, err := r.c.whereIs(to.Instance)
	r.c.log.Info("a container is attached to", "user", to.User, "pod", to.Pod, "container", to.Container, "node", node)
	switch {
	case err != nil:
		return err
	case remote:
		_, err := r.c.execOn(ctx, node, question(to, nil, streams), streams)
		return err
	}
	return r.c.agent.Attach(ctx, to.Instance, to.Container, streams)
}

func question(to kubeapi.Target, command []string, streams runtime.Streams) execQuestion {
	return execQuestion{
		Instance: to.Instance, Container: to.Container, Command: command, TTY: streams.TTY,
		Stdin: streams.Stdin != nil, Stdout: streams.Stdout != nil, Stderr: streams.Stderr != nil,
	}
}

// Forward connects to a port of a pod, wherever it is.
func (r containers) Forward(ctx context.Context, to kubeapi.Target, port uint16) (io.ReadWriteCloser, error) {
	node, remote, err := r.c.whereIs(to.Instance)
	r.c.log.Info("a port of a pod is connected to", "user", to.User, "pod", to.Pod, "port", port, "node", node)
	switch {
	case err != nil:
		return nil, err
	case remote:
		return r.c.forwardOn(ctx, node, forwardQuestion{to.Instance, port})
	}
	return r.c.agent.Forward(ctx, to.Instance, port)
}

// debugQuestion asks a node to add a container to a pod. A line with an exit answers.
type debugQuestion struct {
	Instance  string                    `json:"instance"`
	Container corev1.EphemeralContainer `json:"container"`
}

// Debug adds a container to a pod, wherever it is.
func (r containers) Debug(ctx context.Context, to kubeapi.Target, added corev1.EphemeralContainer) error {
	node, remote, err := r.c.whereIs(to.Instance)
	r.c.log.Info("a container is added to a pod", "user", to.User, "pod", to.Pod, "container", added.Name, "image", added.Image, "node", node, "command", added.Command)
	switch {
	case err != nil:
		return err
	case remote:
		return r.c.debugOn(ctx, node, debugQuestion{to.Instance, added})
	}
	return r.c.agent.Debug(to.Instance, added)
}

// debugOn adds a container to a pod of another node.
func (c *control) debugOn(ctx context.Context, node string, q debugQuestion) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.part.Open(ctx, node, streamDebug)
	if err == nil {
		err = writeLine(stream, q)
	}
	var answer exit
	if err == nil {
		err = readLine(stream, &answer)
	}
	if err != nil {
		return fmt.Errorf("reach node %s, where the pod is: %w", node, err)
	}
	if answer.Error != "" {
		return fmt.Errorf("on node %s: %s", node, answer.Error)
	}
	return nil
}

// serveDebug adds a container to a pod for another node.
func (c *control) serveDebug(stream peer.Stream) error {
	var q debugQuestion
	if err := readLine(stream, &q); err != nil {
		return err
	}
	var answer exit
	if err := c.agent.Debug(q.Instance, q.Container); err != nil {
		answer.Error = err.Error()
	}
	return writeLine(stream, answer)
}

// whereIs returns the node that a pod is on, and whether it is another one.
func (c *control) whereIs(instance string) (node string, remote bool, err error) {
	v := c.view.Load()
	if v == nil {
		return "", false, errors.New("this node has not listed its pods yet")
	}
	for _, p := range v.pods {
		if p.pod.Instance == instance {
			node = p.node
		}
	}
	if node == "" || node == c.cfg.Node {
		return c.cfg.Node, false, nil
	}
	if v.board.HealthOf(node).Gone() {
		return node, true, fmt.Errorf("node %s, where the pod is, is out of reach: nothing is heard of it", node)
	}
	return node, true, nil
}

// execOn runs a command on another node, which looks the container up itself.
func (c *control) execOn(ctx context.Context, node string, q execQuestion, streams runtime.Streams) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.part.Open(ctx, node, streamExec)
	if err == nil {
		err = writeLine(stream, q)
	}
	if err != nil {
		return 0, fmt.Errorf("reach node %s, where the pod is: %w", node, err)
	}
	// Both end with the stream, or with what they read from.
	m := &multiplexer{to: stream}
	if streams.Stdin != nil {
		go func() {
			_, _ = io.Copy(m.on(channelStdin), streams.Stdin) // a stream that has ended is seen below
			_ = m.send(channelEnd, nil)
		}()
	}
	if streams.Resize != nil {
		go func() {
			for size := range streams.Resize {
				_ = m.sendJSON(channelResize, size) // likewise
			}
		}()
	}
	return receive(stream, streams, node)
}

// receive passes on what a command on another node writes, until it has ended.
func receive(from io.Reader, streams runtime.Streams, node string) (int, error) {
	buffer := make([]byte, maxFrame)
	for {
		on, data, err := readFrame(from, buffer)
		if err != nil {
			return 0, fmt.Errorf("the connection to node %s, where the pod is, has ended: %w", node, err)
		}
		switch on {
		case channelStdout:
			err = pass(streams.Stdout, data)
		case channelStderr:
			err = pass(streams.Stderr, data)
		case channelExit:
			var end exit
			if err := json.Unmarshal(data, &end); err != nil {
				return 0, fmt.Errorf("read how the command on node %s ended: %w", node, err)
			}
			if end.Error != "" {
				return 0, fmt.Errorf("on node %s: %s", node, end.Error)
			}
			return end.Code, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func pass(to io.Writer, data []byte) error {
	if to == nil {
		return nil
	}
	_, err := to.Write(data)
	return err
}

// serveExec runs a command for another node. Its end, or that of the other node's
// interest, ends the command.
func (c *control) serveExec(ctx context.Context, stream peer.Stream) error {
	var q execQuestion
	if err := readLine(stream, &q); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &multiplexer{to: stream}
	streams := runtime.Streams{TTY: q.TTY}
	if q.Stdout {
		streams.Stdout = m.on(channelStdout)
	}
	if q.Stderr {
		streams.Stderr = m.on(channelStderr)
	}
	stdin, typed := io.Pipe()
	defer stdin.Close() //nolint:errcheck // it never fails
	if q.Stdin {
		streams.Stdin = stdin
	}
	sizes := make(chan runtime.Size)
	streams.Resize = sizes
	go func() { // ends with the stream
		defer close(sizes)
		_ = typed.CloseWithError(distribute(ctx, stream, typed, sizes)) // it never fails
	}()
	var end exit
	var err error
	if len(q.Command) > 0 {
		end.Code, err = c.agent.Exec(ctx, q.Instance, q.Container, q.Command, streams)
	} else {
		err = c.agent.Attach(ctx, q.Instance, q.Container, streams)
	}
	if err != nil {
		end.Error = err.Error()
	}
	return m.sendJSON(channelExit, end)
}

// distribute hands out what comes for a command.
func distribute(ctx context.Context, from io.Reader, typed *io.PipeWriter, sizes chan<- runtime.Size) error {
	buffer := make([]byte, maxFrame)
	for {
		on, data, err := readFrame(from, buffer)
		if err != nil {
			return err
		}
		switch on {
		case channelStdin:
			if _, err := typed.Write(data); err != nil {
				continue // the command has ended, or reads no more
			}
		case channelEnd:
			_ = typed.Close() // it never fails
		case channelResize:
			var size runtime.Size
			if err := json.Unmarshal(data, &size); err != nil {
				return fmt.Errorf("read the size of a terminal: %w", err)
			}
			select {
			case sizes <- size:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// forwardOn connects to a port of a pod on another node.
func (c *control) forwardOn(ctx context.Context, node string, q forwardQuestion) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.part.Open(ctx, node, streamForward)
	if err == nil {
		err = writeLine(stream, q)
	}
	var answer exit
	if err == nil {
		err = readLine(stream, &answer)
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("reach node %s, where the pod is: %w", node, err)
	}
	if answer.Error != "" {
		cancel()
		return nil, fmt.Errorf("on node %s: %s", node, answer.Error)
	}
	return &remoteConn{stream, cancel}, nil
}

// remoteConn is a connection through another node.
type remoteConn struct {
	peer.Stream
	cancel func()
}

func (r *remoteConn) Close() error { r.cancel(); return nil }

// serveForward connects another node to a port of a pod.
func (c *control) serveForward(ctx context.Context, stream peer.Stream) error {
	var q forwardQuestion
	if err := readLine(stream, &q); err != nil {
		return err
	}
	conn, err := c.agent.Forward(ctx, q.Instance, q.Port)
	if err != nil {
		return writeLine(stream, exit{Error: err.Error()})
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // what waits for it ends
	if err := writeLine(stream, exit{}); err != nil {
		return err
	}
	go func() { // ends with the stream
		_, _ = io.Copy(conn, stream) // what is not passed on, the other end misses
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	_, err = io.Copy(stream, conn)
	return err
}
