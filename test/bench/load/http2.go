// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// window is how much a server may send before it hears from us.
const window = 1 << 30

// HTTP2 prepares a connection for HTTP/2, for one stream at a time.
func (g Get) HTTP2(c net.Conn) (Exchange, error) {
	h := &http2Client{Get: g, framer: http2.NewFramer(c, bufio.NewReaderSize(c, 64<<10)), id: 1}
	h.framer.SetReuseFrames()
	h.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			h.status = f.Value
		}
	})
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", g.Host}, {":path", g.Path}, {"user-agent", "bench"}} {
		// Sensitive: never indexed, so that one block serves all requests.
		if err := e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}); err != nil {
			return nil, err
		}
	}
	h.block = block.Bytes()
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		return nil, err
	}
	settings := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: window}, {ID: http2.SettingEnablePush, Val: 0}}
	return h.exchange, errors.Join(h.framer.WriteSettings(settings...), h.framer.WriteWindowUpdate(0, window))
}

// http2Client is a client's connection.
type http2Client struct {
	Get
	framer  *http2.Framer
	decoder *hpack.Decoder
	block   []byte
	id      uint32 // of the next stream
	status  string
	got     int64  // of the answer's body
	used    uint32 // of the window
}

func (h *http2Client) exchange() error {
	id := h.id
	h.id, h.status, h.got = id+2, "", 0
	err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.block, EndStream: true, EndHeaders: true})
	if err != nil {
		return err
	}
	for ended := false; !ended; {
		f, err := h.framer.ReadFrame()
		if err != nil {
			return fmt.Errorf("reading an answer: %w", err)
		}
		if ended, err = h.frame(f, id); err != nil {
			return err
		}
	}
	if h.status != "200" || h.got != h.Size {
		return fmt.Errorf("the answer is %q with %d bytes, want 200 with %d", h.status, h.got, h.Size)
	}
	return nil
}

// frame takes what the server sent and says whether it ends the answer.
func (h *http2Client) frame(f http2.Frame, id uint32) (ended bool, err error) {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		if f.StreamID != id || !f.HeadersEnded() {
			return false, fmt.Errorf("header of stream %d, want one whole of %d", f.StreamID, id)
		}
		if _, err := h.decoder.Write(f.HeaderBlockFragment()); err != nil {
			return false, err
		}
		return f.StreamEnded(), h.decoder.Close()
	case *http2.DataFrame:
		h.got += int64(len(f.Data()))
		if h.used += f.Length; h.used > window/2 {
			err, h.used = h.framer.WriteWindowUpdate(0, h.used), 0
		}
		return f.StreamEnded(), err
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return false, h.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return false, h.framer.WritePing(true, f.Data)
		}
	case *http2.RSTStreamFrame, *http2.GoAwayFrame:
		return false, fmt.Errorf("the server ends it: %v", f)
	}
	return false, nil
}
