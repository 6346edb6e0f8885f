package gossip

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxMessage is the length of the longest message that is read, in bytes.
const MaxMessage = 32 << 20

// Encode writes a message the way Decode reads it.
func Encode(m Message) ([]byte, error) { return json.Marshal(m) }

// Decode reads a message that came from the network: one JSON object within
// MaxMessage bytes, and nothing after it. Fields that are not known are passed
// over: they come from a newer daemon, as in a fleet that is being upgraded.
func Decode(raw []byte, m *Message) error {
	if len(raw) > MaxMessage {
		return fmt.Errorf("a message of %d bytes: %d are the most", len(raw), MaxMessage)
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if err := decoder.Decode(m); err != nil {
		return fmt.Errorf("decode a message: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("decode a message: something follows it")
	}
	return nil
}
