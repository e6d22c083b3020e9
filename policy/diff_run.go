// SPDX-License-Identifier: Apache-2.0

package policy

import "fmt"

// imageKeys names the rules: by what they list, and its further rules by their
// number.
func imageKeys(images []Image) []string {
	keys, seen := make([]string, len(images)), map[string]int{}
	for i := range images {
		source := images[i].source()
		if seen[source]++; seen[source] > 1 {
			keys[i] = fmt.Sprintf("%s, %d", source, seen[source])
		} else {
			keys[i] = source
		}
	}
	return keys
}

type namedImage struct {
	key string
	Image
}

func named(images []Image) []namedImage {
	list := make([]namedImage, len(images))
	for i, key := range imageKeys(images) {
		list[i] = namedImage{key, images[i]}
	}
	return list
}

func (d *differ) images(path string, a, b []Image) {
	keyed(d, path, named(a), named(b), func(i namedImage) string { return i.key }, func(i namedImage) string { return i.Name },
		func(path string, a, b namedImage) { d.value(path+".name", a.Name, b.Name, Changes) })
}
