/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the world switch swaps, as C and assembly see it.
 */
#ifndef KVM_RS_GUEST_REGS_H
#define KVM_RS_GUEST_REGS_H

/* Offsets in struct kvm_rs_guest_regs; general-purpose registers in the order of their encoding. */
#define KVM_RS_REGS_RAX		0
#define KVM_RS_REGS_RCX		8
#define KVM_RS_REGS_RDX		16
#define KVM_RS_REGS_RBX		24
#define KVM_RS_REGS_RSP		32
#define KVM_RS_REGS_RBP		40
#define KVM_RS_REGS_RSI		48
#define KVM_RS_REGS_RDI		56
#define KVM_RS_REGS_R8		64
#define KVM_RS_REGS_R9		72
#define KVM_RS_REGS_R10		80
#define KVM_RS_REGS_R11		88
#define KVM_RS_REGS_R12		96
#define KVM_RS_REGS_R13		104
#define KVM_RS_REGS_R14		112
#define KVM_RS_REGS_R15		120
#define KVM_RS_REGS_HOST_RSP	128
#define KVM_RS_REGS_SPEC_CTRL_DIRECT 148
#define KVM_RS_REGS_SPEC_CTRL	152

#define KVM_RS_VMCS_EXIT_REASON	0x4402
#define KVM_RS_VMCS_EXIT_INTERRUPTION_INFO 0x4404
#define KVM_RS_VMCS_HOST_RSP	0x6c14

#ifndef __ASSEMBLY__

#include <linux/types.h>

/**
 * struct kvm_rs_guest_regs - Guest registers that VM entry and exit do not swap
 * @gpr:	RAX to R15 in the order of their encoding; RSP's place is the VMM's cache of the VMCS
 * @host_rsp:	What the VMCS's HOST_RSP was last set to
 * @cr2:	Guest CR2
 * @exit_reason: VM-exit reason of the last exit
 * @spec_ctrl_direct: Whether the guest writes SPEC_CTRL without an exit
 * @spec_ctrl:	Guest SPEC_CTRL
 * @l1d_flush_counter: Address of the 64-bit number of flushes of the L1D before entry
 */
struct kvm_rs_guest_regs {
	unsigned long gpr[16];
	unsigned long host_rsp;
	unsigned long cr2;
	unsigned int exit_reason;
	unsigned int spec_ctrl_direct;
	u64 spec_ctrl;
	unsigned long l1d_flush_counter;
};

unsigned long kvm_rs_vmx_run(struct kvm_rs_guest_regs *regs, unsigned long launched);
unsigned long kvm_rs_guest_enter(struct kvm_rs_guest_regs *regs, unsigned long launched);
extern char kvm_rs_vmx_exit[];

#endif
#endif
