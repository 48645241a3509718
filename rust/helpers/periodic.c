// SPDX-License-Identifier: GPL-2.0
/* Shims for work that is done again and again, in the background. */

#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "periodic.h"

/**
 * struct kvm_rs_periodic - Work that is done again and again
 * @work:	The kernel's part
 * @run:	Does the work, and returns after how many milliseconds to do it again
 * @data:	What @run is called with
 * @all:	Its place among all such work
 */
struct kvm_rs_periodic {
	struct delayed_work work;
	unsigned int (*run)(void *data);
	void *data;
	struct list_head all;
};

static LIST_HEAD(all_work);
static DEFINE_MUTEX(all_work_lock);

static void do_work(struct work_struct *work)
{
	struct kvm_rs_periodic *self = container_of(to_delayed_work(work),
						    struct kvm_rs_periodic, work);
	unsigned int delay_ms = self->run(self->data);

	queue_delayed_work(system_dfl_wq, &self->work, msecs_to_jiffies(delay_ms));
}

/**
 * kvm_rs_periodic_start() - Have work done again and again
 * @delay_ms:	Milliseconds until the first time
 * @run:	Does the work, and returns after how many milliseconds to do it again
 * @data:	What @run is called with
 *
 * Return: The work, NULL without memory.
 */
struct kvm_rs_periodic *kvm_rs_periodic_start(unsigned int delay_ms,
					      unsigned int (*run)(void *data), void *data)
{
	struct kvm_rs_periodic *self = kmalloc(sizeof(*self), GFP_KERNEL_ACCOUNT);

	if (!self)
		return NULL;
	INIT_DELAYED_WORK(&self->work, do_work);
	self->run = run;
	self->data = data;
	mutex_lock(&all_work_lock);
	list_add(&self->all, &all_work);
	mutex_unlock(&all_work_lock);
	queue_delayed_work(system_dfl_wq, &self->work, msecs_to_jiffies(delay_ms));
	return self;
}

/**
 * kvm_rs_periodic_stop() - End work of kvm_rs_periodic_start(), and wait for it
 * @self:	The work
 */
void kvm_rs_periodic_stop(struct kvm_rs_periodic *self)
{
	mutex_lock(&all_work_lock);
	list_del(&self->all);
	mutex_unlock(&all_work_lock);
	cancel_delayed_work_sync(&self->work);
	kfree(self);
}

/**
 * kvm_rs_periodic_wake_all() - Have all work done now that is done again and again
 */
void kvm_rs_periodic_wake_all(void)
{
	struct kvm_rs_periodic *self;

	mutex_lock(&all_work_lock);
	list_for_each_entry(self, &all_work, all)
		mod_delayed_work(system_dfl_wq, &self->work, 0);
	mutex_unlock(&all_work_lock);
}
