// Package place gives nodes to pods.
package place
