package runtimetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/runtime"
)

func testImages(t *testing.T, s suite) {
	info, err := s.Engine.Image(t.Context(), s.Image)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Engine.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(i runtime.ImageInfo) bool { return i.ID == info.ID && slices.Contains(i.Names, s.Image) }) {
		t.Errorf("got %+v", all)
	}
	if _, err := s.Engine.Import(t.Context(), strings.NewReader("this is no archive\x00")); err == nil {
		t.Error("a broken archive was imported")
	}
}

// add imports the suite's image under another name.
func (s suite) add(t *testing.T, name string) {
	t.Helper()
	names, err := s.Engine.Import(t.Context(), s.Archive(t, name))
	if err != nil || !slices.Equal(names, []string{name}) {
		t.Fatalf("import %s: got %q, %v", name, names, err)
	}
}

func testImageDeleted(t *testing.T, s suite) {
	const name = "example.com/spare:1"
	s.add(t, name)
	info, err := s.Engine.Image(t.Context(), name)
	if err != nil || time.Since(info.Created) > time.Minute {
		t.Fatalf("got %+v, %v", info, err)
	}
	spec := s.spec(t, "sleep", "1000")
	spec.Image = name
	if err := s.Engine.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Engine.DeleteImage(t.Context(), []string{name}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Engine.Image(t.Context(), name); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("it can still be used: %v", err)
	}
	all, err := s.Engine.Images(t.Context())
	if err != nil || slices.ContainsFunc(all, func(i runtime.ImageInfo) bool { return slices.Contains(i.Names, name) }) {
		t.Errorf("it is still listed: %+v, %v", all, err)
	}
	if _, err := s.Engine.Start(t.Context(), spec.ID); err != nil {
		t.Errorf("a container that was made from it does not start: %v", err)
	}
	if _, err := s.Engine.Image(t.Context(), s.Image); err != nil {
		t.Errorf("another image with the same layers is gone: %v", err)
	}
	s.add(t, name)
	if _, err := s.Engine.Image(t.Context(), name); err != nil {
		t.Errorf("it does not come back: %v", err)
	}
}

func testImageDisk(t *testing.T, s suite) {
	disk, err := s.Engine.ImageDisk(t.Context())
	if err != nil || disk.Path == "" || disk.Capacity <= 0 || disk.Available < 0 || disk.Available > disk.Capacity {
		t.Errorf("got %+v, %v", disk, err)
	}
}

func testImageShared(t *testing.T, s suite) {
	info, err := s.Engine.Image(t.Context(), s.Image)
	if err != nil {
		t.Fatal(err)
	}
	offer, err := s.Engine.Offer(t.Context(), s.Image)
	if err != nil || offer.Name != s.Image || !strings.HasSuffix(info.ID, "@"+offer.Digest) || offer.Size <= 0 || offer.MediaType == "" || len(offer.Access) > 0 {
		t.Fatalf("got %+v, %v", offer, err)
	}
	r, err := s.Engine.Blob(t.Context(), offer.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || fmt.Sprintf("sha256:%x", sha256.Sum256(b)) != offer.Digest {
		t.Errorf("what it gives is not what it offers: %d bytes, %v", len(b), err)
	}
	if _, err := s.Engine.Offer(t.Context(), "example.com/absent:1"); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("an image that is not there: got %v", err)
	}
	for _, digest := range []string{"sha256:" + strings.Repeat("0", 64), "../../etc/shadow", ""} {
		if _, err := s.Engine.Blob(t.Context(), digest); err == nil {
			t.Errorf("part %q is given", digest)
		}
	}
}
