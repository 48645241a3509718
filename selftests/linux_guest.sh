#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Boots Linux in samples/vmm to its shell, with two vCPUs, a disk and a network card, and looks
# whether all of it works: interrupts from devices and IPIs, ports, MMIO, paging, SMP, the clock.
#
# usage: linux_guest.sh [PARAMETER=VALUE...|DEVICE]
#
# Loads kvm_rs anew if it is to have parameters. Wants busybox, samples/vmm in /rig/samples and a
# kernel with its initramfs in /rig/linux.

device=/dev/kvm-rs
case ${1:-} in
/*) device=$1 ;;
*=*) rmmod kvm_rs && insmod /rig/modules/kvm_rs.ko "$@" || exit 1 ;;
esac
cpus=2
dir=/tmp/linux_guest
host=192.168.76.1
guest=192.168.76.2
mkdir -p $dir
number=0
failed=0

# check NAME COMMAND...: a test point, which passes if COMMAND does.
check() {
	name=$1
	shift
	number=$((number + 1))
	if "$@" >/dev/null 2>&1; then
		echo "ok $number $name"
	else
		echo "not ok $number $name"
		failed=1
	fi
}

# What the guest's user types. The prompts make it wait for the guest.
session() {
	echo nproc
	echo md5sum /dev/vda
	echo "echo written by the guest | dd of=/dev/vda bs=512 seek=5 conv=notrunc,fsync"
	echo "ping -c 1 -W 5 $host"
	# The guest is at its prompt now, or will be.
	tries=0
	until ping -c 1 -W 1 $guest >$dir/ping || [ $tries = 10 ]; do
		tries=$((tries + 1))
	done
	echo cat /proc/interrupts
	echo dmesg
	echo reboot -f
}

# interrupts NAME: both counts of the line NAME, without spaces, in the guest's /proc/interrupts.
interrupts() {
	awk -v name="$1" '$1 == name ":" || $NF == name { print $2 + $3 }' $dir/out
}

head -c 65536 /dev/urandom >$dir/disk
sum=$(md5sum <$dir/disk)
tunctl -t tap0 >/dev/null
ip addr add $host/24 dev tap0
ip link set tap0 up

echo TAP version 13
echo 1..11
session | /rig/samples/vmm --device "$device" --cpus $cpus --initrd /rig/linux/initramfs \
	--block $dir/disk --net tap0 --append "quiet TERM=dumb initcall_blacklist=trace_eval_init" \
	--prompt "guest# " /rig/linux/bzImage >$dir/out 2>&1
status=$?

check "the guest ends by a reset" [ $status = 0 ]
check "the shell's prompt" grep -q "^guest# nproc" $dir/out
check "each vCPU is up" grep -qx $cpus $dir/out
check "the guest reads what is on the disk" grep -q "^${sum%% *}  /dev/vda" $dir/out
check "the guest writes to the disk" sh -c "dd if=$dir/disk bs=512 skip=5 count=1 | head -n 1 |
	grep -qx 'written by the guest'"
check "the guest reaches the host" grep -q "1 packets received" $dir/out
check "the host reaches the guest" grep -q "1 packets received" $dir/ping
check "interrupts of devices" [ "$(interrupts virtio1)" -gt 2 ]
check "interrupts between vCPUs" [ "$(interrupts CAL)" -ge $((cpus - 1)) ]
# Each vCPU is told once that every page is there, when it asks to be told.
check "interrupts for pages that are there" [ "$(interrupts HYP)" -ge $cpus ]
check "no complaint of the kernel" sh -c "! grep -E '(WARNING|BUG|Oops|stall|Call Trace)' $dir/out"

if [ $failed != 0 ]; then
	sed 's/^/# /' $dir/out
fi
ip link set tap0 down
tunctl -d tap0 >/dev/null
exit $failed
