package satellite

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
)

// maxRequest bounds a request, in bytes.
const maxRequest = 4 << 10

// Serve answers requests until answer says to quit, after its reply was sent. It
// returns an error when another process serves the socket, or it cannot be made.
// answer may be called concurrently; what is no request is answered without it.
// ready is called once the socket is this process's, before the first request;
// its error is returned.
func Serve[Request any](socket string, ready func() error, answer func(Request) (reply any, quit bool)) error {
	lock, err := os.OpenFile(socket+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock %s: %w", socket, err)
	}
	defer lock.Close() //nolint:errcheck // the process ends
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: another process serves it: %w", socket, err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	quit := sync.OnceFunc(func() { listener.Close() })
	defer quit()
	_ = os.Chmod(socket, 0o600)
	if err := ready(); err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		go func() {
			defer conn.Close()
			if talk(conn, answer) {
				quit()
			}
		}()
	}
}

// A mistake is the reply to what is no request. Every protocol has this field.
type mistake struct {
	Error string `json:"error"`
}

// talk answers one connection until it ends, and reports whether to quit.
func talk[Request any](conn net.Conn, answer func(Request) (any, bool)) (quit bool) {
	in := bufio.NewReaderSize(conn, maxRequest)
	for !quit {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return false
		}
		var request Request
		var reply any
		if err := json.Unmarshal(line, &request); err != nil {
			reply = mistake{"read request: " + err.Error()}
		} else {
			reply, quit = answer(request)
		}
		out, err := json.Marshal(reply)
		if err != nil {
			return quit
		}
		if _, err := conn.Write(append(out, '\n')); err != nil {
			return quit
		}
	}
	return true
}
