# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Shared by the tools in scripts/: where things are kept, how a step is done
# once, and how its progress is told.
#
# Everything that takes long to make lies in a cache folder outside the
# checkout, under a name that ends in a hash of what went into it. A step that
# did not come to its end leaves no finished mark and is done again.

# The checkout this copy of the tools belongs to.
CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
CACHE=${KVM_RS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvm-rs}
JOBS=${JOBS:-$(($(nproc) + 1))}
mkdir -p "$CACHE/locks"
CACHE=$(cd "$CACHE" && pwd -P)
# shellcheck disable=SC2034 # used by the scripts that source this file
CHECKOUT_KEY=$(printf '%s' "$CHECKOUT" | sha256sum | cut -c1-12)

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# note TEXT: tells a fact about progress, on stderr.
note() {
	[ -n "${KVM_RS_QUIET:-}" ] || printf '%s\n' "$*" >&2
}

# hash_of FILE|=TEXT...: prints twelve digits that change with the contents.
hash_of() {
	local item
	for item in "$@"; do
		case $item in
		=*) printf '%s\n' "$item" ;;
		*) cat "$item" ;;
		esac
	done | sha256sum | cut -c1-12
}

# with_lock NAME FUNCTION ARG...: runs FUNCTION while no other process of this
# cache holds NAME. A failure ends the script, as with step: neither may stand
# where the shell ignores `set -e` (if, ||, &&).
with_lock() {
	local name=$1 fd
	shift
	exec {fd}>"$CACHE/locks/$name"
	if ! flock -n "$fd"; then
		note "waiting for another run: $name"
		flock "$fd"
	fi
	# The lock is not for the children: a daemon left behind must not keep it.
	"$@" {fd}>&-
	exec {fd}>&-
}

# step TITLE LOG FUNCTION ARG...: runs FUNCTION with its output in LOG and tells
# how long it took. Shows the end of LOG when FUNCTION fails.
step() {
	local title=$1 log=$2 start=$SECONDS status=0
	shift 2
	mkdir -p "$(dirname "$log")"
	note "$(printf '[ .... ] %s' "$title")"
	set +e
	(
		set -e
		"$@"
	) >"$log" 2>&1
	status=$?
	set -e
	if [ $status != 0 ]; then
		note "$(printf '[failed] %s after %s; the end of %s:' \
			"$title" "$(duration $((SECONDS - start)))" "$log")"
		tail -n 40 "$log" >&2
		return $status
	fi
	note "$(printf '[%6s] %s' "$(duration $((SECONDS - start)))" "$title")"
}

duration() {
	printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

# in_same_place OUTPUT COMMAND...: runs it in the build root, where this checkout is
# seen as SAME_SOURCE and the folder OUTPUT as SAME_OUTPUT: so that what is built
# does not depend on where either lies.
SAME_SOURCE=/this-checkout
# shellcheck disable=SC2034 # used by the scripts that source this file
SAME_OUTPUT=/this-output
in_same_place() {
	local output=$1
	shift
	KVM_RS_QUIET=1 "$CHECKOUT/scripts/in-root" --bind "$CHECKOUT:$SAME_SOURCE" \
		--bind "$output:$SAME_OUTPUT" -- "$@"
}
