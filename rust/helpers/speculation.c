// SPDX-License-Identifier: GPL-2.0
/*
 * What keeps a guest from reading or steering the host by speculation, where the kernel's choice of
 * mitigations asks for it: the same as kvm_intel does.
 *
 * What must stand directly at the world switch is in vmx/entry.S: clearing CPU buffers, filling the
 * return buffer and clearing the branch history. Here are the rest.
 */
#include <linux/gfp.h>
#include <linux/hardirq.h>
#include <linux/jump_label.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/string.h>

#include <asm/cpufeature.h>
#include <asm/msr.h>
#include <asm/nospec-branch.h>
#include <asm/processor.h>
#include <asm/vmx.h>

#include "helpers.h"
#include "speculation.h"

DEFINE_STATIC_KEY_FALSE(kvm_rs_l1d_should_flush);
DEFINE_STATIC_KEY_FALSE(kvm_rs_l1d_flush_cond);

/* Reading 64 KiB evicts all that an L1D of 32 KiB holds: its replacement is not exactly LRU. */
#define L1D_FLUSH_ORDER	4
#define L1D_FLUSH_SIZE	(PAGE_SIZE << L1D_FLUSH_ORDER)

static char *l1d_flush_pages;

/**
 * kvm_rs_speculation_setup() - Choose how to keep guests from reading the L1D cache
 *
 * As kvm_intel's vmentry_l1d_flush=auto does: on CPUs that have the bug, by the l1tf= of the kernel's
 * command line.
 *
 * Return: 0 or -ENOMEM.
 */
int kvm_rs_speculation_setup(void)
{
	bool always = false;
	unsigned int i;
	u64 capabilities;

	if (!IS_ENABLED(CONFIG_CPU_MITIGATIONS) || !boot_cpu_has_bug(X86_BUG_L1TF))
		return 0;
	if (boot_cpu_has(X86_FEATURE_ARCH_CAPABILITIES)) {
		rdmsrq(MSR_IA32_ARCH_CAPABILITIES, capabilities);
		if (capabilities & ARCH_CAP_SKIP_VMENTRY_L1DFLUSH)
			return 0;
	}
	switch (l1tf_mitigation) {
	case L1TF_MITIGATION_OFF:
		return 0;
	case L1TF_MITIGATION_FULL:
	case L1TF_MITIGATION_FULL_FORCE:
		always = true;
		break;
	default:
		break;
	}

	if (!boot_cpu_has(X86_FEATURE_FLUSH_L1D)) {
		l1d_flush_pages = (char *)__get_free_pages(GFP_KERNEL, L1D_FLUSH_ORDER);
		if (!l1d_flush_pages)
			return -ENOMEM;
		/* Different in each page, lest a host beneath this one merge them. */
		for (i = 0; i < 1u << L1D_FLUSH_ORDER; i++)
			memset(l1d_flush_pages + i * PAGE_SIZE, i + 1, PAGE_SIZE);
	}
	if (!always)
		static_branch_enable(&kvm_rs_l1d_flush_cond);
	static_branch_enable(&kvm_rs_l1d_should_flush);
	return 0;
}

void kvm_rs_speculation_cleanup(void)
{
	free_pages((unsigned long)l1d_flush_pages, L1D_FLUSH_ORDER);
	l1d_flush_pages = NULL;
}

/**
 * __kvm_rs_flush_l1d() - Flush the L1D cache if something that a guest must not see may be there
 *
 * Context: Interrupts off, in guest state: directly before VM entry.
 */
noinstr void __kvm_rs_flush_l1d(void)
{
#ifdef CONFIG_CPU_MITIGATIONS
	int size = L1D_FLUSH_SIZE;

	if (static_branch_likely(&kvm_rs_l1d_flush_cond)) {
		/* Set again when the vCPU leaves the CPU or its run loop, and by interrupts. */
		if (!kvm_get_cpu_l1tf_flush_l1d())
			return;
		kvm_clear_cpu_l1tf_flush_l1d();
	}

	if (cpu_feature_enabled(X86_FEATURE_FLUSH_L1D)) {
		native_wrmsrq(MSR_IA32_FLUSH_CMD, L1D_FLUSH);
		return;
	}

	asm volatile(
		/* Get the pages into the TLB first. */
		"xorl	%%eax, %%eax\n"
		"1:	movzbl	(%[pages], %%rax), %%ecx\n\t"
		"addl	$4096, %%eax\n\t"
		"cmpl	%%eax, %[size]\n\t"
		"jne	1b\n\t"
		"xorl	%%eax, %%eax\n\t"
		"cpuid\n\t"
		/* Now fill the cache. */
		"xorl	%%eax, %%eax\n"
		"2:	movzbl	(%[pages], %%rax), %%ecx\n\t"
		"addl	$64, %%eax\n\t"
		"cmpl	%%eax, %[size]\n\t"
		"jne	2b\n\t"
		"lfence"
		:: [pages] "r" (l1d_flush_pages), [size] "r" (size)
		: "eax", "ebx", "ecx", "edx");
#endif
}

/**
 * kvm_rs_host_data_touched() - Note that code has run which may have brought secrets into the L1D
 *
 * To be called where a vCPU's run loop left its narrow path: it was scheduled, an exit was handled with
 * preemption on, the client ran.
 */
void kvm_rs_host_data_touched(void)
{
#if IS_ENABLED(CONFIG_CPU_MITIGATIONS) && IS_ENABLED(CONFIG_KVM_INTEL)
	raw_cpu_write(irq_stat.kvm_cpu_l1tf_flush_l1d, 1);
#endif
}

/* The number of the vCPU that this CPU last ran. */
static DEFINE_PER_CPU(u64, last_vcpu);

/**
 * kvm_rs_vcpu_arrives() - A vCPU is about to run on this CPU
 * @vcpu:	Its number, not 0, which no other vCPU has or had
 *
 * If another one ran here last, what that left in the branch predictors must not steer this one.
 *
 * Context: Preemption off.
 */
void kvm_rs_vcpu_arrives(u64 vcpu)
{
	kvm_rs_host_data_touched();
	if (this_cpu_read(last_vcpu) == vcpu)
		return;
	this_cpu_write(last_vcpu, vcpu);
	if (static_branch_likely(&switch_vcpu_ibpb))
		indirect_branch_prediction_barrier();
}
