// SPDX-License-Identifier: Apache-2.0

package front

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// entry is a line of runc's log. containerd takes the message of the last error
// in it for the text of its own error, which the kubelet shows.
type entry struct {
	Level   string    `json:"level"`
	Message string    `json:"msg"`
	Time    time.Time `json:"time"`
}

// report says where runc would why nothing was started. That it could not be
// said changes nothing: the exit status refuses.
func report(inv invocation, stderr io.Writer, now time.Time, why error) {
	fmt.Fprintln(stderr, why)
	if inv.log == "" {
		return
	}
	f, err := os.OpenFile(inv.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		fmt.Fprintln(stderr, "c8s-runtime: opening the log:", err)
		return
	}
	defer f.Close()
	line := fmt.Appendf(nil, "time=%q level=error msg=%q", now.Format(time.RFC3339), why.Error())
	if inv.logFormat == "json" {
		if line, err = json.Marshal(entry{"error", why.Error(), now}); err != nil {
			fmt.Fprintln(stderr, "c8s-runtime: writing the log:", err)
			return
		}
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		fmt.Fprintln(stderr, "c8s-runtime: writing the log:", err)
	}
}
