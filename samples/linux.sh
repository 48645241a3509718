#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Boots Linux in vmm: two vCPUs, a disk and a network card; and shows a session at its shell. Wants vmm
# and the folder linux, with a bzImage and an initramfs, beside itself; root; and a plain POSIX shell
# with tunctl and ip, such as busybox's.
#
# usage: linux.sh [DEVICE]

device=${1:-/dev/kvm-rs}
here=$(dirname "$0")
disk=/tmp/vmm-disk
tap=vmm0

# What a user would type, a line at each prompt.
session() {
	cat <<-'EOS'
		uname -a
		dmesg | grep -e 'Hypervisor detected' -e 'Brought up'
		head -n 1 /dev/vda
		ping -c 1 192.168.76.1
		grep -e ttyS0 -e virtio -e CAL /proc/interrupts
		exit
	EOS
}

{
	echo "This stands on the disk."
	head -c 65536 /dev/zero
} >$disk
tunctl -t $tap >/dev/null
ip addr add 192.168.76.1/24 dev $tap
ip link set $tap up

# Quiet, as each character of the kernel's log costs two exits. A dumb terminal has no line editor. The
# formats of trace events need not be made readable in this guest.
session | "$here/vmm" --device "$device" --stats --cpus 2 \
	--block $disk --net $tap --initrd "$here/linux/initramfs" \
	--append "quiet TERM=dumb initcall_blacklist=trace_eval_init" \
	--prompt "guest# " "$here/linux/bzImage"
status=$?

tunctl -d $tap >/dev/null
rm $disk
exit $status
