package network

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch calls changed whenever links, addresses or our own routes changed so
// that Set may have to correct something, until the context ends. Pods that come
// and go do not count. changed must not block; it carries nothing, and may be
// called when there is nothing to correct.
func (f *Fabric) Watch(ctx context.Context, changed func()) error {
	for ctx.Err() == nil {
		socket, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE)
		if err != nil {
			return fmt.Errorf("watch links and addresses: %w", err)
		}
		stop := context.AfterFunc(ctx, socket.Close)
		changed() // something may have happened before the subscription
		err = f.follow(socket, changed)
		if stop() {
			socket.Close()
		}
		if ctx.Err() == nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("watch links and addresses: %w", err)
		}
	}
	return nil
}

// follow reads the subscription until it ends. Messages that the kernel could
// not deliver end it with ENOBUFS.
func (f *Fabric) follow(socket *nl.NetlinkSocket, changed func()) error {
	for {
		messages, from, err := socket.Receive()
		if err != nil {
			return err
		}
		if from.Pid != nl.PidKernel {
			continue
		}
		if f.concerns(messages) {
			changed()
		}
	}
}

// concerns reports whether one of the messages tells of a change that matters.
func (f *Fabric) concerns(messages []syscall.NetlinkMessage) bool {
	f.mu.Lock()
	seen := f.seen
	f.mu.Unlock()
	look := false
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_DELROUTE:
			// struct rtmsg: family, dst_len, src_len, tos, table, protocol, ...
			if len(m.Data) > 5 && m.Data[5] == RouteProtocol {
				return true
			}
		case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR:
			if m.Header.Type == unix.RTM_DELLINK && bytes.Contains(m.Data, []byte(TunnelName)) {
				return true
			}
			// A link that went down and came up again looks the same and has
			// lost its routes.
			if touches(seen, m.Data) {
				return true
			}
			look = true
		}
	}
	if !look {
		return false
	}
	links, err := f.links()
	return err != nil || !reflect.DeepEqual(links, seen)
}

// touches reports whether a message about a link or an address names one of the
// links. struct ifinfomsg and struct ifaddrmsg both hold the index in their
// second word.
func touches(links []Link, data []byte) bool {
	if len(data) < 8 {
		return false
	}
	index := int(int32(binary.NativeEndian.Uint32(data[4:8])))
	for _, l := range links {
		if l.Index == index {
			return true
		}
	}
	return false
}
