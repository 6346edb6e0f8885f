// Package images builds container images from what is on this machine: files,
// static programs and Debian's packages. The examples and the tests run on
// them, so that neither needs a registry.
package images
