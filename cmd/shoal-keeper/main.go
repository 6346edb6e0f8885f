// Command shoal-keeper is the small process that outlives the daemon: see
// package runtime/keeper. The daemon carries it and starts it; nobody else has
// a reason to.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/shoal-dev/shoal/runtime/keeper"
)

func main() {
	var cfg keeper.Config
	flag.StringVar(&cfg.Socket, "socket", "", "path of the Unix socket to serve")
	flag.StringVar(&cfg.Version, "version", "", "what to answer when asked for the version")
	flag.Parse()
	if cfg.Socket == "" {
		fmt.Fprintln(os.Stderr, "shoal-keeper: -socket is missing; shoal run starts this program by itself")
		os.Exit(2)
	}
	// A terminal's signals are not meant for it: it ends when told to.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	debug.SetGCPercent(20)
	if err := keeper.Serve(cfg); err != nil {
		fmt.Fprintln(os.Stderr, "shoal-keeper:", err)
		os.Exit(1)
	}
}
