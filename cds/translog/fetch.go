// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// MaxFile is the largest file of a log in bytes: a full bundle of the longest
// entries.
const MaxFile = tileWidth * (2 + MaxRecord)

// pathCheckpoint is where the newest checkpoint is.
const pathCheckpoint = "checkpoint"

// Fetcher gets a file of the log: "checkpoint" or "tile/...". Its error wraps
// fs.ErrNotExist where the log has none. It need not be trusted, but should
// return no more than [MaxFile] bytes. It is called by several goroutines.
type Fetcher func(ctx context.Context, path string) ([]byte, error)

// HTTPFetcher gets files below a URL, such as https://cds.example/log.
func HTTPFetcher(client *http.Client, url string) Fetcher {
	url = strings.TrimRight(url, "/")
	return func(ctx context.Context, path string) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/"+path, nil)
		if err != nil {
			return nil, fmt.Errorf("fetching %s: %w", path, err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, fmt.Errorf("fetching %s: %w", path, err)
		}
		defer resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusOK:
			return readAll(resp.Body, path)
		case http.StatusNotFound:
			return nil, fmt.Errorf("fetching %s: %w", path, fs.ErrNotExist)
		default:
			return nil, fmt.Errorf("fetching %s: HTTP status %d", path, resp.StatusCode)
		}
	}
}

// DirFetcher gets files of a mirror ([Auditor.Mirror]).
func DirFetcher(dir string) Fetcher {
	return func(_ context.Context, path string) ([]byte, error) {
		if _, err := parsePath(path); err != nil && path != pathCheckpoint {
			return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(path)))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readAll(f, path)
	}
}

func readAll(r io.Reader, path string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(data) > MaxFile {
		return nil, fmt.Errorf("reading %s: more than %d bytes, which no file of a log has", path, MaxFile)
	}
	return data, nil
}
