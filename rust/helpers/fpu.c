// SPDX-License-Identifier: GPL-2.0
/* Shims for the guest's FPU, SSE and extended states, which the kernel's own FPU code swaps. */

#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/thread_info.h>

#include <asm/fpu/api.h>
#include <asm/fpu/types.h>

#include "helpers.h"

/**
 * kvm_rs_fpu_alloc() - Allocate a guest FPU in its reset state
 *
 * Return: The guest FPU, NULL if there is no memory.
 */
struct fpu_guest *kvm_rs_fpu_alloc(void)
{
	struct fpu_guest *fpu = kzalloc(sizeof(*fpu), GFP_KERNEL_ACCOUNT);

	if (!fpu)
		return NULL;
	if (!fpu_alloc_guest_fpstate(fpu)) {
		kfree(fpu);
		return NULL;
	}
	return fpu;
}

void kvm_rs_fpu_free(struct fpu_guest *fpu)
{
	fpu_free_guest_fpstate(fpu);
	kfree(fpu);
}

/**
 * kvm_rs_fpu_load_guest() - Make the guest's FPU state the current task's
 * @fpu:	The guest FPU
 *
 * The kernel saves and restores it from then on when it switches tasks or uses the FPU itself.
 */
void kvm_rs_fpu_load_guest(struct fpu_guest *fpu)
{
	fpu_swap_kvm_fpstate(fpu, true);
}

void kvm_rs_fpu_load_host(struct fpu_guest *fpu)
{
	fpu_swap_kvm_fpstate(fpu, false);
}

/**
 * kvm_rs_fpu_sync() - Load the task's FPU state into the registers if it is not there
 *
 * Context: Interrupts off.
 */
void kvm_rs_fpu_sync(void)
{
	fpregs_assert_state_consistent();
	if (test_thread_flag(TIF_NEED_FPU_LOAD))
		switch_fpu_return();
}

/**
 * kvm_rs_fpu_get() - Copy the guest's FXSAVE image
 * @fpu:	The guest FPU, not loaded
 * @fxsave:	512 bytes
 */
void kvm_rs_fpu_get(struct fpu_guest *fpu, void *fxsave)
{
	memcpy(fxsave, &fpu->fpstate->regs.fxsave, 512);
}

/**
 * kvm_rs_fpu_set() - Replace x87 and SSE state of the guest
 * @fpu:	The guest FPU, not loaded
 * @fxsave:	512 bytes
 */
void kvm_rs_fpu_set(struct fpu_guest *fpu, const void *fxsave)
{
	memcpy(&fpu->fpstate->regs.fxsave, fxsave, 512);
	if (boot_cpu_has(X86_FEATURE_XSAVE))
		fpu->fpstate->regs.xsave.header.xfeatures |= XFEATURE_MASK_FPSSE;
}

unsigned int kvm_rs_fpu_uabi_size(struct fpu_guest *fpu)
{
	return fpu->uabi_size;
}

/**
 * kvm_rs_fpu_to_uabi() - Copy the guest's extended state
 * @fpu:	The guest FPU, not loaded
 * @buffer:	Where to put an XSAVE image in standard format
 * @size:	Bytes of @buffer
 * @xfeatures:	State components to copy
 */
void kvm_rs_fpu_to_uabi(struct fpu_guest *fpu, void *buffer, unsigned int size, u64 xfeatures)
{
	fpu_copy_guest_fpstate_to_uabi(fpu, buffer, size, xfeatures, 0);
}

/**
 * kvm_rs_fpu_from_uabi() - Replace the guest's extended state
 * @fpu:	The guest FPU, not loaded
 * @buffer:	An XSAVE image in standard format, of the guest FPU's uabi size
 * @xcr0:	State components that the guest may have
 *
 * Return: 0, or -EINVAL for a header or MXCSR that the CPU would refuse.
 */
int kvm_rs_fpu_from_uabi(struct fpu_guest *fpu, const void *buffer, u64 xcr0)
{
	u32 pkru;

	return fpu_copy_uabi_to_guest_fpstate(fpu, buffer, xcr0, &pkru);
}
