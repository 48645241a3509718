// SPDX-License-Identifier: GPL-2.0
/*
 * Protection keys for user pages: the guest's PKRU protects its pages, from the
 * CPU's accesses and from those that the hypervisor makes in its place; it is part
 * of the state that a client saves; and neither guest nor client sees the other's.
 */
#include <cpuid.h>

#include "kselftest_harness.h"
#include "vm.h"

#define CR4_PKE		(1UL << 22)
#define ECX_PKU		(1U << 3)
#define NO_ACCESS	1U
#define NO_WRITE	2U

#define KEY		5
#define KEYED_GPA	SZ_2M
#define LEAF		(LONG_PT_GPA + 2 * PAGE + 8)

/* What a page fault by a key reports: present, key, and write. */
#define FAULT		(1UL << 0 | 1UL << 5)
#define FAULT_WRITE	(FAULT | 1UL << 1)

/* RDI: the source, RSI: the destination; RAX on return: 1 if it did not fault. */
GUEST_CODE(code, 64,
	".globl do_load\n"
	"do_load:\n"
	"	lea 9f(%rip), %rbx; mov %rbx, " REC_RESUME "\n"
	"	mov (%rsi), %eax\n"
	"	jmp 8f\n"
	".globl do_store\n"
	"do_store:\n"
	"	lea 9f(%rip), %rbx; mov %rbx, " REC_RESUME "\n"
	"	mov %eax, (%rdi)\n"
	"	jmp 8f\n"
	".globl do_move\n"
	"do_move:\n"
	"	lea 9f(%rip), %rbx; mov %rbx, " REC_RESUME "\n"
	"	movsl\n"
	"	jmp 8f\n"
	".globl do_wrpkru\n"
	"do_wrpkru:\n"
	"	mov %edi, %eax; xor %ecx, %ecx; xor %edx, %edx\n"
	"	wrpkru\n"
	"	jmp 8f\n"
	".globl do_rdpkru\n"
	"do_rdpkru:\n"
	"	xor %ecx, %ecx\n"
	"	rdpkru\n"
	"	mov %eax, %edi\n"
	"8:	mov $1, %eax\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	"9:	xor %eax, %eax\n"
	"	outb %al, $" STR(PORT_DONE) "\n");
extern const char do_load[], do_store[], do_move[], do_wrpkru[], do_rdpkru[];

static uint32_t rdpkru(void)
{
	uint32_t pkru, edx;

	asm volatile("rdpkru" : "=a"(pkru), "=d"(edx) : "c"(0));
	return pkru;
}

static void wrpkru(uint32_t pkru)
{
	asm volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0));
}

FIXTURE(guest) {
	struct vm vm;
	struct vcpu vcpu;
};

FIXTURE_SETUP(guest)
{
	struct kvm_sregs sregs;
	uint64_t table;

	vm_create(&self->vm, SZ_4M);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	if (!(vcpu_cpuid(&self->vcpu, 7).ecx & ECX_PKU))
		SKIP(return, "no protection keys");
	vm_load(&self->vm, CODE_GPA, code);
	for (table = LONG_PT_GPA; table < LEAF; table += PAGE)
		*vm_u64(&self->vm, table) |= 1 << 2;
	*vm_u64(&self->vm, LEAF) |= 1 << 2 | (uint64_t)KEY << 59;
	sregs = vcpu_sregs(&self->vcpu);
	sregs.cr4 |= CR4_PKE;
	vcpu_set_sregs(&self->vcpu, &sregs);
}

FIXTURE_TEARDOWN(guest)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

static struct kvm_regs call(struct vcpu *vcpu, const char *entry, uint64_t rdi, uint64_t rsi)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA + (entry - code), .rsp = STACK_GPA, .rflags = 2,
		.rdi = rdi, .rsi = rsi,
	};

	vcpu_set_regs(vcpu, &regs);
	for (;;) {
		if (vcpu_run(vcpu))
			die("KVM_RUN");
		if (vcpu->run->exit_reason != KVM_EXIT_MMIO)
			break;
	}
	if (vcpu->run->exit_reason != KVM_EXIT_IO || vcpu->run->io.port != PORT_DONE)
		die("exit %u", vcpu->run->exit_reason);
	vcpu_complete(vcpu);
	return vcpu_regs(vcpu);
}

#define EXPECT_DONE(entry, rdi, rsi)	EXPECT_EQ(call(&self->vcpu, entry, rdi, rsi).rax, 1)

#define EXPECT_FAULT(entry, rdi, rsi, code)				\
	do {								\
		struct exception_record *r = vm_record(&self->vm);	\
		uint64_t count = r->count;				\
		EXPECT_EQ(call(&self->vcpu, entry, rdi, rsi).rax, 0);	\
		EXPECT_EQ(r->count, count + 1);				\
		EXPECT_EQ(r->vector, 14);				\
		EXPECT_EQ(r->error, code);				\
		EXPECT_EQ(r->cr2, KEYED_GPA);				\
	} while (0)

/* The CPU's own accesses, and those of an instruction that is executed in software. */
TEST_F(guest, pages_are_protected)
{
	struct vcpu *vcpu = &self->vcpu;

	/* The emulated CPU itself lets a supervisor do all that needs no write. */
	call(vcpu, do_wrpkru, NO_ACCESS << (2 * KEY), 0);
	EXPECT_FAULT(do_move, MMIO_GPA, KEYED_GPA, FAULT);
	EXPECT_FAULT(do_move, KEYED_GPA, MMIO_GPA, FAULT_WRITE);

	call(vcpu, do_wrpkru, NO_WRITE << (2 * KEY), 0);
	EXPECT_DONE(do_load, 0, KEYED_GPA);
	EXPECT_FAULT(do_store, KEYED_GPA, 0, FAULT_WRITE);
	EXPECT_DONE(do_move, MMIO_GPA, KEYED_GPA);
	EXPECT_FAULT(do_move, KEYED_GPA, MMIO_GPA, FAULT_WRITE);

	/* What other keys may is nothing to this one. */
	call(vcpu, do_wrpkru, ~(3U << (2 * KEY)) & ~3U, 0);
	EXPECT_DONE(do_store, KEYED_GPA, 0);
	EXPECT_DONE(do_move, MMIO_GPA, KEYED_GPA);
	EXPECT_DONE(do_move, KEYED_GPA, MMIO_GPA);
}

/* Without CR4.PKE the keys are ignored, and PKRU is kept. */
TEST_F(guest, off_by_cr4)
{
	struct vcpu *vcpu = &self->vcpu;
	struct kvm_sregs sregs;

	call(vcpu, do_wrpkru, 3 << (2 * KEY), 0);
	sregs = vcpu_sregs(vcpu);
	sregs.cr4 &= ~CR4_PKE;
	vcpu_set_sregs(vcpu, &sregs);
	EXPECT_DONE(do_store, KEYED_GPA, 0);
	EXPECT_DONE(do_move, MMIO_GPA, KEYED_GPA);
	EXPECT_DONE(do_move, KEYED_GPA, MMIO_GPA);
	sregs.cr4 |= CR4_PKE;
	vcpu_set_sregs(vcpu, &sregs);
	EXPECT_FAULT(do_store, KEYED_GPA, 0, FAULT_WRITE);
	EXPECT_FAULT(do_move, MMIO_GPA, KEYED_GPA, FAULT);
}

/* The client has its own, which the kernel obeys in its system calls. */
TEST_F(guest, client_has_its_own)
{
	uint32_t own = rdpkru(), other = own ^ NO_WRITE << 30, i;
	struct vcpu *vcpu = &self->vcpu;

	for (i = 1; i < 8; i++) {
		call(vcpu, do_wrpkru, i << 20, 0);
		EXPECT_EQ(rdpkru(), own);
		wrpkru(other);
		EXPECT_EQ((uint32_t)call(vcpu, do_rdpkru, 0, 0).rdi, i << 20);
		EXPECT_EQ(rdpkru(), other);
		wrpkru(own);
	}
	/* A guest that may not touch its user pages of key 0 does not keep anybody else from theirs. */
	call(vcpu, do_wrpkru, NO_ACCESS, 0);
	EXPECT_EQ((uint32_t)call(vcpu, do_rdpkru, 0, 0).rdi, NO_ACCESS);
	EXPECT_EQ(rdpkru(), own);
}

/* Offset of PKRU in an XSAVE area of the standard form. */
static uint32_t pkru_offset(void)
{
	uint32_t eax, ebx, ecx, edx;

	__cpuid_count(0xd, 9, eax, ebx, ecx, edx);
	return ebx;
}

#define XSTATE_BV(xsave)	(*(uint64_t *)((char *)(xsave) + 512))

/* It is saved and restored with the rest of the extended state. */
TEST_F(guest, is_in_xsave)
{
	struct kvm_xsave xsave = {};
	struct vcpu *vcpu = &self->vcpu;
	uint32_t *pkru = (uint32_t *)((char *)&xsave + pkru_offset());

	ASSERT_LT(pkru_offset(), sizeof(xsave));
	call(vcpu, do_wrpkru, 0x12345670, 0);
	xioctl(vcpu->fd, KVM_GET_XSAVE, &xsave);
	EXPECT_TRUE(XSTATE_BV(&xsave) & 1 << 9);
	EXPECT_EQ(*pkru, 0x12345670);

	*pkru = 0x7654320;
	xioctl(vcpu->fd, KVM_SET_XSAVE, &xsave);
	EXPECT_EQ(call(vcpu, do_rdpkru, 0, 0).rdi, 0x7654320);

	/* As in KVM, an area without the component leaves it as it is. */
	XSTATE_BV(&xsave) &= ~(1UL << 9);
	xioctl(vcpu->fd, KVM_SET_XSAVE, &xsave);
	EXPECT_EQ(call(vcpu, do_rdpkru, 0, 0).rdi, 0x7654320);
}

TEST_HARNESS_MAIN
