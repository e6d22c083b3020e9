// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/c8s-dev/c8s/client"
	"github.com/c8s-dev/c8s/policy"
)

func Example() {
	text, err := os.ReadFile("operators.json")
	if err != nil {
		log.Fatal(err)
	}
	operators, err := policy.ParseOperators(text)
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.New(client.Config{Anchor: client.FromOperators(operators), StateDir: "/var/lib/app/c8s", Receipts: true})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	resp, err := (&http.Client{Transport: c.Transport()}).Get("https://bank.example/accounts")
	var refused *client.Refusal
	if errors.As(err, &refused) {
		log.Fatalf("nothing was sent: step %s: %s", refused.Step.Name, refused.Step.Remedy)
	}
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	if r := client.ReceiptOf(resp); r != nil {
		fmt.Println("answered by", r.Workload)
	}
	_, _ = io.Copy(os.Stdout, resp.Body)
}
