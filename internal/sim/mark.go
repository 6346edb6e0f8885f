package sim

import (
	"errors"
	"slices"
	"strings"
)

// mark changes labels or taints of a node, as kubectl writes them, while its
// daemon runs.
func mark(list func(n *node) *[]string) func(f *Fleet, args []string) (string, error) {
	return func(f *Fleet, args []string) (string, error) {
		if len(args) < 2 || f.node(args[0]) == nil {
			return "", errors.New("a node and what it gets are needed")
		}
		n := f.node(args[0])
		marks := list(n)
		for _, mark := range args[1:] {
			key, gone := strings.CutSuffix(mark, "-")
			if !gone {
				key = mark[:max(0, strings.IndexAny(mark, "=:"))]
			}
			*marks = slices.DeleteFunc(slices.Clone(*marks), func(m string) bool { return m[:strings.IndexAny(m, "=:")] == key })
			if !gone {
				*marks = append(*marks, mark)
			}
		}
		cfg := n.config()
		if err := cfg.Validate(); err != nil {
			return "", err
		}
		f.referee.disturb()
		if n.life != nil {
			n.changes <- cfg
		}
		return "", nil
	}
}
