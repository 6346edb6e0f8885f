package satellite

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Refusal is what a satellite says is wrong with a request; the connection is
// fine.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// Conn is a connection to a satellite. It must not be used concurrently.
type Conn struct {
	conn   net.Conn
	in     *bufio.Reader
	within time.Duration
	pid    int
	pidfd  int // of the process at the other end; -1 when there is none
}

// Dial connects to whoever serves a socket. Each answer must come within a time.
func Dial(socket string, within time.Duration) (*Conn, error) {
	conn, err := net.DialTimeout("unix", socket, within)
	if err != nil {
		return nil, err
	}
	c := &Conn{conn: conn, in: bufio.NewReader(conn), within: within, pidfd: -1}
	c.meet(conn.(*net.UnixConn)) //nolint:errcheck // a connection to a unix socket is one
	return c, nil
}

// meet notes which process is at the other end, by a descriptor that does not
// come to mean another one.
func (c *Conn) meet(conn *net.UnixConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			c.pid = int(peer.Pid)
		}
	})
	if fd, err := unix.PidfdOpen(c.pid, 0); err == nil {
		c.pidfd = fd
	}
}

// Ask sends a request and waits for the reply.
func (c *Conn) Ask(request, reply any) error {
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	_ = c.conn.SetDeadline(time.Now().Add(c.within))
	if _, err := c.conn.Write(append(line, '\n')); err != nil {
		return err
	}
	answer, err := c.in.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, reply)
}

// PID returns the process ID of the other end, 0 when it is not known.
func (c *Conn) PID() int { return c.pid }

// Kill kills the process at the other end, which may have ended.
func (c *Conn) Kill() {
	if c.pidfd >= 0 {
		_ = unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
	}
}

// Close hangs up. The process runs on.
func (c *Conn) Close() {
	if c.pidfd >= 0 {
		_ = unix.Close(c.pidfd)
		c.pidfd = -1
	}
	_ = c.conn.Close() // whatever was said is said
}

// Start runs a program in a session of its own until the one that serves the
// socket answers, as answers finds out; within is how long that may take. A
// program that ends, because the one before it had not let go of its lock yet,
// is started again.
func Start(ctx context.Context, within time.Duration, command []string, answers func() bool) error {
	deadline := time.Now().Add(within)
	for {
		cmd := exec.Command(command[0], command[1:]...) //nolint:gosec // it is our own
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- fmt.Errorf("%s ended: %s", command[0], describe(cmd.Wait())) }()
		for waiting := true; waiting; {
			if answers() {
				return nil
			}
			select {
			case err := <-ended:
				if time.Now().After(deadline) {
					return err
				}
				waiting = false
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(2 * time.Millisecond):
				if time.Now().After(deadline) {
					return errors.New("it does not answer")
				}
			}
		}
	}
}

// describe says how a process ended, also when it did so of its own accord.
func describe(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}
