# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Root's rights over a tree in the cache: as root, or as a user who is root in a
# user namespace. Mounts end with the command.

# in_namespace COMMAND...: runs COMMAND as (mapped) root with mounts of its own.
in_namespace() {
	local map=()
	if [ "$(id -u)" != 0 ]; then
		command -v newuidmap >/dev/null ||
			die "needs root, or the package uidmap for user namespaces"
		map=(--map-root-user --map-auto)
	fi
	unshare "${map[@]}" --mount --propagation private --pid --fork \
		--kill-child "$@"
}

# remove_tree DIR: removes a tree whose files belong to mapped users too.
remove_tree() {
	[ -e "$1" ] || return 0
	in_namespace rm -rf --one-file-system "$1"
}
