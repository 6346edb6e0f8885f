// Package cri writes and parses container logs in the format of Kubernetes'
// Container Runtime Interface: one entry a line,
//
//	2026-11-23T06:58:24.712345678Z stdout F the line
//
// with P instead of F for an entry that the next one of its stream continues.
// It imports nothing but the standard library, because the keeper, which must
// stay small, is built on it.
package cri
