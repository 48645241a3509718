#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs the samples one after the other and shows what the module did for them. Wants the programs in
# its own directory and a plain POSIX shell, such as busybox's.
#
# usage: run.sh [DEVICE]

device=${1:-/dev/kvm-rs}
here=$(dirname "$0")
failed=0
out=/tmp/run.out
: >$out

# Runs the rest of the words under a heading, and notes a failure.
show() {
	heading=$1
	shift
	echo "== $heading"
	{
		"$@"
		echo $? >$out.status
	} | tee -a $out
	read -r status <$out.status
	if [ $status -ne 0 ]; then
		echo "run.sh: $1: status $status" >&2
		failed=1
	fi
	echo
}

show "hello: the smallest client, a guest in real mode and one in 64-bit mode" \
	"$here/hello" "$device"
show "vmm: a 64-bit guest on 2 MiB pages" \
	"$here/vmm" --device "$device" --stats "$here/guest.elf"
show "vmm: the same guest with 24 MiB on 4 KiB pages" \
	"$here/vmm" --device "$device" --stats --memory 24 --pages 4k "$here/guest.elf"

show "vmm: Linux with two vCPUs, a disk and a network card" \
	"$here/linux.sh" "$device"

# The in-tree KVM has no such statistics.
if [ "$device" = /dev/kvm-rs ]; then
	accesses=$(awk '{ for (i = 2; i < NF; i++) if ($i == "TPR") n += $(i - 1) } END { print n + 0 }' $out)
	show "kvm_rs: what the module did for these guests" "$here/summary.sh" --tpr "$accesses"
fi
rm -f $out $out.status
exit $failed
