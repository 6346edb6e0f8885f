package daemon

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-dev/shoal/internal/loop"
)

// trimAfter is when memory is given back the first time: when starting up is
// over. trimEvery is how often after that.
const (
	trimAfter = 10 * time.Second
	trimEvery = 10 * time.Minute
)

// trimMemory gives back, now and then, what the daemon does not need to idle:
// heap that a large commit left behind, and the pages of the program itself
// that only its start or a rare command touched. The kernel reads a page in
// again when it is needed; it never has to be written anywhere.
func trimMemory(ctx context.Context) {
	first := true
	loop.Run(ctx, loop.Config{}, func(context.Context) time.Time {
		if first {
			first = false
			return time.Now().Add(trimAfter)
		}
		debug.FreeOSMemory()
		dropProgramPages()
		return time.Now().Add(trimEvery)
	})
}

// dropProgramPages tells the kernel that the read-only pages of this program
// are not needed now. It is advice: an error changes nothing.
func dropProgramPages() {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close() //nolint:errcheck // only read
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		line := lines.Text()
		if !strings.HasSuffix(line, " "+self) {
			continue
		}
		var from, to uintptr
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || (mode != "r-xp" && mode != "r--p") {
			continue
		}
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED) // see above
	}
}
