#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Measures what it takes to boot Linux in samples/vmm to its prompt, with two vCPUs, in the form of
# bench.c: name, unit and value, separated by tabs. Wants what linux_guest.sh wants, and one CPU.
#
# The vCPUs take turns, and no two boots are alike: each figure is the least of several.
#
# usage: linux_bench.sh DEVICE

boots=12
out=/tmp/linux_bench

# busy: the time that the CPU was not idle, in hundredths of a second. Of a machine with 100 million
# instructions a second, that is millions of instructions.
busy() {
	awk '{ print ($1 - $2) * 100 }' /proc/uptime
}

boot=0
while [ $boot -lt $boots ]; do
	boot=$((boot + 1))
	start=$(busy)
	/rig/samples/vmm --device "$1" --cpus 2 --initrd /rig/linux/initramfs --stats \
		--append "quiet TERM=dumb initcall_blacklist=trace_eval_init" \
		--prompt "guest# " /rig/linux/bzImage </dev/null >$out.$boot 2>&1 || {
		cat $out.$boot
		exit 1
	}
	end=$(busy)
	echo "instructions $((end - start))" >>$out.$boot
done
cat $out.* | awk '
function least(name, value) {
	if (!(name in figure) || value < figure[name])
		figure[name] = value
}
function row(name, unit) {
	printf "Linux boot to the prompt%s\t%s\t%d\n", name, unit, figure[unit]
}
$1 == "total" { least("exits to user space", $2) }
$1 == "exits" && $2 ~ /^[0-9]+$/ { least("exits", $2) }
$1 == "instructions" { least("million instructions", $2) }
END {
	row("", "million instructions")
	row(", exits", "exits")
	row(", exits to user space", "exits to user space")
}' | sed 's/\texits to user space\t/\texits\t/'
rm $out.*
