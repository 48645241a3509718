# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Root's rights over a tree in the cache: as root, or as a user who is root in a
# user namespace. Mounts end with the command.

# The command line that goes in front of another.
namespace() {
	NAMESPACE=(unshare --mount --propagation private)
	if [ "$(id -u)" != 0 ]; then
		command -v newuidmap >/dev/null ||
			die "needs root, or the package uidmap for user namespaces"
		NAMESPACE+=(--map-root-user --map-auto)
	fi
}

# in_namespace COMMAND...: runs COMMAND as (mapped) root with mounts of its own.
in_namespace() {
	namespace
	"${NAMESPACE[@]}" "$@"
}

# remove_tree DIR: removes a tree whose files belong to mapped users too.
remove_tree() {
	[ -e "$1" ] || return 0
	in_namespace rm -rf --one-file-system "$1"
}
