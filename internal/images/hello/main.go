// Command hello is the web server of the examples: it says who it is, is ready
// when it listens, and finishes the requests it has when it is told to stop.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	listen := flag.String("listen", ":8080", "addresses to listen on, separated by commas")
	version := flag.String("version", "1", "what to say")
	udp := flag.String("udp", "", "address on which to send packets back")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *udp != "" {
		conn, err := net.ListenPacket("udp", *udp)
		if err != nil {
			log.Fatal(err)
		}
		go echo(conn)
	}
	if err := run(ctx, strings.Split(*listen, ","), handler(*version)); err != nil {
		log.Fatal(err)
	}
}

func handler(version string) http.Handler {
	host, _ := os.Hostname() // an empty name says so
	var served atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, strings.Join(os.Environ(), "\n")) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		message := os.Getenv("MESSAGE")
		if message == "" {
			message = "hello"
		}
		fmt.Fprintf(w, "%s from %s, version %s, to %s\n", message, host, version, r.RemoteAddr)
		log.Printf("request %d: %s %s from %s", served.Add(1), r.Method, r.URL.Path, r.RemoteAddr)
	})
	return mux
}

// echo sends every packet back to where it came from.
func echo(conn net.PacketConn) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := conn.WriteTo(buffer[:n], from); err != nil {
			log.Print(err)
		}
	}
}

// run serves until ctx ends, then lets the requests under way finish.
func run(ctx context.Context, addresses []string, h http.Handler) error {
	failed := make(chan error, len(addresses))
	var servers []*http.Server
	for _, address := range addresses {
		server := &http.Server{Addr: address, Handler: h, ReadHeaderTimeout: 10 * time.Second}
		servers = append(servers, server)
		go func() { failed <- server.ListenAndServe() }()
	}
	log.Printf("listening on %s", strings.Join(addresses, ", "))
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Print("stopping")
	stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	for _, server := range servers {
		errs = append(errs, server.Shutdown(stop))
	}
	return errors.Join(errs...)
}
