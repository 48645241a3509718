// SPDX-License-Identifier: GPL-2.0
/* Shims for shrinkers: memory that the module gives back when the host is short of it. */

#include <linux/err.h>
#include <linux/shrinker.h>
#include <linux/slab.h>

#include "shrinker.h"

/**
 * struct kvm_rs_shrinker - A registered shrinker
 * @shrinker:	The kernel's part
 * @count:	Returns how many objects could be freed
 * @scan:	Frees about as many objects as it is told, and returns how many
 * @data:	What both are called with
 */
struct kvm_rs_shrinker {
	struct shrinker *shrinker;
	unsigned long (*count)(void *data);
	unsigned long (*scan)(void *data, unsigned long wanted);
	void *data;
};

static unsigned long count_objects(struct shrinker *shrinker, struct shrink_control *control)
{
	struct kvm_rs_shrinker *self = shrinker->private_data;

	return self->count(self->data) ?: SHRINK_EMPTY;
}

static unsigned long scan_objects(struct shrinker *shrinker, struct shrink_control *control)
{
	struct kvm_rs_shrinker *self = shrinker->private_data;

	return self->scan(self->data, control->nr_to_scan) ?: SHRINK_STOP;
}

/**
 * kvm_rs_shrinker_register() - Register a shrinker
 * @name:	Its name in debugfs
 * @seeks:	How dear an object is to make again, 2 for most
 * @batch:	The fewest objects that are worth a call
 * @count:	Returns how many objects could be freed; it must not sleep
 * @scan:	Frees about as many objects as it is told, and returns how many
 * @data:	What both are called with
 *
 * Both can be called before this returns.
 *
 * Return: The shrinker, NULL without memory.
 */
struct kvm_rs_shrinker *kvm_rs_shrinker_register(const char *name, int seeks, long batch,
						 unsigned long (*count)(void *data),
						 unsigned long (*scan)(void *data,
								       unsigned long wanted),
						 void *data)
{
	struct kvm_rs_shrinker *self = kmalloc(sizeof(*self), GFP_KERNEL_ACCOUNT);

	if (!self)
		return NULL;
	self->shrinker = shrinker_alloc(0, "%s", name);
	if (!self->shrinker) {
		kfree(self);
		return NULL;
	}
	self->count = count;
	self->scan = scan;
	self->data = data;
	self->shrinker->count_objects = count_objects;
	self->shrinker->scan_objects = scan_objects;
	self->shrinker->seeks = seeks;
	self->shrinker->batch = batch;
	self->shrinker->private_data = self;
	shrinker_register(self->shrinker);
	return self;
}

/**
 * kvm_rs_shrinker_unregister() - Unregister a shrinker and wait for its calls
 * @self:	What kvm_rs_shrinker_register() returned
 */
void kvm_rs_shrinker_unregister(struct kvm_rs_shrinker *self)
{
	shrinker_free(self->shrinker);
	kfree(self);
}
