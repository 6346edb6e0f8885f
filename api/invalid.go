package api

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Invalid is a mistake in a manifest: where it is, and what to do about it.
// All mistakes of a commit are reported together.
type Invalid struct {
	File   string `json:"file"`             // relative to the repository's root
	Line   int    `json:"line,omitempty"`   // 1-based; 0 where the file as a whole is meant
	Object string `json:"object,omitempty"` // "Deployment default/web", when the file got that far
	Field  string `json:"field,omitempty"`  // "spec.template.spec.containers[0].image"
	Reason string `json:"reason"`
	// Warning marks what does not keep the commit from being accepted:
	// nothing is done with this object or field, and the author is told so.
	Warning bool `json:"warning,omitempty"`
}

// Error returns "apps/web.yaml:12: spec.replicas: must be ...".
func (e Invalid) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if e.Warning {
		b.WriteString("warning: ")
	}
	if e.Field != "" {
		b.WriteString(e.Field)
		b.WriteString(": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

// Compare orders mistakes by file, line, object, field and reason.
func (e Invalid) Compare(other Invalid) int {
	return cmp.Or(
		strings.Compare(e.File, other.File),
		cmp.Compare(e.Line, other.Line),
		strings.Compare(e.Object, other.Object),
		strings.Compare(e.Field, other.Field),
		strings.Compare(e.Reason, other.Reason),
	)
}

// SortInvalid sorts mistakes in place and drops repeated ones.
func SortInvalid(problems []Invalid) []Invalid {
	slices.SortFunc(problems, Invalid.Compare)
	return slices.Compact(problems)
}

// Refused reports whether one of the problems is more than a warning, so that
// the commit cannot be accepted.
func Refused(problems []Invalid) bool {
	return slices.ContainsFunc(problems, func(p Invalid) bool { return !p.Warning })
}

// InvalidError is the error of a commit that holds mistakes.
type InvalidError []Invalid

// Error lists every mistake on a line of its own.
func (e InvalidError) Error() string {
	errs := make([]error, len(e))
	for i, problem := range e {
		errs[i] = problem
	}
	return errors.Join(errs...).Error()
}
