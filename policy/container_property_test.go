// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"reflect"
	"regexp"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// mutations changes one value of what v points to at a time, and puts it back.
func mutations(v reflect.Value, path string, try func(path string)) {
	restore := func(set func(), at string) {
		old := reflect.New(v.Type()).Elem()
		old.Set(v)
		set()
		try(at)
		v.Set(old)
	}
	switch v.Kind() {
	case reflect.String:
		restore(func() { v.SetString(v.String() + "x") }, path)
	case reflect.Bool:
		restore(func() { v.SetBool(!v.Bool()) }, fmt.Sprintf("%s to %t", path, !v.Bool()))
	case reflect.Uint32:
		restore(func() { v.SetUint(v.Uint() + 1) }, path)
	case reflect.Int:
		restore(func() { v.SetInt(v.Int() + 1) }, path)
	case reflect.Pointer:
		if !v.IsNil() {
			restore(func() { v.SetZero() }, path+" gone")
			mutations(v.Elem(), path, try)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			mutations(v.Field(i), path+"."+v.Type().Field(i).Name, try)
		}
	case reflect.Slice:
		for i := range v.Len() {
			mutations(v.Index(i), fmt.Sprintf("%s[%d]", path, i), try)
		}
		more := reflect.New(v.Type().Elem()).Elem()
		switch more.Kind() {
		case reflect.String:
			more.SetString("x")
		case reflect.Uint32:
			more.SetUint(77)
		}
		restore(func() { v.Set(reflect.Append(reflect.AppendSlice(reflect.MakeSlice(v.Type(), 0, v.Len()+1), v), more)) }, path+" more")
	default:
		panic("facts have a " + v.Kind().String())
	}
}

// Any single change to facts that fit the image's own word refuses, but for
// those that say nothing about what runs or that only take away.
func TestAnySingleChangeRefuses(t *testing.T) {
	harmless := regexp.MustCompile(`^(` +
		`\.Name|\.Early to true|\.Image\.Repositories more|\.Image\.Signatures more|` +
		`\.Image\.Config\.Volumes more|` + // the image would have a volume that is not mounted
		`\.Env\[0\]|` + // the host name
		`\.Mounts\[\d+\]\.(HostPath|ReadOnly to true)|` + // of the runtime's own
		`\.Privileges\.(MaskedPaths|ReadonlyPaths) more` +
		`)$`)
	m := webRun(t, nil)
	c := policytest.Container(policytest.Web)
	tried := 0
	mutations(reflect.ValueOf(&c).Elem(), "", func(path string) {
		tried++
		if _, _, d := m.Bind(policy.PodFacts{}, c); d.Allowed != harmless.MatchString(path) {
			t.Errorf("%s: %v", path, d)
		}
	})
	if tried < 110 {
		t.Errorf("only %d changes were tried", tried)
	}
	if _, _, d := m.Bind(policy.PodFacts{}, c); !d.Allowed {
		t.Errorf("the facts were not put back: %v", d)
	}
}
