#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# enter.sh UNIT COMMAND...: runs a command on the node in whose folder this
# lies, in the cgroup UNIT of it, as the machine's systemd would.
set -euo pipefail
dir=$(dirname "$0") unit=$1
shift
id=$(basename "$dir") holder=$(<"$dir/pid")
while read -r mount type options; do
	cgroup=$mount/$id
	if [ "$type" = cgroup2 ] || [[ $options == *name=* ]]; then
		cgroup+=/$unit
		mkdir -p "$cgroup"
	fi
	echo $$ >"$cgroup/cgroup.procs"
done <"$dir/cgroups"
exec nsenter --target "$holder" --mount --net --uts --cgroup -- "$@"
