// SPDX-License-Identifier: GPL-2.0
/*
 * What a guest sees of its CPU: CPUID as user space set it, MSRs that exist
 * and that do not, control registers with legal and illegal values, HLT and
 * exceptions, each delivered through the guest's own IDT.
 */
#include "kselftest_harness.h"
#include "vm.h"

FIXTURE(exits_cpu) {
	struct vm vm;
	struct vcpu vcpu;
	struct exception_record *record;
};

FIXTURE_SETUP(exits_cpu)
{
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	self->record = vm_record(&self->vm);
}

FIXTURE_TEARDOWN(exits_cpu)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

#define SYNC	"\n	outb %al, $" STR(PORT_SYNC) "\n"
#define DONE	"\n	outb %al, $" STR(PORT_DONE) "\n"
/* The next exception goes on at local label 9. */
#define CATCH	"	leaq 9f(%rip), %r11; movq %r11, " REC_RESUME "\n"

GUEST_CODE(cpuid_loop, 64,
	"1:	cpuid" SYNC
	"	jmp 1b\n");

TEST_F(exits_cpu, cpuid)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[6];
	} cpuid = {
		.head.nent = 6,
		.entries = {
			{ .function = 0, .eax = 7, .ebx = 0x756e6547,
			  .ecx = 0x6c65746e, .edx = 0x49656e69 },
			{ .function = 1, .eax = 0x000306c3, .ebx = 0x00010800,
			  .ecx = 0x1, .edx = 0x0789fbff },
			{ .function = 7, .index = 0, .flags = 1, .eax = 1,
			  .ebx = 0x200, .ecx = 0, .edx = 0 },
			{ .function = 7, .index = 1, .flags = 1, .eax = 0x11,
			  .ebx = 0x22, .ecx = 0x33, .edx = 0x44 },
			{ .function = 0x80000000, .eax = 0x80000001 },
			{ .function = 0x80000001, .eax = 0, .ebx = 0x77,
			  .ecx = 1, .edx = 0x20100800 },
		},
	};
	static const struct {
		uint32_t leaf, index;
		int entry;		/* -1: zero */
	} queries[] = {
		{ 0, 0, 0 },
		{ 0, 99, 0 },		/* the index does not count */
		{ 7, 0, 2 },
		{ 7, 1, 3 },
		{ 7, 2, -1 },
		{ 0x80000000, 0, 4 },
		{ 0x80000001, 5, 5 },
		{ 3, 0, -1 },
		{ 0x40000000, 0, 99 },	/* above the last: the last basic leaf */
	};
	struct vcpu vcpu;
	struct kvm_regs regs;
	unsigned int i;

	vcpu_create(&vcpu, &self->vm, 1);
	xioctl(vcpu.fd, KVM_SET_CPUID2, &cpuid);
	vcpu_set_mode(&vcpu, MODE_LONG);
	vm_load(&self->vm, CODE_GPA, cpuid_loop);
	regs = vcpu_regs(&vcpu);
	for (i = 0; i < ARRAY_SIZE(queries); i++) {
		struct kvm_cpuid_entry2 want = {};

		if (queries[i].entry >= 0 && queries[i].entry < 6)
			want = cpuid.entries[queries[i].entry];
		else if (queries[i].entry == 99)
			want = cpuid.entries[2];
		regs.rax = 0xaaaaaaaa00000000 | queries[i].leaf;
		regs.rcx = 0xcccccccc00000000 | queries[i].index;
		regs.rbx = ~0UL;
		regs.rdx = ~0UL;
		vcpu_set_regs(&vcpu, &regs);
		vcpu_run_to_port(&vcpu, PORT_SYNC);
		regs = vcpu_regs(&vcpu);
		EXPECT_EQ(regs.rax, want.eax) TH_LOG("leaf %#x", queries[i].leaf);
		EXPECT_EQ(regs.rbx, want.ebx) TH_LOG("leaf %#x", queries[i].leaf);
		EXPECT_EQ(regs.rcx, want.ecx) TH_LOG("leaf %#x", queries[i].leaf);
		EXPECT_EQ(regs.rdx, want.edx) TH_LOG("leaf %#x", queries[i].leaf);
		/* Complete the OUT first: it still has to advance RIP. */
		vcpu_complete(&vcpu);
		regs = vcpu_regs(&vcpu);
	}
	vcpu_destroy(&vcpu);
}

GUEST_CODE(msr_access, 64,
	CATCH
	"	rdmsr\n"
	"	jmp 8f\n"
	"9:	movl $0xbad, %esi\n"
	"8:	" SYNC
	CATCH
	"	wrmsr\n"
	"	jmp 8f\n"
	"9:	movl $0xbad, %edi\n"
	"8:	" SYNC);

/* Runs RDMSR and WRMSR of @value on @msr; returns which of them faulted. */
static unsigned int access_msr(struct __test_metadata *_metadata,
			       FIXTURE_DATA(exits_cpu) *self, uint32_t msr,
			       uint64_t value, uint64_t *read)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2, .rcx = msr,
	};
	unsigned int faults = 0;
	uint64_t count;

	vm_load(&self->vm, CODE_GPA, msr_access);
	self->record->count = 0;
	vcpu_set_regs(&self->vcpu, &regs);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	count = self->record->count;
	if (vcpu_regs(&self->vcpu).rsi == 0xbad) {
		faults |= 1;
		EXPECT_EQ(count, 1);
		EXPECT_EQ(self->record->vector, 13);
		EXPECT_EQ(self->record->error, 0);
	}
	regs = vcpu_regs(&self->vcpu);
	*read = (regs.rdx << 32) | (uint32_t)regs.rax;
	regs.rax = (uint32_t)value;
	regs.rdx = value >> 32;
	vcpu_set_regs(&self->vcpu, &regs);
	self->record->count = 0;
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	if (vcpu_regs(&self->vcpu).rdi == 0xbad) {
		faults |= 2;
		EXPECT_EQ(self->record->count, 1);
		EXPECT_EQ(self->record->vector, 13);
		EXPECT_EQ(self->record->error, 0);
	} else {
		EXPECT_EQ(self->record->count, 0);
	}
	return faults;
}

TEST_F(exits_cpu, msrs)
{
	uint64_t value;

	/* There is no such thing. */
	EXPECT_EQ(access_msr(_metadata, self, 0x12345678, 0, &value), 3);
	EXPECT_EQ(access_msr(_metadata, self, 0xc0009999, 1, &value), 3);
	/* EFER: reads what is in force, refuses to drop LME under paging. */
	EXPECT_EQ(access_msr(_metadata, self, 0xc0000080, 0x501, &value), 0);
	EXPECT_EQ(value, 0x500);
	EXPECT_EQ(access_msr(_metadata, self, 0xc0000080, 0x001, &value), 2);
	EXPECT_EQ(value, 0x501);
	EXPECT_EQ(access_msr(_metadata, self, 0xc0000080, 1UL << 63, &value), 2);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).efer, 0x501);
	/* FS, GS and kernel GS base: canonical addresses only. */
	EXPECT_EQ(access_msr(_metadata, self, 0xc0000100, 0xffff800000001230, &value), 0);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).fs.base, 0xffff800000001230);
	EXPECT_EQ(access_msr(_metadata, self, 0xc0000101, 0x123456789a0, &value), 0);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).gs.base, 0x123456789a0);
	EXPECT_EQ(access_msr(_metadata, self, 0xc0000102, 0xffff800000004560, &value), 0);
	EXPECT_EQ(access_msr(_metadata, self, 0xc0000102, 0x8000000000004560, &value), 2);
	EXPECT_EQ(value, 0xffff800000004560);
	/* SYSCALL's, SYSENTER's and PAT keep what is written. */
	EXPECT_EQ(access_msr(_metadata, self, 0xc0000081, 0x0023001000000000, &value), 0);
	EXPECT_EQ(access_msr(_metadata, self, 0xc0000081, 0, &value), 0);
	EXPECT_EQ(value, 0x0023001000000000);
	EXPECT_EQ(access_msr(_metadata, self, 0xc0000082, 0xffffffff81000000, &value), 0);
	EXPECT_EQ(access_msr(_metadata, self, 0xc0000082, 0, &value), 0);
	EXPECT_EQ(value, 0xffffffff81000000);
	EXPECT_EQ(access_msr(_metadata, self, 0x174, 0x10, &value), 0);
	EXPECT_EQ(access_msr(_metadata, self, 0x174, 0, &value), 0);
	EXPECT_EQ(value, 0x10);
	EXPECT_EQ(access_msr(_metadata, self, 0x277, 0x0007040600070406, &value), 0);
	EXPECT_EQ(access_msr(_metadata, self, 0x277, 0x0007040600070402, &value), 2);
	EXPECT_EQ(value, 0x0007040600070406);
}

/* %rsi is the value, %rdi says which register. */
#define CR_TEST(name, reg)						\
	GUEST_CODE(name, 64,						\
		CATCH							\
		"	movq %rsi, %" reg "\n"				\
		"	xorl %edx, %edx\n"				\
		"	jmp 8f\n"					\
		"9:	movl $1, %edx\n"				\
		"8:	movq %" reg ", %rax" SYNC)
CR_TEST(write_cr0, "cr0");
CR_TEST(write_cr3, "cr3");
CR_TEST(write_cr4, "cr4");
CR_TEST(write_cr8, "cr8");

static bool write_cr(FIXTURE_DATA(exits_cpu) *self, const char *code,
		     const char *end, uint64_t value, uint64_t *then)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2, .rsi = value,
	};

	__vm_load(&self->vm, CODE_GPA, code, end);
	vcpu_set_regs(&self->vcpu, &regs);
	self->record->count = 0;
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	regs = vcpu_regs(&self->vcpu);
	*then = regs.rax;
	if (regs.rdx && (self->record->count != 1 || self->record->vector != 13 ||
			 self->record->error))
		die("%lu exceptions, the last %lu", self->record->count,
		    self->record->vector);
	return regs.rdx;
}

#define WRITE_CR(n, value, then)					\
	write_cr(self, write_cr##n, write_cr##n##_end, value, then)

TEST_F(exits_cpu, control_registers)
{
	struct kvm_sregs sregs;
	uint64_t now;

	/* CR0: TS, AM, MP, NE; ET is always there. */
	EXPECT_EQ(WRITE_CR(0, 0x8005003b, &now), 0);
	EXPECT_EQ(now, 0x8005003b);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).cr0, 0x8005003b);
	EXPECT_EQ(WRITE_CR(0, 0x80010001, &now), 0);
	EXPECT_EQ(now, 0x80010011);
	EXPECT_EQ(WRITE_CR(0, 0xe0010031, &now), 0);	/* CD and NW */
	EXPECT_EQ(now, 0xe0010031);
	EXPECT_EQ(WRITE_CR(0, 0x80010031, &now), 0);
	/* NW without CD, PG without PE, paging off in 64-bit code, upper bits. */
	EXPECT_EQ(WRITE_CR(0, 0xa0010031, &now), 1);
	EXPECT_EQ(now, 0x80010031);
	EXPECT_EQ(WRITE_CR(0, 0x80010030, &now), 1);
	EXPECT_EQ(WRITE_CR(0, 0x80010031 | (1UL << 32), &now), 1);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).cr0, 0x80010031);

	/* CR3: a second set of tables, and bits above the physical width. */
	memcpy(self->vm.mem + DATA_GPA, self->vm.mem + LONG_PT_GPA, PAGE);
	EXPECT_EQ(WRITE_CR(3, DATA_GPA, &now), 0);
	EXPECT_EQ(now, DATA_GPA);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).cr3, DATA_GPA);
	EXPECT_EQ(WRITE_CR(3, LONG_PT_GPA | 0x18, &now), 0);
	EXPECT_EQ(now, LONG_PT_GPA | 0x18);
	EXPECT_EQ(WRITE_CR(3, LONG_PT_GPA | (1UL << 60), &now), 1);
	EXPECT_EQ(now, LONG_PT_GPA | 0x18);

	/* CR4: reserved bits, VMXE that CPUID does not offer, PAE in long mode. */
	EXPECT_EQ(WRITE_CR(4, 0x6a0, &now), 0);
	EXPECT_EQ(now, 0x6a0);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).cr4, 0x6a0);
	EXPECT_EQ(WRITE_CR(4, 0x6a0 | (1UL << 30), &now), 1);
	EXPECT_EQ(WRITE_CR(4, 0x680, &now), 1);
	EXPECT_EQ(WRITE_CR(4, 0x6a0 | (1UL << 33), &now), 1);
	EXPECT_EQ(now, 0x6a0);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).cr4, 0x6a0);

	/* CR8: four bits; without an APIC in the kernel, user space's too. */
	sregs = vcpu_sregs(&self->vcpu);
	sregs.cr8 = 5;
	vcpu_set_sregs(&self->vcpu, &sregs);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).cr8, 5);
}

GUEST_CODE(read_cr8, 64,
	"	movq %cr8, %rax\n"
	"	movq $11, %rbx\n"
	"	movq %rbx, %cr8\n"
	"	movq %cr8, %rcx\n"
	CATCH
	"	movq $16, %rbx\n"
	"	movq %rbx, %cr8\n"
	"	jmp 8f\n"
	"9:	movl $0xbad, %edx\n"
	"8:	" DONE);

TEST_F(exits_cpu, cr8)
{
	struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);
	struct kvm_regs regs;
	int ret;

	sregs.cr8 = 5;
	vcpu_set_sregs(&self->vcpu, &sregs);
	self->vcpu.run->cr8 = 5;
	vm_load(&self->vm, CODE_GPA, read_cr8);
	/* A write ends in user space, which has the APIC. */
	ret = vcpu_run(&self->vcpu);
	ASSERT_EQ(ret, 0);
	if (self->vcpu.run->exit_reason == KVM_EXIT_SET_TPR) {
		EXPECT_EQ(self->vcpu.run->cr8, 11);
		vcpu_run_to_port(&self->vcpu, PORT_DONE);
	}
	EXPECT_EQ(self->vcpu.run->io.port, PORT_DONE);
	regs = vcpu_regs(&self->vcpu);
	EXPECT_EQ(regs.rax, 5);
	EXPECT_EQ(regs.rcx, 11);
	EXPECT_EQ(regs.rdx, 0xbad);
	EXPECT_EQ(self->record->vector, 13);
	EXPECT_EQ(self->vcpu.run->cr8, 11);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).cr8, 11);
}

/* A CR0 write by LMSW, CLTS and the reads that a guest may be shown masked. */
GUEST_CODE(cr0_others, 64,
	"	movq %cr0, %rax\n"
	"	orq $8, %rax\n"
	"	movq %rax, %cr0\n"
	"	smsw %rbx\n"
	"	clts\n"
	"	movq %cr0, %rcx\n"
	"	movl $0xa, %eax\n"
	"	lmsw %ax\n"
	"	movq %cr0, %rdx" DONE);

TEST_F(exits_cpu, lmsw_clts)
{
	struct kvm_regs regs;
	uint64_t cr0 = vcpu_sregs(&self->vcpu).cr0;

	vm_load(&self->vm, CODE_GPA, cr0_others);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	regs = vcpu_regs(&self->vcpu);
	EXPECT_EQ(regs.rbx & 0xffff, (cr0 | 8) & 0xffff);
	EXPECT_EQ(regs.rcx, cr0 & ~8UL);
	EXPECT_EQ(regs.rdx, (cr0 & ~0xeUL) | 0xa);
}

GUEST_CODE(hlt_twice, 64,
	"	movl $1, %ebx\n"
	"	hlt\n"
	"	movl $2, %ebx\n"
	"	sti\n"
	"	hlt\n"
	"	movl $3, %ebx" DONE);

TEST_F(exits_cpu, hlt)
{
	vm_load(&self->vm, CODE_GPA, hlt_twice);
	vcpu_run_to(&self->vcpu, KVM_EXIT_HLT);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rbx, 1);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rip, CODE_GPA + 6);
	EXPECT_EQ(self->vcpu.run->if_flag, 0);
	vcpu_run_to(&self->vcpu, KVM_EXIT_HLT);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rbx, 2);
	EXPECT_EQ(self->vcpu.run->if_flag, 1);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rbx, 3);
}

/* One instruction that faults; label 7 is where. */
#define FAULT(name, text)						\
	GUEST_CODE(name, 64,						\
		"	leaq 7f(%rip), %rsi\n"				\
		CATCH							\
		"7:	" text "\n"					\
		"	jmp 8f\n"					\
		"9:	movl $0xfa, %edx\n"				\
		"8:	" DONE)
FAULT(fault_de, "xorl %ecx, %ecx; movl $1, %eax; xorl %edx, %edx; 6: divl %ecx");
FAULT(fault_ud, "ud2");
FAULT(fault_bp, "int3");
FAULT(fault_gp, "movw $0xff8, %ax; movw %ax, %ds");
FAULT(fault_gp_noncanonical, "movabsq $0x8000000000001230, %rax; movq (%rax), %rbx");
FAULT(fault_pf_read, "movabsq $0x7f1234567890, %rax; movq (%rax), %rbx");
FAULT(fault_pf_write, "movabsq $0x7f1234567890, %rax; movq %rbx, (%rax)");
FAULT(fault_int, "int $3");
FAULT(fault_nm, "movq %cr0, %rax; orq $8, %rax; movq %rax, %cr0; fninit");

TEST_F(exits_cpu, exceptions)
{
	static const struct {
		const char *name, *start, *end;
		uint64_t vector, error, cr2;
		int after;	/* RIP in the record, from label 7 on; -1: any */
	} faults[] = {
#define F(code, ...) { #code, code, code##_end, __VA_ARGS__ }
		F(fault_de, 0, 0, 0, 9),
		F(fault_ud, 6, 0, 0, 0),
		F(fault_bp, 3, 0, 0, 1),
		F(fault_int, 3, 0, 0, -1),
		F(fault_gp, 13, 0xff8, 0, 4),
		F(fault_gp_noncanonical, 13, 0, 0, 10),
		F(fault_pf_read, 14, 0, 0x7f1234567890, 10),
		F(fault_pf_write, 14, 2, 0x7f1234567890, 10),
		F(fault_nm, 7, 0, 0, 10),
	};
	struct kvm_regs regs;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(faults); i++) {
		__vm_load(&self->vm, CODE_GPA, faults[i].start, faults[i].end);
		regs = (struct kvm_regs) {
			.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2,
		};
		vcpu_set_regs(&self->vcpu, &regs);
		memset(self->record, 0, sizeof(*self->record));
		vcpu_run_to_port(&self->vcpu, PORT_DONE);
		regs = vcpu_regs(&self->vcpu);
		EXPECT_EQ(regs.rdx, 0xfa) TH_LOG("%s", faults[i].name);
		EXPECT_EQ(self->record->count, 1) TH_LOG("%s", faults[i].name);
		EXPECT_EQ(self->record->vector, faults[i].vector)
			TH_LOG("%s", faults[i].name);
		EXPECT_EQ(self->record->error, faults[i].error)
			TH_LOG("%s", faults[i].name);
		if (faults[i].cr2)
			EXPECT_EQ(self->record->cr2, faults[i].cr2);
		if (faults[i].after >= 0) {
			EXPECT_EQ(self->record->rip, regs.rsi + faults[i].after)
				TH_LOG("%s", faults[i].name);
		}
	}
}

TEST_HARNESS_MAIN
