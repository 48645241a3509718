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

DEFINE_STATIC_KEY_FALSE(kvm_rs_entry_measures);
DEFINE_STATIC_KEY_FALSE(kvm_rs_l1d_should_flush);
DEFINE_STATIC_KEY_FALSE(kvm_rs_l1d_flush_cond);

/* Reading 64 KiB evicts all that an L1D of 32 KiB holds: its replacement is not exactly LRU. */
#define L1D_FLUSH_ORDER	4
#define L1D_FLUSH_SIZE	(PAGE_SIZE << L1D_FLUSH_ORDER)

static char *l1d_flush_pages;

/* Whether the L1D is flushed, or need not be: then a guest that runs guests need not flush either. */
static bool l1d_is_safe;

static u64 host_arch_capabilities(void)
{
	u64 capabilities = 0;

	if (boot_cpu_has(X86_FEATURE_ARCH_CAPABILITIES))
		rdmsrq(MSR_IA32_ARCH_CAPABILITIES, capabilities);
	return capabilities;
}

static int setup_l1d_flush(bool ept)
{
	bool always = false;
	unsigned int i;

	l1d_is_safe = true;
	if (!boot_cpu_has_bug(X86_BUG_L1TF) || !ept ||
	    host_arch_capabilities() & ARCH_CAP_SKIP_VMENTRY_L1DFLUSH)
		return 0;
	switch (l1tf_mitigation) {
	case L1TF_MITIGATION_OFF:
		l1d_is_safe = false;
		return 0;
	case L1TF_MITIGATION_FULL:
	case L1TF_MITIGATION_FULL_FORCE:
		always = true;
		break;
	default:
		break;
	}
	if (!IS_ENABLED(CONFIG_CPU_MITIGATIONS)) {
		l1d_is_safe = false;
		return 0;
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
	static_branch_enable(&kvm_rs_entry_measures);
	return 0;
}

/**
 * kvm_rs_speculation_setup() - Choose what to do around guests
 * @ept:	Guests run on EPT; without it, their entries never point to where L1TF leads
 *
 * The L1D is flushed as kvm_intel's vmentry_l1d_flush=auto does: on CPUs that have the bug, by the
 * l1tf= of the kernel's command line. SPEC_CTRL is the guest's own wherever the CPU has it.
 *
 * Return: 0 or -ENOMEM.
 */
int kvm_rs_speculation_setup(bool ept)
{
	int ret = setup_l1d_flush(ept);

	if (!ret && boot_cpu_has(X86_FEATURE_MSR_SPEC_CTRL))
		static_branch_enable(&kvm_rs_entry_measures);
	return ret;
}

void kvm_rs_speculation_cleanup(void)
{
	free_pages((unsigned long)l1d_flush_pages, L1D_FLUSH_ORDER);
	l1d_flush_pages = NULL;
}

/**
 * __kvm_rs_flush_l1d() - Flush the L1D cache if something that a guest must not see may be there
 * @regs:	The guest's registers, with the place where it is counted
 *
 * Context: Interrupts off, in guest state: directly before VM entry.
 */
noinstr void __kvm_rs_flush_l1d(const struct kvm_rs_guest_regs *regs)
{
#ifdef CONFIG_CPU_MITIGATIONS
	u64 *count = (u64 *)regs->l1d_flush_counter;
	int size = L1D_FLUSH_SIZE;

	if (static_branch_likely(&kvm_rs_l1d_flush_cond)) {
		/* Set again when the vCPU leaves the CPU or its run loop, and by interrupts. */
		if (!kvm_get_cpu_l1tf_flush_l1d())
			return;
		kvm_clear_cpu_l1tf_flush_l1d();
	}
	WRITE_ONCE(*count, *count + 1);

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

/**
 * kvm_rs_arch_capabilities() - What guests can be told of flaws that this CPU does not have
 *
 * The host's ARCH_CAPABILITIES, without what is not virtualised (TSX_CTRL is not), and with what the
 * kernel knows though the CPU does not say so.
 */
u64 kvm_rs_arch_capabilities(void)
{
	u64 data = host_arch_capabilities();

	data &= ARCH_CAP_RDCL_NO | ARCH_CAP_IBRS_ALL | ARCH_CAP_RSBA |
		ARCH_CAP_SKIP_VMENTRY_L1DFLUSH | ARCH_CAP_SSB_NO | ARCH_CAP_MDS_NO |
		ARCH_CAP_PSCHANGE_MC_NO | ARCH_CAP_TAA_NO | ARCH_CAP_SBDR_SSDP_NO |
		ARCH_CAP_FBSDP_NO | ARCH_CAP_PSDP_NO | ARCH_CAP_FB_CLEAR | ARCH_CAP_RRSBA |
		ARCH_CAP_PBRSB_NO | ARCH_CAP_GDS_NO | ARCH_CAP_RFDS_NO | ARCH_CAP_RFDS_CLEAR |
		ARCH_CAP_BHI_NO | ARCH_CAP_ITS_NO;
	/* It says whether a guest must protect itself from guests of its own, and guests have none. */
	data |= ARCH_CAP_PSCHANGE_MC_NO;
	if (l1d_is_safe)
		data |= ARCH_CAP_SKIP_VMENTRY_L1DFLUSH;
	if (!boot_cpu_has_bug(X86_BUG_CPU_MELTDOWN))
		data |= ARCH_CAP_RDCL_NO;
	if (!boot_cpu_has_bug(X86_BUG_SPEC_STORE_BYPASS))
		data |= ARCH_CAP_SSB_NO;
	if (!boot_cpu_has_bug(X86_BUG_MDS))
		data |= ARCH_CAP_MDS_NO;
	if (!boot_cpu_has_bug(X86_BUG_RFDS))
		data |= ARCH_CAP_RFDS_NO;
	if (!boot_cpu_has_bug(X86_BUG_ITS))
		data |= ARCH_CAP_ITS_NO;
	/* Without RTM a guest has no TAA, and need not be told. */
	if (!boot_cpu_has(X86_FEATURE_RTM))
		data &= ~ARCH_CAP_TAA_NO;
	else if (!boot_cpu_has_bug(X86_BUG_TAA))
		data |= ARCH_CAP_TAA_NO;
	if (!boot_cpu_has_bug(X86_BUG_GDS) || gds_ucode_mitigated())
		data |= ARCH_CAP_GDS_NO;
	return data;
}

/* Bits of CPUID leaf 0x80000008, EBX, at the places where AMD put them. */
#define LEAF_BIT(feature)	(1u << ((feature) & 31))

/**
 * kvm_rs_speculation_features() - The features of SPEC_CTRL and PRED_CMD in AMD's words
 *
 * The kernel knows each by itself, whichever way the CPU tells it; guests can be told both ways.
 *
 * Return: Bits of CPUID leaf 0x80000008, EBX.
 */
u32 kvm_rs_speculation_features(void)
{
	u32 bits = 0;

	if (boot_cpu_has(X86_FEATURE_IBPB)) {
		bits |= LEAF_BIT(X86_FEATURE_AMD_IBPB);
		if (boot_cpu_has(X86_FEATURE_SPEC_CTRL) &&
		    !boot_cpu_has_bug(X86_BUG_EIBRS_PBRSB))
			bits |= LEAF_BIT(X86_FEATURE_AMD_IBPB_RET);
	}
	if (boot_cpu_has(X86_FEATURE_IBRS))
		bits |= LEAF_BIT(X86_FEATURE_AMD_IBRS);
	if (boot_cpu_has(X86_FEATURE_STIBP))
		bits |= LEAF_BIT(X86_FEATURE_AMD_STIBP);
	if (boot_cpu_has(X86_FEATURE_SPEC_CTRL_SSBD))
		bits |= LEAF_BIT(X86_FEATURE_AMD_SSBD);
	if (!boot_cpu_has_bug(X86_BUG_SPEC_STORE_BYPASS))
		bits |= LEAF_BIT(X86_FEATURE_AMD_SSB_NO);
	return bits;
}

/**
 * kvm_rs_accepts_spec_ctrl() - Whether this CPU's SPEC_CTRL takes a value
 * @value:	The value
 */
bool kvm_rs_accepts_spec_ctrl(u64 value)
{
	unsigned long flags;
	bool accepts = false;
	u64 saved;

	local_irq_save(flags);
	if (!rdmsrq_safe(MSR_IA32_SPEC_CTRL, &saved) && !wrmsrq_safe(MSR_IA32_SPEC_CTRL, value)) {
		wrmsrq(MSR_IA32_SPEC_CTRL, saved);
		accepts = true;
	}
	local_irq_restore(flags);
	return accepts;
}

bool kvm_rs_has_ibpb(void)
{
	return boot_cpu_has(X86_FEATURE_IBPB);
}

/**
 * kvm_rs_ibpb() - Drop what is in this CPU's branch predictors, for a guest that asks for it
 *
 * Context: The CPU has IBPB; preemption off.
 */
void kvm_rs_ibpb(void)
{
	wrmsrq(MSR_IA32_PRED_CMD, PRED_CMD_IBPB);
}

bool kvm_rs_has_flush_l1d(void)
{
	return boot_cpu_has(X86_FEATURE_FLUSH_L1D);
}

/**
 * kvm_rs_flush_l1d() - Flush this CPU's L1D, for a guest that asks for it
 *
 * Context: The CPU has FLUSH_CMD; preemption off.
 */
void kvm_rs_flush_l1d(void)
{
	wrmsrq(MSR_IA32_FLUSH_CMD, L1D_FLUSH);
}

/**
 * kvm_rs_microcode_revision() - The host's UCODE_REV, 0 if it cannot be read
 */
u64 kvm_rs_microcode_revision(void)
{
	u64 value = 0;

	return rdmsrq_safe(MSR_IA32_UCODE_REV, &value) ? 0 : value;
}
