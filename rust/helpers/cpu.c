// SPDX-License-Identifier: GPL-2.0
/* Shims for preemption, interrupts, other CPUs and CPU features. */

#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/entry-virt.h>
#include <linux/irqflags.h>
#include <linux/kvm.h>
#include <linux/list.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/reboot.h>
#include <linux/sched/signal.h>
#include <linux/smp.h>

#include <asm/apic.h>
#include <asm/cpufeature.h>
#include <asm/cpuid/api.h>
#include <asm/debugreg.h>
#include <asm/irq_vectors.h>
#include <asm/mce.h>
#include <asm/msr.h>
#include <asm/ptrace.h>
#include <asm/tsc.h>
#include <asm/virt.h>

#include "helpers.h"

void kvm_rs_preempt_disable(void)
{
	preempt_disable();
}

void kvm_rs_preempt_enable(void)
{
	preempt_enable();
}

unsigned long kvm_rs_irq_save(void)
{
	unsigned long flags;

	local_irq_save(flags);
	return flags;
}

void kvm_rs_irq_restore(unsigned long flags)
{
	local_irq_restore(flags);
}

unsigned int kvm_rs_this_cpu(void)
{
	return raw_smp_processor_id();
}

void kvm_rs_smp_mb(void)
{
	smp_mb();
}

/**
 * kvm_rs_send_reschedule() - Make a CPU leave its guest soon, without waiting for it
 * @cpu:	The CPU; it may have gone offline meanwhile, then nothing is sent
 *
 * Context: Preemption off, so that an online CPU stays so.
 */
void kvm_rs_send_reschedule(unsigned int cpu)
{
	if (cpu < nr_cpu_ids && cpu_online(cpu))
		arch_smp_send_reschedule(cpu);
}

static_assert(KVM_RS_POSTED_INTERRUPT_VECTOR == POSTED_INTR_VECTOR);

/**
 * kvm_rs_send_posted_interrupt() - Send a CPU the interrupt that posts interrupts to its guest
 * @cpu:	The CPU; it may have gone offline meanwhile, then nothing is sent
 *
 * A CPU in a guest with posted interrupts takes them without an exit. Any other handles the interrupt
 * as the kernel's own handler does for KVM: there is nothing to do.
 *
 * Context: Preemption off, so that an online CPU stays so.
 */
void kvm_rs_send_posted_interrupt(unsigned int cpu)
{
	if (cpu < nr_cpu_ids && cpu_online(cpu))
		__apic_send_IPI_mask(get_cpu_mask(cpu), POSTED_INTR_VECTOR);
}

static DEFINE_PER_CPU(u64, current_vmcs) = U64_MAX;

/**
 * kvm_rs_current_vmcs() - What kvm_rs_set_current_vmcs() was last given on this CPU
 *
 * Return: The address of the VMCS, or U64_MAX if there is none.
 */
u64 kvm_rs_current_vmcs(void)
{
	return this_cpu_read(current_vmcs);
}

void kvm_rs_set_current_vmcs(u64 address)
{
	this_cpu_write(current_vmcs, address);
}

/* The VMCSs that are active on the CPU. Changed with interrupts off, walked by NMIs too. */
static DEFINE_PER_CPU(struct list_head, active_vmcss);

void kvm_rs_active_vmcs_init(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		INIT_LIST_HEAD(per_cpu_ptr(&active_vmcss, cpu));
}

void kvm_rs_active_vmcs_add(struct list_head *link)
{
	list_add(link, this_cpu_ptr(&active_vmcss));
}

void kvm_rs_active_vmcs_remove(struct list_head *link)
{
	list_del(link);
}

/**
 * kvm_rs_active_vmcs_for_each() - Call a function with each link in this CPU's list
 * @function:	May remove the link that it is given
 * @data:	Its second argument
 *
 * Context: Interrupts off.
 */
void kvm_rs_active_vmcs_for_each(void (*function)(struct list_head *link, void *data), void *data)
{
	struct list_head *link, *next;

	list_for_each_safe(link, next, this_cpu_ptr(&active_vmcss))
		function(link, data);
}

static void acknowledge_kick(void *unused)
{
}

/**
 * kvm_rs_kick_cpus_and_wait() - Make CPUs leave their guests, and wait until they have
 * @cpus:	A bitmap of nr_cpu_ids bits
 *
 * Context: Interrupts on, preemption off; this CPU's bit is ignored.
 */
void kvm_rs_kick_cpus_and_wait(const unsigned long *cpus)
{
	smp_call_function_many(to_cpumask(cpus), acknowledge_kick, NULL, true);
}

/**
 * kvm_rs_guest_work_pending() - Whether the current task must not enter a guest now
 *
 * Context: Interrupts off.
 *
 * Return: true if a signal, a reschedule or other work waits for the task.
 */
bool kvm_rs_guest_work_pending(void)
{
	return __xfer_to_guest_mode_work_pending();
}

/**
 * kvm_rs_handle_guest_work() - Do the work that waits for the current task
 *
 * Context: Interrupts on; may sleep.
 *
 * Return: 0, or -EINTR if a signal waits.
 */
int kvm_rs_handle_guest_work(void)
{
	return xfer_to_guest_mode_handle_work();
}

bool kvm_rs_signal_pending(void)
{
	return signal_pending(current);
}

/**
 * kvm_rs_hotplug_register() - Have a function called on every CPU, now and as CPUs come and go
 * @name:	Name of the state
 * @online:	Called on each CPU that is or comes online
 * @offline:	Called on each CPU that goes offline, and on all of them at unregistration
 *
 * Return: The state's number, for kvm_rs_hotplug_unregister(), or a negative errno.
 */
int kvm_rs_hotplug_register(const char *name, int (*online)(unsigned int cpu),
			    int (*offline)(unsigned int cpu))
{
	return cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, name, online, offline);
}

void kvm_rs_hotplug_unregister(int state)
{
	cpuhp_remove_state(state);
}

bool kvm_rs_system_is_going_down(void)
{
	return system_state == SYSTEM_HALT || system_state == SYSTEM_POWER_OFF ||
	       system_state == SYSTEM_RESTART;
}

void kvm_rs_on_each_cpu(void (*function)(void *data))
{
	on_each_cpu(function, NULL, 1);
}

unsigned int kvm_rs_online_cpus(void)
{
	return num_online_cpus();
}

bool kvm_rs_cpu_has_vmx(void)
{
	return cpu_has(&boot_cpu_data, X86_FEATURE_VMX);
}

/**
 * kvm_rs_exits_to_disable() - Which exits can guests do without on this CPU?
 *
 * A guest may wait by MWAIT only if that wakes as it should, and the timer of the local APIC goes on in
 * every state to which that leads.
 *
 * Return: KVM_X86_DISABLE_EXITS_*
 */
u32 kvm_rs_exits_to_disable(void)
{
	u32 exits = KVM_X86_DISABLE_EXITS_PAUSE | KVM_X86_DISABLE_EXITS_HLT |
		    KVM_X86_DISABLE_EXITS_CSTATE;

	if (boot_cpu_has(X86_FEATURE_APERFMPERF))
		exits |= KVM_X86_DISABLE_EXITS_APERFMPERF;
	if (boot_cpu_has(X86_FEATURE_MWAIT) && !boot_cpu_has_bug(X86_BUG_MONITOR) &&
	    boot_cpu_has(X86_FEATURE_ARAT))
		exits |= KVM_X86_DISABLE_EXITS_MWAIT;
	return exits;
}

/**
 * kvm_rs_feature_word() - A word of the features that the kernel knows and uses
 * @index:	The word, as enum cpuid_leafs numbers them
 *
 * Return: The word, all ones if there is none with that number.
 */
u32 kvm_rs_feature_word(unsigned long index)
{
	return index < NCAPINTS ? boot_cpu_data.x86_capability[index] : ~0U;
}

/**
 * kvm_rs_virt_get() - Put this CPU into VMX operation, or count one more user of it
 *
 * Return: 0, -EOPNOTSUPP without VMX, -EBUSY if somebody else did VMXON.
 */
int kvm_rs_virt_get(void)
{
	return x86_virt_get_ref(X86_FEATURE_VMX);
}

void kvm_rs_virt_put(void)
{
	x86_virt_put_ref(X86_FEATURE_VMX);
}

unsigned int kvm_rs_tsc_khz(void)
{
	return tsc_khz;
}

u64 kvm_rs_rdtsc(void)
{
	return rdtsc();
}

/**
 * kvm_rs_machine_check() - Hand a machine check that hit the guest to the host's handler
 *
 * Context: Interrupts off, directly after the VM exit.
 */
void kvm_rs_machine_check(void)
{
#ifdef CONFIG_X86_MCE
	/* As if from user space, whatever the guest ran in: the host itself is not corrupt. */
	struct pt_regs regs = {
		.cs = 3,
		.flags = X86_EFLAGS_IF,
	};

	do_machine_check(&regs);
#endif
}

/**
 * kvm_rs_load_debug_registers() - Load the guest's breakpoint addresses, with the host's disarmed
 * @address:	DR0 to DR3
 *
 * Context: Interrupts off.
 */
void kvm_rs_load_debug_registers(const unsigned long address[4])
{
	set_debugreg(DR7_FIXED_1, 7);
	set_debugreg(address[0], 0);
	set_debugreg(address[1], 1);
	set_debugreg(address[2], 2);
	set_debugreg(address[3], 3);
}

/**
 * kvm_rs_load_debug_status() - Load the guest's DR6
 * @dr6:	Its value
 *
 * Context: Interrupts off, until kvm_rs_take_debug_registers().
 */
void kvm_rs_load_debug_status(unsigned long dr6)
{
	set_debugreg(dr6, 6);
}

/**
 * kvm_rs_take_debug_registers() - Read what the guest left in DR0 to DR3 and DR6
 * @address:	Where to put DR0 to DR3
 *
 * The kernel's handler of #DB expects a DR6 that tells of nothing. Its own breakpoints come back in
 * kvm_rs_guest_timing_exit().
 *
 * Context: Interrupts off since the VM exit.
 *
 * Return: DR6.
 */
unsigned long kvm_rs_take_debug_registers(unsigned long address[4])
{
	unsigned long dr6;

	get_debugreg(address[0], 0);
	get_debugreg(address[1], 1);
	get_debugreg(address[2], 2);
	get_debugreg(address[3], 3);
	get_debugreg(dr6, 6);
	set_debugreg(DR6_RESERVED, 6);
	return dr6;
}

void kvm_rs_cpuid(u32 leaf, u32 subleaf, u32 out[4])
{
	cpuid_count(leaf, subleaf, &out[0], &out[1], &out[2], &out[3]);
}
