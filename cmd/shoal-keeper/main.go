// Command shoal-keeper is the small program whose processes outlive the daemon:
// the keeper of logs, see package runtime/keeper, and with the argument "fence"
// the fencer of exclusive pods, see package runtime/fencer. The daemon carries it
// and starts it; nobody else has a reason to.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/shoal-dev/shoal/runtime/fencer"
	"github.com/shoal-dev/shoal/runtime/keeper"
)

func main() {
	var socket, version string
	flag.StringVar(&socket, "socket", "", "path of the Unix socket to serve")
	flag.StringVar(&version, "version", "", "what to answer when asked for the version")
	args := os.Args[1:]
	fence := len(args) > 0 && args[0] == "fence"
	if fence {
		args = args[1:]
	}
	_ = flag.CommandLine.Parse(args) // it ends the process by itself
	if socket == "" {
		fmt.Fprintln(os.Stderr, "shoal-keeper: -socket is missing; shoal run starts this program by itself")
		os.Exit(2)
	}
	// A terminal's signals are not meant for it: it ends when told to.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	debug.SetGCPercent(20)
	var err error
	if fence {
		err = fencer.Serve(fencer.Config{Socket: socket, Version: version})
	} else {
		err = keeper.Serve(keeper.Config{Socket: socket, Version: version})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shoal-keeper:", err)
		os.Exit(1)
	}
}
