package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/shoal-dev/shoal/runtime"
)

// Target is a container of a pod, or the pod where none is named, and who wants
// to reach it.
type Target struct {
	Instance  string // of the pod
	Container string
	Pod       string // namespace and name, for people
	User      string // the client certificate's
}

// Containers are reached through this, on whichever node they are. The methods
// may be called concurrently.
type Containers interface {
	// Debug adds a container to a pod that runs.
	Debug(ctx context.Context, to Target, added corev1.EphemeralContainer) error
	// Exec runs a command until it or ctx ends, and returns its exit code.
	Exec(ctx context.Context, in Target, command []string, streams runtime.Streams) (code int, err error)
	// Attach passes on what a container writes until it or ctx ends.
	Attach(ctx context.Context, to Target, streams runtime.Streams) error
	// Forward connects to a TCP port of a pod. The connection ends with ctx.
	Forward(ctx context.Context, to Target, port uint16) (io.ReadWriteCloser, error)
}

// connections are the subresources of pods that a client connects to.
var connections = []struct{ subresource, kind string }{
	{"attach", "PodAttachOptions"}, {"exec", "PodExecOptions"}, {"portforward", "PodPortForwardOptions"},
}

func connected(subresource string) bool {
	return slices.ContainsFunc(connections, func(c struct{ subresource, kind string }) bool { return c.subresource == subresource })
}

// connects reports whether a request asks to be connected to a container.
func (q request) connects() bool {
	return q.kind.Group == "" && q.kind.Kind == "Pod" && connected(q.subresource)
}

// idleTimeout ends a connection on which nothing was said for as long, as
// kubelet's streaming-connection-idle-timeout does by default.
const idleTimeout = 4 * time.Hour

// serveConnect connects a client to a container.
func (s *Server) serveConnect(w http.ResponseWriter, r *http.Request, q request) {
	pod, err := s.pod(q)
	if err == nil {
		err = connectable(pod, q.subresource)
	}
	if err == nil && !httpstream.IsUpgradeRequest(r) {
		err = apierrors.NewBadRequest("Upgrade request required")
	}
	if err == nil {
		err = sameOrigin(r)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	to := Target{Instance: string(pod.UID), Pod: pod.Namespace + "/" + pod.Name, User: r.TLS.PeerCertificates[0].Subject.CommonName}
	w, r = gentle(w), quiet(r)
	if q.subresource == "portforward" {
		s.serveForward(w, r, to)
		return
	}
	if to.Container, err = chooseRunning(r.URL.Query().Get("container"), pod); err != nil {
		s.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	options, err := commandOptions(r.URL.Query(), q.subresource == "exec")
	if err != nil {
		s.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	s.serveCommand(w, r, to, options)
}

// connectable says why a pod cannot be connected to.
func connectable(pod *corev1.Pod, subresource string) error {
	switch {
	case pod.Spec.NodeName == "":
		return apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot %s a container in a completed pod; current phase is %s",
			map[string]string{"exec": "exec into", "attach": "attach to", "portforward": "forward a port to"}[subresource], pod.Status.Phase))
	}
	return nil
}

// sameOrigin refuses what another site's page makes a browser ask for: browsers
// connect WebSockets across sites, with the client certificate.
func sameOrigin(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
		return apierrors.NewForbidden(corev1.Resource("pods"), "", fmt.Errorf("the request comes from the page of another site: %s", origin))
	}
	return nil
}

// chooseRunning returns the container that is meant: that of a name, or of the
// annotation kubectl.kubernetes.io/default-container, or the first.
func chooseRunning(name string, pod *corev1.Pod) (string, error) {
	if name == "" && pod.Annotations[defaultContainer] == "" && len(pod.Spec.Containers) > 0 {
		return pod.Spec.Containers[0].Name, nil
	}
	return chooseContainer(name, pod)
}

// commanded is what a client wants of a container.
type commanded struct {
	command                    []string // nil: to be attached
	stdin, stdout, stderr, tty bool
}

// commandOptions reads the query of a request to run a command or to attach.
// Source: PodExecOptions and PodAttachOptions of the Kubernetes API.
func commandOptions(query url.Values, exec bool) (commanded, error) {
	var err error
	flag := func(key string) bool {
		text := query.Get(key)
		if text == "" || err != nil {
			return false
		}
		var set bool
		if set, err = strconv.ParseBool(text); err != nil {
			err = fmt.Errorf("%s: neither true nor false: %q", key, text)
		}
		return set
	}
	o := commanded{stdin: flag("stdin"), stdout: flag("stdout"), stderr: flag("stderr"), tty: flag("tty")}
	if exec {
		o.command = query["command"]
	}
	switch {
	case err != nil:
		return o, err
	case exec && len(o.command) == 0:
		return o, fmt.Errorf("you must specify at least one command for the container")
	case !o.stdin && !o.stdout && !o.stderr:
		return o, fmt.Errorf("you must specify at least 1 of stdin, stdout, stderr")
	}
	o.stderr = o.stderr && !o.tty // a terminal has one output
	return o, nil
}

// serveCommand runs a command, or attaches, over a connection that it opens.
func (s *Server) serveCommand(w http.ResponseWriter, r *http.Request, to Target, o commanded) {
	t, err := openTalk(w, r, o)
	if err != nil {
		return // the client was told
	}
	defer t.end()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	t.watch(cancel)
	streams := runtime.Streams{Stdin: t.stdin, Stdout: t.stdout, Stderr: t.stderr, TTY: o.tty}
	if t.resize != nil {
		sizes := make(chan runtime.Size)
		streams.Resize = sizes
		go func() { // ends with the connection
			defer close(sizes)
			decoder := json.NewDecoder(t.resize)
			for {
				var size runtime.Size
				if decoder.Decode(&size) != nil {
					return
				}
				select {
				case sizes <- size:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	code := 0
	if o.command == nil {
		err = s.cfg.Containers.Attach(ctx, to, streams)
	} else {
		code, err = s.cfg.Containers.Exec(ctx, to, o.command, streams)
	}
	body, err := json.Marshal(outcome(code, err))
	if err == nil {
		_, _ = t.status.Write(body) // a client that is gone needs no answer
	}
}

// outcome is what the error channel says at the end, as kubelet does: clients
// take the exit code from it.
func outcome(code int, err error) metav1.Status {
	switch {
	case err != nil:
		return metav1.Status{
			Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError, Code: http.StatusInternalServerError, Message: err.Error(),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Message: err.Error()}}},
		}
	case code != 0:
		return metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: %d", code),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(code)}}},
		}
	}
	return metav1.Status{Status: metav1.StatusSuccess}
}
