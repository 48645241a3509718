// SPDX-License-Identifier: GPL-2.0
/* Shims for watching eventfds: poll tables and wait-queue entries have callbacks that are C's. */

#include <linux/err.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/poll.h>

#include "eventfd.h"

/* What adds a watch to the wait queue of the file that is polled. */
struct add_table {
	struct poll_table_struct table;
	struct kvm_rs_eventfd_watch *watch;
	int ret;
};

static int wake(wait_queue_entry_t *entry, unsigned int mode, int sync, void *key)
{
	struct kvm_rs_eventfd_watch *watch =
		container_of(entry, struct kvm_rs_eventfd_watch, entry);
	__poll_t events = key_to_poll(key);
	int taken = 0;
	u64 count;

	if (events & EPOLLIN) {
		eventfd_ctx_do_read(watch->eventfd, &count);
		watch->ops->signalled(watch);
		taken = 1;
	}
	if (events & EPOLLHUP)
		watch->ops->closed(watch);
	return taken;
}

static void add(struct file *file, wait_queue_head_t *queue, poll_table *table)
{
	struct add_table *add_table = container_of(table, struct add_table, table);

	/* First and alone: nobody else is to wake for what the watch takes. */
	add_table->ret = add_wait_queue_priority_exclusive(queue, &add_table->watch->entry);
}

/**
 * kvm_rs_eventfd_watch() - Begin to take what is written to an eventfd
 * @watch:	The watch, which must stay where it is
 * @file:	A file of the eventfd
 * @ops:	What to call; the first call may come before this returns
 *
 * Return: 0, -EINVAL for a file that is no eventfd, -EBUSY if another watches it.
 */
int kvm_rs_eventfd_watch(struct kvm_rs_eventfd_watch *watch, struct file *file,
			 const struct kvm_rs_eventfd_watch_ops *ops)
{
	struct add_table add_table = { .watch = watch, .ret = -EINVAL };
	__poll_t events;

	watch->eventfd = eventfd_ctx_fileget(file);
	if (IS_ERR(watch->eventfd))
		return PTR_ERR(watch->eventfd);
	watch->ops = ops;
	init_waitqueue_func_entry(&watch->entry, wake);
	init_poll_funcptr(&add_table.table, add);
	events = vfs_poll(file, &add_table.table);
	if (add_table.ret) {
		eventfd_ctx_put(watch->eventfd);
		return add_table.ret;
	}
	watch->pending = events & EPOLLIN;
	return 0;
}

/**
 * kvm_rs_eventfd_unwatch() - End a watch
 * @watch:	What kvm_rs_eventfd_watch() began
 *
 * No call is running on return, and none comes any more. Not to be called by one.
 */
void kvm_rs_eventfd_unwatch(struct kvm_rs_eventfd_watch *watch)
{
	u64 count;

	eventfd_ctx_remove_wait_queue(watch->eventfd, &watch->entry, &count);
	eventfd_ctx_put(watch->eventfd);
}
