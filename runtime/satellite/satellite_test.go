package satellite_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime/satellite"
)

type message struct {
	Text string `json:"text"`
}

// TestServe: requests are answered, one too long ends its connection and no
// other, a second process is refused the socket until the first has quit.
func TestServe(t *testing.T) {
	socket := filepath.Join(testenv.Dir(t), "s.sock")
	answer := func(m message) (any, bool) { return message{Text: "heard " + m.Text}, m.Text == "quit" }
	serve := func(ready func() error) error { return satellite.Serve(socket, ready, answer) }
	up, ended := make(chan bool), make(chan error, 1)
	go func() { ended <- serve(func() error { close(up); return nil }) }()
	<-up
	if err := serve(func() error { t.Error("two serve"); return nil }); err == nil || !strings.Contains(err.Error(), "another process serves it") {
		t.Errorf("a second one: %v", err)
	}
	dial := func() *satellite.Conn {
		c, err := satellite.Dial(socket, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	long, short := dial(), dial()
	var reply message
	if err := long.Ask(message{strings.Repeat("x", 8<<10)}, &reply); err == nil {
		t.Errorf("a request of 8 KiB is answered: %.20q", reply.Text)
	}
	var refused struct{ Error string }
	if err := short.Ask([]string{"no", "message"}, &refused); err != nil || !strings.Contains(refused.Error, "read request") {
		t.Errorf("what is no request: %q, %v", refused.Error, err)
	}
	for _, text := range []string{"one", "two", "quit"} {
		if err := short.Ask(message{text}, &reply); err != nil || reply.Text != "heard "+text {
			t.Errorf("%s: %q, %v", text, reply.Text, err)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("after it quit: %v", err)
	}
	if _, err := satellite.Dial(socket, time.Second); err == nil {
		t.Error("somebody serves still")
	}
}

// TestStart: a program that ends is started again, for so long; one that answers
// nothing is given up.
func TestStart(t *testing.T) {
	asked := 0
	if err := satellite.Start(t.Context(), 5*time.Second, []string{"/bin/true"}, func() bool { asked++; return asked > 20 }); err != nil {
		t.Errorf("it answers in the end: %v", err)
	}
	for command, want := range map[string]string{"/bin/false": "ended: exit status 1", "/bin/cat": "ended"} {
		err := satellite.Start(t.Context(), 50*time.Millisecond, []string{command}, func() bool { return false })
		if err == nil || !strings.Contains(err.Error(), want) && !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("%s: %v", command, err)
		}
	}
	if err := satellite.Start(t.Context(), time.Second, []string{"/nowhere/at/all"}, func() bool { return false }); err == nil {
		t.Error("a program that is not there was started")
	}
}
