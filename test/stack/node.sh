#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# node.sh: makes the namespaces of a node and holds them until stdin ends,
# which is when its owner dies; then it kills everything on the node. It says
# "ready" on stdout. DIR is the node's folder, ID the name of its cgroups, NAME
# its host name; DIR/cgroups lists the machine's hierarchies, "MOUNT TYPE
# OPTIONS" a line, the unified one first.
set -euo pipefail
exec 2>"$DIR/log/node.log.$((1 + ${INSIDE:-0}))"

if [ -z "${INSIDE:-}" ]; then
	# The cgroup namespace gets its root from where we are.
	while read -r mount _; do echo $$ >"$mount/$ID/cgroup.procs"; done <"$DIR/cgroups"
	INSIDE=1 exec unshare --mount --net --uts --cgroup --propagation private "$BASH" "$0"
fi

hostname "$NAME"
ip link set lo up

# A copy of the machine's mounts would keep other people's namespaces and maps
# alive: let go of all of them, and have a /run and a /sys of our own.
# Their owners may remove them at the same moment.
others() { awk '$5 ~ "^/run/" || / - nsfs / { print $5 }' /proc/self/mountinfo; }
others | tac | while read -r mount; do umount -l "$mount" || true; done
[ -z "$(others)" ] || { echo "cannot unmount $(others)" >&2 && exit 1; }
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock
umount -R -l /sys
mount -t sysfs sysfs /sys
mount -t securityfs securityfs /sys/kernel/security || true
mount -t tracefs tracefs /sys/kernel/tracing || true
mount -t bpf bpf /sys/fs/bpf

read -r unified _ <"$DIR/cgroups"
[ "$unified" = /sys/fs/cgroup ] || mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
while read -r mount type options; do
	mkdir -p "$mount"
	mount -t "$type" ${options:+-o "$options"} "$type" "$mount"
done <"$DIR/cgroups"
# Version 2 hands controllers down only from cgroups without processes.
mkdir "$unified/init.scope"
echo $$ >"$unified/init.scope/cgroup.procs"

for d in etc var opt usr/local; do
	mkdir -p "$DIR/upper/$d" "$DIR/aside/$d"
	mount -t overlay -o "lowerdir=/$d,upperdir=$DIR/upper/$d,workdir=$DIR/aside/$d" overlay "/$d"
done
# What the machine itself may have there is not the node's; and an overlay
# cannot hold others, as containerd needs.
for d in etc/containerd etc/cni etc/kubernetes opt/cni var/lib/containerd var/lib/cni var/lib/kubelet var/log/pods var/log/containers; do
	mkdir -p "$DIR/own/$d" "/$d"
	mount --bind "$DIR/own/$d" "/$d"
done
mkdir -p /etc/containerd/conf.d /etc/cni/net.d /opt/cni/bin
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$NAME" >/etc/hosts
echo "# no name server" >/etc/resolv.conf
echo "$NAME" >/etc/hostname

# A kubelet sets these for the whole machine unless they are as it wants.
while read -r name value; do
	file=/run/sysctl/${name//\//_}
	mkdir -p /run/sysctl
	echo "$value" >"$file"
	mount --bind "$file" "/proc/sys/$name"
done <<-END
	vm/overcommit_memory 1
	vm/panic_on_oom 0
	kernel/panic 10
	kernel/panic_on_oops 1
	kernel/keys/root_maxkeys 1000000
	kernel/keys/root_maxbytes 25000000
END
# These are the namespace's. Nobody else can have our addresses.
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
for c in all default; do echo 0 >/proc/sys/net/ipv6/conf/$c/accept_dad; done

mount --make-rshared / # as on machines with systemd; the peers are all ours
echo ready
exec >/dev/null
read -r _ || true
echo 1 >"$unified/cgroup.kill"
