package daemon

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shoal-dev/shoal/api"
)

// decided is what a node keeps on disk of what was decided, so that it starts
// without asking anybody: the last assignments and the scheduler's memory.
type decided struct {
	Assigned api.AssignmentSet `json:"assigned"`
	Facts    api.Facts         `json:"facts"`
}

// A checkpoint is a file that holds a decided, after a line with its checksum.
type checkpoint struct {
	path string
	last []byte // what the file holds
}

// load reads the file. One that is missing is an empty memory; so is a damaged
// one, which is reported and set aside: what runs is found on the machine.
func (c *checkpoint) load() (decided, error) {
	var d decided
	raw, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return d, fmt.Errorf("read the last decisions: %w", err)
	}
	sum, body, _ := bytes.Cut(raw, []byte("\n"))
	if string(sum) != checksum(body) {
		err = errors.New("its checksum is wrong")
	} else {
		err = json.Unmarshal(body, &d)
	}
	if err != nil {
		aside := c.path + ".damaged"
		return decided{}, errors.Join(
			fmt.Errorf("the last decisions in %s are damaged (%w): moved to %s, running pods are adopted", c.path, err, aside),
			os.Rename(c.path, aside))
	}
	c.last = raw
	return d, nil
}

// save replaces the file when there is something new to say.
func (c *checkpoint) save(d decided) error {
	body, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode decisions: %w", err)
	}
	raw := append([]byte(checksum(body)+"\n"), body...)
	if bytes.Equal(raw, c.last) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(c.path), ".decided-*")
	if err != nil {
		return fmt.Errorf("keep decisions: %w", err)
	}
	_, err = tmp.Write(raw)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), c.path)
	}
	if err != nil {
		return fmt.Errorf("keep decisions: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	c.last = raw
	return nil
}

func checksum(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}
