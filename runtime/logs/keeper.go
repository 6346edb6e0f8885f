package logs

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-dev/shoal/runtime/keeper"
	"github.com/shoal-dev/shoal/runtime/satellite"
)

//go:embed all:keeper
var embedded embed.FS

// ErrNoKeeper is returned by StartKeeper when the program was built without the
// keeper inside.
var ErrNoKeeper = errors.New("this program was built without shoal-keeper inside; build it with `make build`")

// KeeperConfig says where the keeper lives.
type KeeperConfig struct {
	RunDir string // socket and FIFOs; /run/shoal
	BinDir string // where the program is unpacked; /var/lib/shoal/bin
	// Program is used instead of the embedded keeper when it is not empty.
	Program []byte
}

// Keeper is the connection to the keeper process. It may be used concurrently.
type Keeper struct {
	cfg     KeeperConfig
	program string // path
	version string

	mu   sync.Mutex
	conn *satellite.Conn // nil while there is none
	held map[string]keeper.Request
	pid  int
}

// EmbeddedKeeper returns the keeper program that this one carries, or
// ErrNoKeeper.
func EmbeddedKeeper() ([]byte, error) {
	program, err := fs.ReadFile(embedded, "keeper/shoal-keeper")
	if err != nil {
		return nil, ErrNoKeeper
	}
	return program, nil
}

// StartKeeper connects to the keeper that runs, or starts one. A keeper of
// another build is replaced; nothing is lost, as the FIFOs stay.
func StartKeeper(ctx context.Context, cfg KeeperConfig) (*Keeper, error) {
	program := cfg.Program
	if program == nil {
		var err error
		if program, err = EmbeddedKeeper(); err != nil {
			return nil, err
		}
	}
	sum := sha256.Sum256(program)
	k := &Keeper{cfg: cfg, version: hex.EncodeToString(sum[:8]), held: map[string]keeper.Request{}}
	if err := os.MkdirAll(filepath.Join(cfg.RunDir, "fifo"), 0o711); err != nil {
		return nil, err
	}
	var err error
	if k.program, err = unpack(cfg.BinDir, k.version, program); err != nil {
		return nil, fmt.Errorf("unpack the keeper: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k, k.ensure(ctx)
}

// unpack writes the program below dir, once per version, and removes others.
func unpack(dir, version string, program []byte) (string, error) {
	path := filepath.Join(dir, "shoal-keeper-"+version)
	if info, err := os.Stat(path); err == nil && info.Size() == int64(len(program)) {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	old, _ := filepath.Glob(filepath.Join(dir, "shoal-keeper-*"))
	for _, o := range old {
		_ = os.Remove(o)
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, program, 0o755); err != nil {
		return "", err
	}
	return path, os.Rename(temporary, path)
}

func (k *Keeper) socket() string { return filepath.Join(k.cfg.RunDir, "keeper.sock") }

// ensure connects, starting a keeper where none answers. k.mu is held.
func (k *Keeper) ensure(ctx context.Context) error {
	if k.conn != nil {
		return nil
	}
	if err := k.connect(); err == nil {
		reply, err := k.ask(keeper.Request{Verb: keeper.Ping})
		if err == nil && reply.Version == k.version {
			k.pid = reply.PID
			return k.replay()
		}
		if err == nil {
			_, _ = k.ask(keeper.Request{Verb: keeper.Quit})
		}
		k.hangUp()
	}
	if err := k.start(ctx); err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	return k.replay()
}

// How long a keeper may take to answer, and a new one to start.
const (
	answerWithin = 5 * time.Second
	startWithin  = 10 * time.Second
)

// start runs the keeper and waits until it answers.
func (k *Keeper) start(ctx context.Context) error {
	command := []string{k.program, "-socket", k.socket(), "-version", k.version}
	return satellite.Start(ctx, startWithin, command, func() bool {
		if k.connect() != nil {
			return false
		}
		reply, err := k.ask(keeper.Request{Verb: keeper.Ping})
		if err != nil || reply.Version != k.version {
			k.hangUp()
			return false
		}
		k.pid = reply.PID
		return true
	})
}

func (k *Keeper) connect() error {
	conn, err := satellite.Dial(k.socket(), answerWithin)
	if err == nil {
		k.conn = conn
	}
	return err
}

func (k *Keeper) hangUp() {
	if k.conn != nil {
		k.conn.Close()
		k.conn = nil
	}
}

// replay tells a keeper everything that it has to hold.
func (k *Keeper) replay() error {
	ids := make([]string, 0, len(k.held))
	for id := range k.held {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	var errs []error
	for _, id := range ids {
		if _, err := k.ask(k.held[id]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ask sends one request over the connection. k.mu is held.
func (k *Keeper) ask(r keeper.Request) (keeper.Reply, error) {
	var reply keeper.Reply
	if err := k.conn.Ask(r, &reply); err != nil {
		return reply, err
	}
	if reply.Error != "" {
		return reply, satellite.Refusal(reply.Error)
	}
	return reply, nil
}

// request sends one request, to a new keeper if the old one is gone.
func (k *Keeper) request(ctx context.Context, r keeper.Request) (keeper.Reply, error) {
	for try := 0; ; try++ {
		if err := k.ensure(ctx); err != nil {
			return keeper.Reply{}, err
		}
		reply, err := k.ask(r)
		if _, said := errors.AsType[satellite.Refusal](err); err == nil || said {
			return reply, err
		}
		k.hangUp()
		if try == 1 {
			return reply, err
		}
	}
}

// Open makes the FIFOs of a container and has the keeper write what comes
// through them to the log file at path. It is idempotent.
func (k *Keeper) Open(ctx context.Context, id, path string) (stdout, stderr string, err error) {
	stdout, stderr = k.FIFOs(id)
	for _, fifo := range []string{stdout, stderr} {
		if err := syscall.Mkfifo(fifo, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", "", fmt.Errorf("make %s: %w", fifo, err)
		}
	}
	r := keeper.Request{Verb: keeper.Open, ID: id, Stdout: stdout, Stderr: stderr, Path: path}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.request(ctx, r); err != nil {
		return "", "", fmt.Errorf("keep the log of %s: %w", id, err)
	}
	k.held[id] = r
	return stdout, stderr, nil
}

// FIFOs returns where a container's FIFOs are.
func (k *Keeper) FIFOs(id string) (stdout, stderr string) {
	base := filepath.Join(k.cfg.RunDir, "fifo", id)
	return base + ".out", base + ".err"
}

// teeSequence names the FIFOs of listeners.
var teeSequence atomic.Int64

// teeSize is how much a listener may be behind before it misses something, in
// bytes of each output.
const teeSize = 1 << 20

// Tee returns what a container that is open writes from now on. Both outputs end
// when it is closed, and when the keeper does.
func (k *Keeper) Tee(ctx context.Context, id string) (stdout, stderr io.ReadCloser, err error) {
	name := filepath.Join(k.cfg.RunDir, fmt.Sprintf("tee-%d-%d", os.Getpid(), teeSequence.Add(1)))
	out, err := listen(name + ".out")
	if err != nil {
		return nil, nil, err
	}
	wrong, err := listen(name + ".err")
	if err == nil {
		k.mu.Lock()
		_, err = k.request(ctx, keeper.Request{Verb: keeper.Tee, ID: id, Stdout: out.Name(), Stderr: wrong.Name()})
		k.mu.Unlock()
		err = errors.Join(err, os.Remove(wrong.Name()))
		if err != nil {
			_ = wrong.Close() // nothing was read
		}
	}
	err = errors.Join(err, os.Remove(out.Name()))
	if err != nil {
		_ = out.Close() // likewise
		return nil, nil, fmt.Errorf("listen to %s: %w", id, err)
	}
	return out, wrong, nil
}

// listen makes a FIFO and opens its reading end.
func listen(path string) (*os.File, error) {
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(path))
	}
	return file, raw.Control(func(fd uintptr) {
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, teeSize) // what the kernel does not grant is done without
	})
}

// Close has the keeper write what is left in the container's FIFOs, and removes
// them. Closing what is not open is fine.
func (k *Keeper) Close(ctx context.Context, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.held, id)
	_, err := k.request(ctx, keeper.Request{Verb: keeper.Close, ID: id})
	if err != nil {
		return fmt.Errorf("close the log of %s: %w", id, err)
	}
	stdout, stderr := k.FIFOs(id)
	for _, fifo := range []string{stdout, stderr} {
		if err := os.Remove(fifo); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// CloseAll closes every container whose ID begins with a prefix, also those
// that only their FIFOs tell of.
func (k *Keeper) CloseAll(ctx context.Context, prefix string) error {
	entries, err := os.ReadDir(filepath.Join(k.cfg.RunDir, "fifo"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	last := ""
	for _, e := range entries {
		id := strings.TrimSuffix(strings.TrimSuffix(e.Name(), ".out"), ".err")
		if id != last && strings.HasPrefix(id, prefix) {
			errs = append(errs, k.Close(ctx, id))
			last = id
		}
	}
	return errors.Join(errs...)
}

// Held returns the IDs that the keeper holds, sorted.
func (k *Keeper) Held(ctx context.Context) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	reply, err := k.request(ctx, keeper.Request{Verb: keeper.List})
	return reply.Held, err
}

// Program returns the path of the keeper's program, which has other uses too,
// and its version.
func (k *Keeper) Program() (path, version string) { return k.program, k.version }

// PID returns the process ID of the keeper that answered last.
func (k *Keeper) PID() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pid
}

// Run restarts the keeper whenever it ends, until ctx does. The keeper itself
// goes on. failed is told when it cannot be restarted.
func (k *Keeper) Run(ctx context.Context, failed func(error)) {
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		k.mu.Lock()
		err := k.ensure(ctx)
		k.mu.Unlock()
		if err != nil {
			failed(err)
			wait = min(30*time.Second, 2*wait+time.Second)
			continue
		}
		wait = 10 * time.Millisecond
		k.watch(ctx)
		k.mu.Lock()
		k.hangUp()
		k.mu.Unlock()
	}
}

// watch returns when the keeper has ended or ctx has.
func (k *Keeper) watch(ctx context.Context) {
	conn, err := net.Dial("unix", k.socket())
	if err != nil {
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_, _ = conn.Read(make([]byte, 1)) // nothing is ever sent: it returns at the end
}

// Stop ends the keeper and the connection; the containers' output waits.
func (k *Keeper) Stop() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.quit()
}

func (k *Keeper) quit() error {
	if k.conn == nil {
		if err := k.connect(); err != nil {
			return nil
		}
	}
	_, err := k.ask(keeper.Request{Verb: keeper.Quit})
	k.hangUp()
	return err
}

// StopKeeper ends the keeper of a run directory, if there is one.
func StopKeeper(runDir string) error {
	k := &Keeper{cfg: KeeperConfig{RunDir: runDir}}
	return k.Stop()
}
