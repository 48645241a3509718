/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The world switch: from the host to the guest and back.
 *
 * VM entry loads RIP, RSP, RFLAGS, control registers and segments of the guest from the VMCS; the other
 * general-purpose registers are the VMM's to swap, which is all that happens here. After a VM exit the
 * CPU goes on at kvm_rs_vmx_exit with the host's RSP, where the pointer to the guest's registers waits
 * on the stack.
 */
#include <linux/linkage.h>
#include <asm/asm.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>
#include <asm/percpu.h>
#include <asm/unwind_hints.h>

#include "guest_regs.h"

.section .noinstr.text, "ax"

/*
 * Clear what the host left in the CPU's buffers, if this CPU needs it. Some CPUs need it only for
 * guests that can reach a device's memory, which is not told apart here. Changes ZF.
 */
.macro CLEAR_CPU_BUFFERS_VM
	ALTERNATIVE_2 "", __CLEAR_CPU_BUFFERS, X86_FEATURE_CLEAR_CPU_BUF_VM_MMIO, \
			  __CLEAR_CPU_BUFFERS, X86_FEATURE_CLEAR_CPU_BUF_VM
.endm

/*
 * unsigned long kvm_rs_vmx_run(struct kvm_rs_guest_regs *regs, unsigned long launched)
 *
 * Returns 0 after a VM exit, 1 if VMLAUNCH or VMRESUME failed without entering the guest.
 */
SYM_FUNC_START(kvm_rs_vmx_run)
	push	%rbp
	mov	%rsp, %rbp
	push	%r15
	push	%r14
	push	%r13
	push	%r12
	push	%rbx
	push	%rdi

	/* HOST_RSP changes only if this is called from another stack depth or another thread. */
	cmp	KVM_RS_REGS_HOST_RSP(%rdi), %rsp
	je	.Lhost_rsp_known
	mov	%rsp, KVM_RS_REGS_HOST_RSP(%rdi)
	mov	$KVM_RS_VMCS_HOST_RSP, %eax
	vmwrite	%rsp, %rax
.Lhost_rsp_known:

	/* ZF is what chooses between VMLAUNCH and VMRESUME below: MOV leaves it alone. */
	test	%rsi, %rsi

	mov	KVM_RS_REGS_RAX(%rdi), %rax
	mov	KVM_RS_REGS_RCX(%rdi), %rcx
	mov	KVM_RS_REGS_RDX(%rdi), %rdx
	mov	KVM_RS_REGS_RBX(%rdi), %rbx
	mov	KVM_RS_REGS_RBP(%rdi), %rbp
	mov	KVM_RS_REGS_RSI(%rdi), %rsi
	mov	KVM_RS_REGS_R8(%rdi), %r8
	mov	KVM_RS_REGS_R9(%rdi), %r9
	mov	KVM_RS_REGS_R10(%rdi), %r10
	mov	KVM_RS_REGS_R11(%rdi), %r11
	mov	KVM_RS_REGS_R12(%rdi), %r12
	mov	KVM_RS_REGS_R13(%rdi), %r13
	mov	KVM_RS_REGS_R14(%rdi), %r14
	mov	KVM_RS_REGS_R15(%rdi), %r15
	mov	KVM_RS_REGS_RDI(%rdi), %rdi

	jz	.Llaunch

	UNWIND_HINT_SAVE

	CLEAR_CPU_BUFFERS_VM
.Lvmresume:
	vmresume
	jmp	.Lvmfail

.Llaunch:
	CLEAR_CPU_BUFFERS_VM
.Lvmlaunch:
	vmlaunch
	jmp	.Lvmfail

	/* An emergency VMXOFF on the way to a reboot makes both fault: report a failed entry. */
	_ASM_EXTABLE(.Lvmresume, .Lvmfail)
	_ASM_EXTABLE(.Lvmlaunch, .Lvmfail)

SYM_INNER_LABEL_ALIGN(kvm_rs_vmx_exit, SYM_L_GLOBAL)
	UNWIND_HINT_RESTORE
	ENDBR

	push	%rdi
	mov	8(%rsp), %rdi
	mov	%rax, KVM_RS_REGS_RAX(%rdi)
	mov	%rcx, KVM_RS_REGS_RCX(%rdi)
	mov	%rdx, KVM_RS_REGS_RDX(%rdi)
	mov	%rbx, KVM_RS_REGS_RBX(%rdi)
	mov	%rbp, KVM_RS_REGS_RBP(%rdi)
	mov	%rsi, KVM_RS_REGS_RSI(%rdi)
	mov	%r8,  KVM_RS_REGS_R8(%rdi)
	mov	%r9,  KVM_RS_REGS_R9(%rdi)
	mov	%r10, KVM_RS_REGS_R10(%rdi)
	mov	%r11, KVM_RS_REGS_R11(%rdi)
	mov	%r12, KVM_RS_REGS_R12(%rdi)
	mov	%r13, KVM_RS_REGS_R13(%rdi)
	mov	%r14, KVM_RS_REGS_R14(%rdi)
	mov	%r15, KVM_RS_REGS_R15(%rdi)
	pop	%rax
	mov	%rax, KVM_RS_REGS_RDI(%rdi)

	xor	%ebx, %ebx

.Lclear_regs:
	/*
	 * Leave no guest value in a register: code that runs speculatively before the host's own
	 * values arrive must not be steered by the guest.
	 */
	xor	%eax, %eax
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%esi, %esi
	xor	%edi, %edi
	xor	%ebp, %ebp
	xor	%r8d, %r8d
	xor	%r9d, %r9d
	xor	%r10d, %r10d
	xor	%r11d, %r11d
	xor	%r12d, %r12d
	xor	%r13d, %r13d
	xor	%r14d, %r14d
	xor	%r15d, %r15d

	/* Before the first RET that the guest's return stack could steer. */
	FILL_RETURN_BUFFER %_ASM_CX, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT,\
			   X86_FEATURE_RSB_VMEXIT_LITE

	/*
	 * Before the first RET, too: bring the host's SPEC_CTRL back, which kvm_rs_guest_enter()
	 * exchanged for the guest's. What the guest wrote without an exit is read first.
	 *
	 * Legacy IBRS protects only what runs after it was written in the more privileged mode, so it
	 * is written though it has not changed. Elsewhere, nothing may run ahead past the branch.
	 */
	ALTERNATIVE "jmp .Lspec_ctrl_done", "", X86_FEATURE_MSR_SPEC_CTRL
	mov	(%rsp), %rdi
	mov	$MSR_IA32_SPEC_CTRL, %ecx
	cmpl	$0, KVM_RS_REGS_SPEC_CTRL_DIRECT(%rdi)
	je	.Lguest_spec_ctrl_known
	rdmsr
	mov	%eax, KVM_RS_REGS_SPEC_CTRL(%rdi)
	mov	%edx, KVM_RS_REGS_SPEC_CTRL + 4(%rdi)
.Lguest_spec_ctrl_known:
	mov	PER_CPU_VAR(x86_spec_ctrl_current), %rdx
	cmp	KVM_RS_REGS_SPEC_CTRL(%rdi), %rdx
	ALTERNATIVE "je .Lhost_spec_ctrl_loaded", "", X86_FEATURE_KERNEL_IBRS
	mov	%edx, %eax
	shr	$32, %rdx
	wrmsr
.Lhost_spec_ctrl_loaded:
	ALTERNATIVE "lfence", "", X86_FEATURE_KERNEL_IBRS
.Lspec_ctrl_done:

	CLEAR_BRANCH_HISTORY_VMEXIT

	mov	%rbx, %rax

	pop	%rdi
	pop	%rbx
	pop	%r12
	pop	%r13
	pop	%r14
	pop	%r15
	pop	%rbp
	RET

.Lvmfail:
	mov	$1, %ebx
	jmp	.Lclear_regs
SYM_FUNC_END(kvm_rs_vmx_run)
