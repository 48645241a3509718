#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Shows the module's statistics as a table: exits by reason, EPT entries by size, VPIDs, what
# FlexPriority saved and left of the exits for the local APIC, flushes.
# Wants a plain POSIX shell and awk, such as busybox's.
#
# usage: summary.sh [--tpr ACCESSES] [FILE]
#
# FILE is the module's in debugfs by default, mounted if need be. An access to the task priority that
# does not exit is seen by nobody: ACCESSES is how many the guests say that they made.

debugfs=/sys/kernel/debug
accesses=0
if [ "${1:-}" = --tpr ]; then
	accesses=$2
	shift 2
fi
# Without FlexPriority each of them exited.
if [ "$(cat /sys/module/kvm_rs/parameters/flexpriority 2>/dev/null)" != Y ]; then
	accesses=0
fi
stats=${1:-$debugfs/kvm-rs/stats}

if [ $# -eq 0 ] && [ ! -e "$stats" ]; then
	mount -t debugfs none "$debugfs" 2>/dev/null
fi
if [ ! -r "$stats" ]; then
	echo "summary.sh: cannot read $stats (is kvm_rs loaded?)" >&2
	exit 1
fi

awk -v accesses="$accesses" '
# Prints a line of a table.
function row(name, value) {
	printf "  %-28s %14s\n", name, value
}

# Prints a heading over lines with two columns.
function heading(name, first, second) {
	printf "\n%-30s %14s %14s\n", name, first, second
}

# Prints a line with two columns.
function pair(name, first, second) {
	printf "  %-28s %14s %14s\n", name, first, second
}

# Returns what was counted under a name, or a dash where the module does not count it.
function get(name) {
	return name in value ? value[name] : "-"
}

# Prints the exits, those that came most often first.
function exits(    i, most, name, total) {
	print "exits by reason"
	for (;;) {
		most = ""
		for (i = 1; i <= reasons; i++)
			if (!(reason[i] in shown) && value[reason[i]] > 0 &&
			    (most == "" || value[reason[i]] > value[most]))
				most = reason[i]
		if (most == "")
			break
		shown[most] = 1
		total += value[most]
		name = substr(most, 7)
		gsub(/_/, " ", name)
		row(name, value[most])
	}
	row("total", total + 0)
	if ("entries" in value)
		row("VM entries", value["entries"])
}

NF == 2 && $2 ~ /^[0-9]+$/ {
	value[$1] = $2 + 0
	if ($1 ~ /^exits_/)
		reason[++reasons] = $1
}

END {
	exits()
	heading("EPT entries", "now", "ever made")
	pair("4 KiB", get("ept_4k"), get("ept_4k_mapped"))
	pair("2 MiB", get("ept_2m"), get("ept_2m_mapped"))
	if (get("ept_1g") > 0 || get("ept_1g_mapped") > 0)
		pair("1 GiB", get("ept_1g"), get("ept_1g_mapped"))
	heading("VPIDs", "now", "at most")
	pair("in use", get("vpid_in_use"), get("vpid_max_in_use"))
	tpr = get("exits_tpr_below_threshold") + 0
	if (accesses > 0 || tpr > 0 || get("exits_apic_access") > 0) {
		print "\nFlexPriority"
		if (accesses > 0)
			row("TPR exits avoided", accesses - tpr)
		row("TPR exits", tpr)
		row("exits for other registers", get("exits_apic_access") + 0)
	}
	heading("TLB flushes", "one context", "all contexts")
	pair("INVVPID", get("invvpid_single"), get("invvpid_all"))
	pair("INVEPT", get("invept_single"), get("invept_all"))
}' "$stats"
