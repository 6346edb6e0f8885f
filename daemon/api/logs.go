package api

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// defaultContainer names the container whose log is meant when none is named.
const defaultContainer = "kubectl.kubernetes.io/default-container"

func (s *Server) serveLog(w http.ResponseWriter, r *http.Request, q request) {
	pod, err := s.pod(q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	options, err := logOptions(r.URL.Query(), pod)
	if err != nil {
		s.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	stream, err := s.cfg.Logs(r.Context(), string(pod.UID), options.Container, options)
	if err != nil {
		s.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	defer stream.Close()
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	flushing := &flusher{w, http.NewResponseController(w)}
	_ = flushing.control.Flush()
	_, _ = io.Copy(flushing, stream) // the answer has begun: an error can only end it
}

// pod returns the pod that a request is about.
func (s *Server) pod(q request) (*corev1.Pod, error) {
	s.update()
	e, found := s.store.get(q.kind.GroupKind(), q.namespace, q.name)
	if !found {
		return nil, apierrors.NewNotFound(q.kind.Resource().GroupResource(), q.name)
	}
	pod, ok := e.object.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("pod %s: not a pod", q.name)
	}
	return pod, nil
}

// flusher sends every write on at once, and gives up on a client that does not
// read.
type flusher struct {
	w       io.Writer
	control *http.ResponseController
}

func (f *flusher) Write(b []byte) (int, error) {
	_ = f.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer has deadlines
	n, err := f.w.Write(b)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}

// logOptions reads the query of a request for a log.
// Source: PodLogOptions of the Kubernetes API.
func logOptions(query url.Values, pod *corev1.Pod) (corev1.PodLogOptions, error) {
	options := corev1.PodLogOptions{
		Container: query.Get("container"), Follow: query.Get("follow") == "true",
		Previous: query.Get("previous") == "true", Timestamps: query.Get("timestamps") == "true",
	}
	var err error
	number := func(key string) *int64 {
		text := query.Get(key)
		if text == "" || err != nil {
			return nil
		}
		var n int64
		if n, err = strconv.ParseInt(text, 10, 64); err == nil && n < 0 {
			err = fmt.Errorf("%s: must not be negative", key)
		}
		return &n
	}
	options.TailLines, options.SinceSeconds, options.LimitBytes = number("tailLines"), number("sinceSeconds"), number("limitBytes")
	if err != nil {
		return options, err
	}
	if text := query.Get("sinceTime"); text != "" {
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return options, fmt.Errorf("sinceTime: %w", err)
		}
		options.SinceTime = &metav1.Time{Time: t}
	}
	options.Container, err = chooseContainer(options.Container, pod)
	return options, err
}

func chooseContainer(name string, pod *corev1.Pod) (string, error) {
	var names []string
	for _, c := range pod.Spec.EphemeralContainers {
		if c.Name == name && name != "" {
			return name, nil
		}
	}
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for _, c := range containers {
			if c.Name == name {
				return name, nil
			}
			names = append(names, c.Name)
		}
	}
	if name != "" {
		return "", fmt.Errorf("container %s is not valid for pod %s", name, pod.Name)
	}
	if preferred := pod.Annotations[defaultContainer]; preferred != "" {
		return chooseContainer(preferred, pod)
	}
	if len(pod.Spec.Containers) == 1 {
		return pod.Spec.Containers[0].Name, nil
	}
	return "", fmt.Errorf("a container name must be specified for pod %s, choose one of: [%s]", pod.Name, strings.Join(names, " "))
}
