// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/test/lab"
)

// askTimeout bounds one question to a process, which may be cut off.
const askTimeout = 3 * time.Second

// ask gets a document from within a host's namespace.
func ask(ctx context.Context, from *lab.Host, url string) (string, error) {
	return exchange(ctx, from, http.MethodGet, url, "")
}

func post(ctx context.Context, from *lab.Host, url, body string) (string, error) {
	return exchange(ctx, from, http.MethodPost, url, body)
}

func exchange(ctx context.Context, from *lab.Host, method, url, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	hc := &http.Client{Transport: &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}, Timeout: askTimeout}
	resp, err := hc.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return string(answer), err
}

// cutTable holds the rules of cut.
const cutTable = "inet cluster-cut"

// cut drops what the host and others send each other, in both directions, as
// a broken network does: nobody is told.
func cut(ctx context.Context, h *lab.Host, from []*lab.Host) error {
	var in, out string
	if len(from) > 0 {
		var addrs []string
		for _, other := range from {
			addrs = append(addrs, other.Addr4.String())
		}
		set := "{ " + strings.Join(addrs, ", ") + " } "
		in, out = "ip saddr "+set, "ip daddr "+set
	}
	return nft(ctx, h, fmt.Sprintf(`table %[1]s
delete table %[1]s
table %[1]s {
	chain in { type filter hook input priority -400; iifname %[2]q %[3]sdrop; }
	chain out { type filter hook output priority -400; oifname %[2]q %[4]sdrop; }
}
`, cutTable, lab.Uplink, in, out))
}

func heal(ctx context.Context, h *lab.Host) error {
	return nft(ctx, h, fmt.Sprintf("table %[1]s\ndelete table %[1]s\n", cutTable))
}

func nft(ctx context.Context, h *lab.Host, script string) error {
	cmd := h.Command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("changing the packet filter of %s: %w\n%s", h.Name, err, out)
	}
	return nil
}
