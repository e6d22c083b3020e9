// SPDX-License-Identifier: Apache-2.0

package cds

import "net"

// limitConns bounds the connections open at once.
func limitConns(ln net.Listener, q *quota) net.Listener {
	return &limitListener{Listener: ln, quota: q}
}

type limitListener struct {
	net.Listener
	quota *quota
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		release, err := l.quota.take(hostOf(conn.RemoteAddr().String()))
		if err == nil {
			return &limitedConn{Conn: conn, release: release}, nil
		}
		conn.Close() // full: better refused at once than left waiting
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	c.release()
	return c.Conn.Close()
}
