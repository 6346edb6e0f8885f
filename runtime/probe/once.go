package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// once runs a probe one time. message says why it failed.
func (p *Prober) once(ctx context.Context, t *target, spec *corev1.Probe) (ok bool, message string) {
	timeout := seconds(spec.TimeoutSeconds, 1)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	switch {
	case spec.Exec != nil:
		var code int
		var output string
		code, output, err = p.exec(ctx, t.ID, spec.Exec.Command)
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			err = fmt.Errorf("command %q timed out after %s", strings.Join(spec.Exec.Command, " "), timeout)
		case err == nil && code != 0:
			err = errors.New(strings.TrimSpace(output))
			if output == "" {
				err = fmt.Errorf("command exited with %d", code)
			}
		}
	case spec.HTTPGet != nil:
		err = httpGet(ctx, t, spec.HTTPGet)
	case spec.TCPSocket != nil:
		err = tcp(ctx, t, spec.TCPSocket)
	case spec.GRPC != nil:
		err = health(ctx, t, spec.GRPC)
	}
	if err != nil {
		return false, err.Error()
	}
	return true, ""
}

// port resolves a number or a name of one of the container's ports.
func port(t *target, p intstr.IntOrString) (string, error) {
	if p.Type == intstr.Int {
		return strconv.Itoa(p.IntValue()), nil
	}
	for _, c := range t.Container.Ports {
		if c.Name == p.StrVal {
			return strconv.Itoa(int(c.ContainerPort)), nil
		}
	}
	if _, err := strconv.Atoi(p.StrVal); err == nil {
		return p.StrVal, nil
	}
	return "", fmt.Errorf("the container has no port named %q", p.StrVal)
}

func host(t *target, own string) string {
	if own != "" {
		return own
	}
	return t.IP
}

// httpGet follows kubelet: any answer from 200 to 399 is a success, redirects
// to other hosts are not followed, certificates are not checked.
func httpGet(ctx context.Context, t *target, get *corev1.HTTPGetAction) error {
	number, err := port(t, get.Port)
	if err != nil {
		return err
	}
	scheme := strings.ToLower(string(get.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	address := &url.URL{Scheme: scheme, Host: net.JoinHostPort(host(t, get.Host), number)}
	if where, err := url.Parse(get.Path); err == nil {
		address = address.ResolveReference(&url.URL{Path: "/" + strings.TrimPrefix(where.Path, "/"), RawQuery: where.RawQuery})
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/1.37 shoal")
	request.Header.Set("Accept", "*/*")
	for _, h := range get.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			request.Host = h.Value
			continue
		}
		request.Header.Set(h.Name, h.Value)
	}
	transport := &http.Transport{
		DisableKeepAlives:  true,
		DisableCompression: true,
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // kubelet's rule: a probe asks the pod itself
		DialContext:        dialer.DialContext,
	}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if next.URL.Hostname() != address.Hostname() || len(via) >= 10 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, 10<<10)
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", response.StatusCode)
	}
	return nil
}

// dialer closes without lingering: probes leave no TIME_WAIT behind.
var dialer = &net.Dialer{KeepAlive: -1}

func tcp(ctx context.Context, t *target, action *corev1.TCPSocketAction) error {
	number, err := port(t, action.Port)
	if err != nil {
		return err
	}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host(t, action.Host), number))
	if err != nil {
		return err
	}
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	return conn.Close()
}

func health(ctx context.Context, t *target, action *corev1.GRPCAction) error {
	address := net.JoinHostPort(t.IP, strconv.Itoa(int(action.Port)))
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent("kube-probe/1.37 shoal"),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the answer is known
	request := &grpc_health_v1.HealthCheckRequest{}
	if action.Service != nil {
		request.Service = *action.Service
	}
	response, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, request)
	if err != nil {
		return fmt.Errorf("gRPC probe: %w", err)
	}
	if response.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("gRPC probe: the service answers %s", response.Status)
	}
	return nil
}
