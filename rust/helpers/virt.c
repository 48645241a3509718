// SPDX-License-Identifier: GPL-2.0
/* Shims for the end of VMX operation when the kernel crashes or is restarted without being asked. */

#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/string.h>

#include <asm/virt.h>

#include "helpers.h"

/*
 * Core x86 has room for one callback, and warns if there is one already. kvm_intel, which may be loaded
 * and removed at any time, registers its own without asking: it gets the room for as long as it is there.
 */
static DEFINE_MUTEX(emergency_lock);
static cpu_emergency_virt_cb *wanted_callback;
static cpu_emergency_virt_cb *registered_callback;
static bool kvm_intel_is_there;

static void update_registration(void)
{
	cpu_emergency_virt_cb *callback = kvm_intel_is_there ? NULL : wanted_callback;

	lockdep_assert_held(&emergency_lock);
	if (callback == registered_callback)
		return;
	if (callback)
		x86_virt_register_emergency_callback(callback);
	else
		x86_virt_unregister_emergency_callback(registered_callback);
	registered_callback = callback;
}

static int kvm_intel_comes_or_goes(struct notifier_block *block, unsigned long state, void *data)
{
	const struct module *module = data;

	if (strcmp(module->name, "kvm_intel"))
		return NOTIFY_DONE;
	/* Before its first instruction, or after its last. */
	if (state == MODULE_STATE_COMING || state == MODULE_STATE_GOING) {
		guard(mutex)(&emergency_lock);
		kvm_intel_is_there = state == MODULE_STATE_COMING;
		update_registration();
	}
	return NOTIFY_DONE;
}

static struct notifier_block module_notifier = {
	.notifier_call = kvm_intel_comes_or_goes,
};

/**
 * kvm_rs_emergency_register() - Have a function called on each CPU before core x86 does VMXOFF there
 * @callback:	Called with interrupts off, maybe in an NMI that interrupted anything
 *
 * While kvm_intel is loaded, it is not called.
 *
 * Return: 0 or a negative errno.
 */
int kvm_rs_emergency_register(void (*callback)(void))
{
	struct kobject *kvm_intel;
	int ret;

	ret = register_module_notifier(&module_notifier);
	if (ret)
		return ret;
	guard(mutex)(&emergency_lock);
	kvm_intel = kset_find_obj(THIS_MODULE->mkobj.kobj.kset, "kvm_intel");
	if (kvm_intel)
		kvm_intel_is_there = true;
	kobject_put(kvm_intel);
	wanted_callback = callback;
	update_registration();
	return 0;
}

void kvm_rs_emergency_unregister(void)
{
	unregister_module_notifier(&module_notifier);
	guard(mutex)(&emergency_lock);
	wanted_callback = NULL;
	update_registration();
}
