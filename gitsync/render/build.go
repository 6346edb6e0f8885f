package render

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Timeout is how long one build may take.
const Timeout = 90 * time.Second

// Object is one object that a build made.
type Object struct {
	Origin    string          // the file it was written in, relative to the repository's root
	Generated bool            // made by a generator; Origin is the kustomization
	JSON      json.RawMessage // without the annotation that told the origin
}

// Build renders a plan in a child process. The error of a build that the
// author of the files can mend is a *BuildError.
//
// The child is in a network namespace of its own, with nothing in it. Without
// the right to make one (a user who checks his own tree) it runs without: Plan
// has refused everything that could reach out.
func Build(ctx context.Context, tree Tree, plan Plan) ([]Object, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	var archive bytes.Buffer
	if err := pack(&archive, tree, plan.Files); err != nil {
		return nil, fmt.Errorf("render %s: %w", plan.Dir, err)
	}
	var out []byte
	var err error
	for _, flags := range isolation() {
		out, err = run(ctx, plan.Dir, bytes.NewReader(archive.Bytes()), flags)
		if !errors.Is(err, os.ErrPermission) && !errors.Is(err, syscall.ENOSPC) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", plan.Dir, err)
	}
	var answer reply
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("render %s: read the answer: %w", plan.Dir, err)
	}
	if answer.Error != "" {
		return nil, &BuildError{Dir: plan.Dir, Reason: clean(answer.Error)}
	}
	return answer.Objects, nil
}

// BuildError says why a kustomization cannot be built.
type BuildError struct{ Dir, Reason string }

// Error returns the reason with the folder.
func (e *BuildError) Error() string { return "render " + e.Dir + ": " + e.Reason }

// isolation lists the namespaces to try, best first. Root insists on the first.
func isolation() []uintptr {
	if os.Geteuid() == 0 {
		return []uintptr{syscall.CLONE_NEWNET}
	}
	return []uintptr{syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET, 0}
}

func run(ctx context.Context, dir string, archive io.Reader, flags uintptr) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{childName, dir}
	cmd.Env = []string{"GOMAXPROCS=2"}
	cmd.Dir = "/"
	cmd.Stdin = archive
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	var out, errs limited
	out.left, errs.left = maxOutput, 64<<10
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		return nil, fmt.Errorf("took longer than %s", Timeout)
	case err != nil && ranOut(errs.String()):
		return nil, fmt.Errorf("needs more than %d MiB of memory", maxMemory>>20)
	case err != nil:
		first, _, _ := strings.Cut(errs.String(), "\n")
		return nil, fmt.Errorf("render process: %w: %s", err, first)
	}
	return out.Bytes(), nil
}

// ranOut recognizes the last words of a process without memory: the Go
// runtime's, the race detector's.
func ranOut(said string) bool {
	return strings.Contains(said, "out of memory") || strings.Contains(said, "cannot allocate") || strings.Contains(said, "failed to allocate")
}

// limited is a buffer that takes so much and no more.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errors.New("the output is too large")
	}
	return l.Buffer.Write(p)
}

func pack(w io.Writer, tree Tree, files []string) error {
	archive := tar.NewWriter(w)
	for _, file := range files {
		data, err := tree.Read(file)
		var large interface{ TooLarge() bool }
		if errors.As(err, &large) && large.TooLarge() {
			continue // a picture beside the manifests; if it is needed, kustomize will miss it
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		header := &tar.Header{Name: file, Mode: 0o444, Size: int64(len(data)), Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(data); err != nil {
			return err
		}
	}
	return archive.Close()
}

// clean shortens kustomize's chain of "accumulating resources" to its cause.
func clean(reason string) string {
	reason = strings.ReplaceAll(reason, "accumulating resources: ", "")
	return strings.Join(strings.Fields(reason), " ")
}
