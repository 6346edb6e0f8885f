// Command examples builds the images that examples-repo names, into the folder
// given as its argument; HELLO is the path of the static hello program.
//
//	examples -hello bin/hello -out /var/lib/shoal/images
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/shoal-dev/shoal/internal/images"
)

func main() {
	hello := flag.String("hello", "", "the static hello program")
	out := flag.String("out", "", "folder for the archives")
	flag.Parse()
	if err := build(*hello, *out); err != nil {
		fmt.Fprintln(os.Stderr, "examples:", err)
		os.Exit(1)
	}
}

func build(hello, out string) error {
	redis, err := images.Redis()
	if err != nil {
		return err
	}
	nginx, err := images.Nginx()
	if err != nil {
		return err
	}
	for _, image := range []struct {
		ref  string
		spec images.Spec
	}{
		{"example.com/hello:1", images.Program(hello, "-version", "1")},
		{"example.com/hello:2", images.Program(hello, "-version", "2")},
		{"redis:7", redis},
		{"nginx:1", nginx},
		{"busybox:1", images.Busybox()},
	} {
		built, err := images.Build(image.spec)
		if err != nil {
			return fmt.Errorf("%s: %w", image.ref, err)
		}
		file, err := images.WriteArchive(out, image.ref, built)
		if err != nil {
			return err
		}
		fmt.Println(file)
	}
	return nil
}
