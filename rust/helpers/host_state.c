// SPDX-License-Identifier: GPL-2.0
/* Shims for the host's own state, which a VM exit brings back or must find as it was. */

#include <linux/sched.h>

#include <asm/cpu_entry_area.h>
#include <asm/debugreg.h>
#include <asm/desc.h>
#include <asm/fpu/xcr.h>
#include <asm/mmu_context.h>
#include <asm/msr.h>
#include <asm/pkru.h>
#include <asm/processor.h>
#include <asm/segment.h>
#include <asm/tlbflush.h>

#include "../vmx/guest_regs.h"
#include "helpers.h"

/**
 * kvm_rs_host_constants() - Read what stays the same for every entry of this boot
 * @host:	Where to put it
 */
void kvm_rs_host_constants(struct kvm_rs_host_constants *host)
{
	struct desc_ptr idt;
	u64 value;

	store_idt(&idt);
	host->cr0 = read_cr0();
	rdmsrq(MSR_EFER, host->efer);
	rdmsrq(MSR_IA32_CR_PAT, host->pat);
	host->idt_base = idt.address;
	rdmsrq(MSR_IA32_SYSENTER_CS, value);
	host->sysenter_cs = value;
	rdmsrq(MSR_IA32_SYSENTER_EIP, host->sysenter_eip);
	host->exit_rip = (unsigned long)kvm_rs_vmx_exit;
	host->xcr0 = boot_cpu_has(X86_FEATURE_XSAVE) ? xgetbv(XCR_XFEATURE_ENABLED_MASK) : 0;
	if (boot_cpu_has(X86_FEATURE_XSAVES))
		rdmsrq(MSR_IA32_XSS, host->xss);
	host->xcr0_kept = host->xss ? 0 : host->xcr0;
	host->cs = __KERNEL_CS;
	host->ss = __KERNEL_DS;
	host->tr = GDT_ENTRY_TSS * 8;
}

/**
 * kvm_rs_host_percpu() - Read what belongs to this CPU
 * @host:	Where to put it
 *
 * Context: Preemption off.
 */
void kvm_rs_host_percpu(struct kvm_rs_host_percpu *host)
{
	int cpu = smp_processor_id();

	host->tr_base = (unsigned long)&get_cpu_entry_area(cpu)->tss.x86_tss;
	host->gdt_base = (unsigned long)get_current_gdt_ro();
	host->gs_base = cpu_kernelmode_gs_base(cpu);
	host->sysenter_esp = IS_ENABLED(CONFIG_IA32_EMULATION) ?
		(unsigned long)(cpu_entry_stack(cpu) + 1) : 0;
}

/**
 * kvm_rs_save_host_segments() - Save the current task's segments before its first VM entry
 * @segments:	Where to put them
 *
 * Context: Preemption off.
 */
void kvm_rs_save_host_segments(struct kvm_rs_host_segments *segments)
{
	store_ldt(segments->ldt);
	savesegment(ds, segments->ds);
	savesegment(es, segments->es);
	if (likely(is_64bit_mm(current->mm))) {
		current_save_fsgs();
		segments->fs = current->thread.fsindex;
		segments->gs = current->thread.gsindex;
		segments->fs_base = current->thread.fsbase;
		segments->kernel_gs_base = current->thread.gsbase;
	} else {
		savesegment(fs, segments->fs);
		savesegment(gs, segments->gs);
		rdmsrq(MSR_FS_BASE, segments->fs_base);
		rdmsrq(MSR_KERNEL_GS_BASE, segments->kernel_gs_base);
	}
}

/**
 * kvm_rs_restore_host_segments() - Bring back what VM exits left changed
 * @segments:	What kvm_rs_save_host_segments() saved
 *
 * Besides the selectors that the VMCS does not take, a VM exit sets the limits of GDTR and TR to its
 * own fixed values.
 *
 * Context: Preemption off, on the CPU and in the task of the save.
 */
void kvm_rs_restore_host_segments(const struct kvm_rs_host_segments *segments)
{
	if (segments->ldt || (segments->gs & 7)) {
		load_ldt(segments->ldt);
		load_gs_index(segments->gs);
	}
	if (segments->fs & 7)
		loadsegment(fs, segments->fs);
	if (unlikely(segments->ds | segments->es)) {
		loadsegment(ds, segments->ds);
		loadsegment(es, segments->es);
	}
	invalidate_tss_limit();
	wrmsrq(MSR_KERNEL_GS_BASE, segments->kernel_gs_base);
	load_fixmap_gdt(raw_smp_processor_id());
}

unsigned long kvm_rs_current_cr3(void)
{
	return __get_current_cr3_fast();
}

unsigned long kvm_rs_current_cr4(void)
{
	return cr4_read_shadow();
}

/**
 * kvm_rs_load_xstate() - Change the components that XSAVE and XSAVES handle
 * @from:	What is in the registers
 * @to:		What is to be there
 *
 * Context: Interrupts off, until the host's are back.
 */
void kvm_rs_load_xstate(const struct kvm_rs_xstate *from, const struct kvm_rs_xstate *to)
{
	if (to->xcr0 != from->xcr0)
		xsetbv(XCR_XFEATURE_ENABLED_MASK, to->xcr0);
	if (to->xss != from->xss)
		wrmsrq(MSR_IA32_XSS, to->xss);
}

/**
 * kvm_rs_swap_pkru() - Load PKRU, if the host uses protection keys
 * @pkru:	What is to be there
 *
 * Context: Interrupts off, until the host's is back.
 *
 * Return: What was there, 0 without protection keys.
 */
u32 kvm_rs_swap_pkru(u32 pkru)
{
	u32 old = read_pkru();

	write_pkru(pkru);
	return old;
}
