package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip/peer"
	"github.com/shoal-dev/shoal/runtime"
)

// The kinds of streams that carry images between nodes. Each begins with a
// question, and a line answers it.
const (
	streamImage = "image"
	streamBlob  = "blob"
)

const (
	// giveAtOnce is how many parts of images a node gives at once; whoever wants
	// another one is told so and asks elsewhere.
	giveAtOnce = 4
	// chunkSize and chunksAhead bound what is on its way in bytes: leases share the
	// connection and must not wait behind an image for long, however slow the link.
	chunkSize   = 128 << 10
	chunksAhead = 2
	// stalled is how long nothing may come before a node is given up.
	stalled = 10 * time.Second
	// askFew is how many nodes are asked what a name means, and askWithin for how
	// long.
	askFew    = 3
	askWithin = 5 * time.Second
)

// imageQuestion asks what a node has under a name; imageAnswer is what it has.
type imageQuestion struct {
	Name string `json:"name"`
}

type imageAnswer struct {
	Image runtime.PeerImage `json:"image"`
	Error string            `json:"error,omitempty"`
}

// blobQuestion asks for a part of an image. After a line with an exit come chunks,
// each with its length before it, and an empty one at the end. The asker confirms
// each with a byte.
type blobQuestion struct {
	Digest string `json:"digest"`
}

// imagePeers are the other nodes, as those that have images. See
// containerd.Peers.
type imagePeers struct{ c *control }

// holders returns the nodes that say they have an image, by one of its names: not
// always the same one first.
func (p imagePeers) holders(has func(name string) bool, seed string) []string {
	v := p.c.view.Load()
	if v == nil {
		return nil
	}
	var out []string
	for _, n := range v.board.Nodes {
		if n.Name == p.c.cfg.Node || v.board.HealthOf(n.Name).Status != api.NodeAlive {
			continue
		}
		for _, image := range n.Images {
			if slices.ContainsFunc(image.Names, has) {
				out = append(out, n.Name)
				break
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(p.c.cfg.Node + seed)) // it never fails
	first := int(h.Sum32() % uint32(len(out)))
	return append(out[first:], out[:first]...)
}

// Holders names the nodes that have an image.
func (p imagePeers) Holders(digest string) []string {
	return p.holders(func(name string) bool { return strings.HasSuffix(name, "@"+digest) }, digest)
}

// Named asks a few nodes what they have under a name.
func (p imagePeers) Named(ctx context.Context, name string) []runtime.PeerImage {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var out []runtime.PeerImage
	for _, node := range p.holders(func(other string) bool { return other == name }, name) {
		image, err := p.ask(ctx, node, name)
		if err != nil {
			continue // it has lost it, or is not reached
		}
		if out = append(out, image); len(out) == askFew {
			break
		}
	}
	return out
}

func (p imagePeers) ask(ctx context.Context, node, name string) (runtime.PeerImage, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := p.c.part.Open(ctx, node, streamImage)
	if err == nil {
		err = writeLine(stream, imageQuestion{name})
	}
	var answer imageAnswer
	if err == nil {
		err = readLine(stream, &answer)
	}
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	if err != nil {
		return runtime.PeerImage{}, fmt.Errorf("ask node %s for image %s: %w", node, name, err)
	}
	answer.Image.Peer = node
	return answer.Image, nil
}

// Open reads a part of an image from a node.
func (p imagePeers) Open(ctx context.Context, node, digest string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watchdog := time.AfterFunc(stalled, func() { cancel(fmt.Errorf("nothing came for %s", stalled)) })
	stream, err := p.c.part.Open(ctx, node, streamBlob)
	if err == nil {
		err = writeLine(stream, blobQuestion{digest})
	}
	var answer exit
	if err == nil {
		err = readLine(stream, &answer)
	}
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	if err != nil {
		watchdog.Stop()
		cancel(nil)
		return nil, fmt.Errorf("get %s from node %s: %w", digest, node, err)
	}
	return &chunkReader{from: stream, node: node, watchdog: watchdog, end: func() { cancel(nil) }}, nil
}

// chunkReader reads chunks as one stream of bytes.
type chunkReader struct {
	from     io.ReadWriter
	node     string
	watchdog *time.Timer
	end      func()

	left int  // of the chunk that is being read
	done bool // the empty chunk has come
}

func (r *chunkReader) Read(b []byte) (int, error) {
	if r.done {
		return 0, io.EOF
	}
	r.watchdog.Reset(stalled)
	defer r.watchdog.Stop() // whoever reads may take its time
	if r.left == 0 {
		var length [4]byte
		if _, err := io.ReadFull(r.from, length[:]); err != nil {
			return 0, r.broken(err)
		}
		n := binary.BigEndian.Uint32(length[:])
		if n > chunkSize {
			return 0, r.broken(fmt.Errorf("a chunk of %d bytes: %d are the most", n, chunkSize))
		}
		if r.left = int(n); n == 0 {
			r.done = true
			return 0, io.EOF
		}
	}
	n, err := r.from.Read(b[:min(len(b), r.left)])
	r.left -= n
	if err != nil {
		return n, r.broken(err)
	}
	if r.left == 0 {
		_, _ = r.from.Write([]byte{1}) // the node may have sent all; else the next read fails
	}
	return n, nil
}

// broken says that the stream has ended too early: io.EOF would be taken for its
// end.
func (r *chunkReader) broken(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read an image from node %s: %w", r.node, err)
}

func (r *chunkReader) Close() error {
	r.watchdog.Stop()
	r.end()
	return nil
}

// serveImage tells another node what this one has under a name.
func (c *control) serveImage(ctx context.Context, stream peer.Stream) error {
	var q imageQuestion
	if err := readLine(stream, &q); err != nil {
		return err
	}
	var answer imageAnswer
	err := c.gives()
	if err == nil {
		answer.Image, err = c.agent.Offer(ctx, q.Name)
	}
	if err != nil {
		answer = imageAnswer{Error: err.Error()}
	}
	return writeLine(stream, answer)
}

// gives is an error when this node gives no images to others.
func (c *control) gives() error {
	if !c.cfg.Images.Peers {
		return errors.New("the node gives no images to others (images.peers)")
	}
	return nil
}

// serveBlob gives a part of an image to another node.
func (c *control) serveBlob(ctx context.Context, stream peer.Stream) error {
	var q blobQuestion
	if err := readLine(stream, &q); err != nil {
		return err
	}
	if err := c.gives(); err != nil {
		return writeLine(stream, exit{Error: err.Error()})
	}
	select {
	case c.giving <- struct{}{}:
		defer func() { <-c.giving }()
	default:
		return writeLine(stream, exit{Error: "the node gives images to others already"})
	}
	blob, err := c.agent.Blob(ctx, q.Digest)
	if err != nil {
		return writeLine(stream, exit{Error: err.Error()})
	}
	defer blob.Close()
	if err := writeLine(stream, exit{}); err != nil {
		return err
	}
	return sendChunks(stream, blob)
}

// sendChunks sends what it reads in chunks, and no more ahead of the asker than it
// may.
func sendChunks(to io.ReadWriter, from io.Reader) error {
	buffer := make([]byte, 4+chunkSize)
	confirm := make([]byte, 1)
	for sent := 0; ; sent++ {
		n, err := io.ReadFull(from, buffer[4:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("read a part of an image: %w", err)
		}
		if sent >= chunksAhead && n > 0 {
			if _, err := io.ReadFull(to, confirm); err != nil {
				return err
			}
		}
		binary.BigEndian.PutUint32(buffer, uint32(n))
		if _, err := to.Write(buffer[:4+n]); err != nil || n == 0 {
			return err
		}
	}
}
