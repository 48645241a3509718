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

/* The instruction that @insn makes of the number of a vector register. */
#define WITH_VECTOR(index, insn)	\
	switch (index) {		\
	case 0: insn(0); break;		\
	case 1: insn(1); break;		\
	case 2: insn(2); break;		\
	case 3: insn(3); break;		\
	case 4: insn(4); break;		\
	case 5: insn(5); break;		\
	case 6: insn(6); break;		\
	case 7: insn(7); break;		\
	case 8: insn(8); break;		\
	case 9: insn(9); break;		\
	case 10: insn(10); break;	\
	case 11: insn(11); break;	\
	case 12: insn(12); break;	\
	case 13: insn(13); break;	\
	case 14: insn(14); break;	\
	case 15: insn(15); break;	\
	}

#define READ_XMM(n)	asm volatile("movups %%xmm" #n ", %0" : "=m"(*vector))
#define READ_YMM(n)	asm volatile("vmovups %%ymm" #n ", %0" : "=m"(*vector))
#define WRITE_XMM(n)	asm volatile("movups %0, %%xmm" #n : : "m"(*vector))
#define WRITE_YMM(n)	asm volatile("vmovups %0, %%ymm" #n : : "m"(*vector))

struct vector {
	u8 bytes[32];
};

/**
 * kvm_rs_fpu_read_vector() - Copy a vector register of the current task
 * @index:	Its number, 0 to 15
 * @data:	32 bytes, of which the host's width is written
 */
void kvm_rs_fpu_read_vector(unsigned int index, void *data)
{
	struct vector *vector = data;

	fpregs_lock();
	kvm_rs_fpu_sync();
	if (boot_cpu_has(X86_FEATURE_AVX)) {
		WITH_VECTOR(index, READ_YMM);
	} else {
		WITH_VECTOR(index, READ_XMM);
	}
	fpregs_unlock();
}

/**
 * kvm_rs_fpu_write_vector() - Replace a vector register of the current task
 * @index:	Its number, 0 to 15
 * @data:	32 bytes
 * @wide:	Replace all of it where the host has AVX, not the lower half
 */
void kvm_rs_fpu_write_vector(unsigned int index, const void *data, bool wide)
{
	const struct vector *vector = data;

	fpregs_lock();
	kvm_rs_fpu_sync();
	if (wide && boot_cpu_has(X86_FEATURE_AVX)) {
		WITH_VECTOR(index, WRITE_YMM);
	} else {
		WITH_VECTOR(index, WRITE_XMM);
	}
	fpregs_unlock();
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
 * @pkru:	PKRU
 */
void kvm_rs_fpu_to_uabi(struct fpu_guest *fpu, void *buffer, unsigned int size, u64 xfeatures,
			u32 pkru)
{
	fpu_copy_guest_fpstate_to_uabi(fpu, buffer, size, xfeatures, pkru);
}

/**
 * kvm_rs_fpu_from_uabi() - Replace the guest's extended state
 * @fpu:	The guest FPU, not loaded
 * @buffer:	An XSAVE image in standard format, of the guest FPU's uabi size
 * @xcr0:	State components that the guest may have
 * @pkru:	Where to put PKRU
 *
 * Return: 0, or -EINVAL for a header or MXCSR that the CPU would refuse.
 */
int kvm_rs_fpu_from_uabi(struct fpu_guest *fpu, const void *buffer, u64 xcr0, u32 *pkru)
{
	return fpu_copy_uabi_to_guest_fpstate(fpu, buffer, xcr0, pkru);
}
