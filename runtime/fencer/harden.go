package fencer

import (
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// harden makes this process one that is still there, in memory and scheduled,
// when the machine has neither memory nor time left. It returns what the machine
// does not permit, in whole sentences.
func harden() []string {
	var degraded []string
	note := func(what string, err error) {
		if err != nil {
			degraded = append(degraded, fmt.Sprintf("the fencer %s: %v", what, err))
		}
	}
	// Pages that were used once stay; to take all that Go has reserved would
	// cost 64 MiB.
	note("may be swapped out", unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT))
	note("may be kept from running by a busy machine", realtime())
	note("may be killed when memory runs out", os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0))
	return degraded
}

// realtime puts every thread under SCHED_RR. Those made later inherit it.
func realtime() error {
	param := struct{ priority int32 }{10}
	for range 2 { // a thread may have been made meanwhile
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			_, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(id), unix.SCHED_RR, uintptr(unsafe.Pointer(&param)))
			if errno != 0 && errno != unix.ESRCH {
				return errno
			}
		}
	}
	return nil
}
