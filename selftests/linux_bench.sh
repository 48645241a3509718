#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Measures what it takes to boot Linux in samples/vmm to its prompt, with two vCPUs, in the form of
# bench.c: name, unit and value, separated by tabs. Wants what linux_guest.sh wants, and one CPU.
#
# usage: linux_bench.sh DEVICE

out=/tmp/linux_bench

# busy: the time that the CPU was not idle, in hundredths of a second. Of a machine with 100 million
# instructions a second, that is millions of instructions.
busy() {
	awk '{ print ($1 - $2) * 100 }' /proc/uptime
}

start=$(busy)
/rig/samples/vmm --device "$1" --cpus 2 --initrd /rig/linux/initramfs --stats \
	--append "quiet TERM=dumb initcall_blacklist=trace_eval_init" \
	--prompt "guest# " /rig/linux/bzImage </dev/null >$out 2>&1 || {
	cat $out
	exit 1
}
end=$(busy)
awk -v instructions=$((end - start)) '
function row(name, unit, value) {
	printf "Linux boot to the prompt%s\t%s\t%d\n", name, unit, value
}
$1 == "total" { user = $2 }
$1 == "exits" && $2 ~ /^[0-9]+$/ { exits = $2 }
END {
	row("", "million instructions", instructions)
	row(", exits", "exits", exits)
	row(", exits to user space", "exits", user)
}' $out
