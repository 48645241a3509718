// SPDX-License-Identifier: GPL-2.0
/*
 * Memory-mapped I/O by MOV, MOVZX and MOVSX: address, length and data of each
 * KVM_EXIT_MMIO, what the register holds after a read, and that RIP passes
 * the instruction in every addressing form.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define INPUT		0xf1e2d3c4b5a69788UL
#define RAX		0x1122334455667788UL
#define RBX		MMIO_GPA
#define RSI		0x10UL

/*
 * One instruction, then a report. In 64-bit code: %rax holds RAX, %rbx the
 * address of memory that is not there, %rsi an index, %r12, %r13 and %rbp
 * the address too.
 */
#define REPORT	"; outb %al, $" STR(PORT_SYNC)
#define READ64(name, text)	GUEST_CODE(name, 64, text REPORT)
#define WRITE64(name, text)	GUEST_CODE(name, 64, text REPORT)

READ64(r1, "movb (%rbx), %al");
READ64(r1_ah, "movb (%rbx), %ah");
READ64(r1_sil, "movb (%rbx), %sil");
READ64(r2, "movw (%rbx), %ax");
READ64(r4, "movl (%rbx), %eax");
READ64(r8, "movq (%rbx), %rax");
READ64(r8_r15, "movq (%rbx), %r15");
READ64(r4_r9, "movl (%rbx), %r9d");
READ64(r_zx_1_2, "movzbw (%rbx), %ax");
READ64(r_zx_1_4, "movzbl (%rbx), %eax");
READ64(r_zx_1_8, "movzbq (%rbx), %rax");
READ64(r_zx_2_4, "movzwl (%rbx), %eax");
READ64(r_zx_2_8, "movzwq (%rbx), %rax");
READ64(r_sx_1_2, "movsbw (%rbx), %ax");
READ64(r_sx_1_4, "movsbl (%rbx), %eax");
READ64(r_sx_1_8, "movsbq (%rbx), %rax");
READ64(r_sx_2_4, "movswl (%rbx), %eax");
READ64(r_sx_2_8, "movswq (%rbx), %rax");
READ64(r_sx_4_8, "movslq (%rbx), %rax");
/* Addressing forms. */
READ64(r_disp8, "movl 0x7c(%rbx), %eax");
READ64(r_disp8_neg, "movl -0x80(%rbx), %eax");
READ64(r_disp32, "movl 0x12340(%rbx), %eax");
READ64(r_sib, "movl (%rbx,%rsi), %eax");
READ64(r_sib_4, "movl 0x20(%rbx,%rsi,4), %eax");
READ64(r_sib_8_32, "movl 0x2000(%rbx,%rsi,8), %eax");
READ64(r_no_base, "movl 0xbfff000(,%rbx,1), %eax");
READ64(r_rbp, "movl (%rbp), %eax");
READ64(r_r12, "movl (%r12), %eax");
READ64(r_r13, "movl 8(%r13,%r14,2), %eax");
READ64(r_rip, "movl 0x20000000(%rip), %eax");
READ64(r_moffs4, "movabsl 0xc0000124, %eax");
READ64(r_moffs8, "movabsq 0xc0000128, %rax");
READ64(r_a32, "movl 0x10(%ebx,%esi), %eax");
READ64(r_gs, "movl %gs:0x34, %eax");
/* Writes. */
WRITE64(w1, "movb %al, (%rbx)");
WRITE64(w1_ah, "movb %ah, 1(%rbx)");
WRITE64(w1_bpl, "movb %r14b, (%rbx)");
WRITE64(w2, "movw %ax, (%rbx)");
WRITE64(w4, "movl %eax, (%rbx)");
WRITE64(w8, "movq %rax, (%rbx)");
WRITE64(w4_r14, "movl %r14d, 4(%rbx,%rsi,2)");
WRITE64(wi1, "movb $0x9a, (%rbx)");
WRITE64(wi2, "movw $0x9abc, (%rbx)");
WRITE64(wi4, "movl $0x9abcdef0, 0x1000(%rbx)");
WRITE64(wi8, "movq $-0x65432110, (%rbx)");
WRITE64(wi4_rip, "movl $0x11223344, 0x20000000(%rip)");
WRITE64(w_moffs1, "movabsb %al, 0xc0000201");
WRITE64(w_moffs8, "movabsq %rax, 0xc0000208");
/* 32-bit and 16-bit code. */
GUEST_CODE(r4_32, 32, "movl 0x40(%ebx,%esi,4), %eax" REPORT);
GUEST_CODE(r2_32, 32, "movw (%ebx), %ax" REPORT);
GUEST_CODE(r_sx_32, 32, "movsbl 1(%ebx), %eax" REPORT);
GUEST_CODE(w4_32, 32, "movl %eax, 0xc0000300" REPORT);
GUEST_CODE(wi2_32, 32, "movw $0x9abc, 2(%ebx)" REPORT);
GUEST_CODE(r4_16, 16, "movl 0x40(%bx,%si), %eax" REPORT);
GUEST_CODE(r1_16, 16, "movb 0x1234, %al" REPORT);
GUEST_CODE(w2_16, 16, "movw %ax, -2(%bx)" REPORT);
GUEST_CODE(w4_16_a32, 16, "movl %eax, 0x40(%esi,%ebx,2)" REPORT);

enum reg { NONE, A, SI, R9, R15 };

struct mmio_case {
	const char *name, *start, *end;
	bool write;
	enum mode mode;
	unsigned int len;
	uint64_t address;
	uint64_t value;		/* read: of the register then; write: the data */
	enum reg reg;
};

#define CASE(code, ...)	{ #code, code, code##_end, __VA_ARGS__ }
#define RD(code, len, addr, ...) CASE(code, 0, MODE_LONG, len, addr, __VA_ARGS__)
#define WR(code, len, addr, value) CASE(code, 1, MODE_LONG, len, addr, value, NONE)
#define RIP_TARGET(len)	(CODE_GPA + (len) + 0x20000000)
/* In real mode: DS base, above memory and so without any. */
#define REAL_DS		0x00800000UL

static const struct mmio_case mmio_cases[] = {
	RD(r1, 1, RBX, (RAX & ~0xffUL) | 0x88, A),
	RD(r1_ah, 1, RBX, (RAX & ~0xff00UL) | 0x8800, A),
	RD(r1_sil, 1, RBX, (RSI & ~0xffUL) | 0x88, SI),
	RD(r2, 2, RBX, (RAX & ~0xffffUL) | 0x9788, A),
	RD(r4, 4, RBX, 0xb5a69788, A),
	RD(r8, 8, RBX, INPUT, A),
	RD(r8_r15, 8, RBX, INPUT, R15),
	RD(r4_r9, 4, RBX, 0xb5a69788, R9),
	RD(r_zx_1_2, 1, RBX, (RAX & ~0xffffUL) | 0x88, A),
	RD(r_zx_1_4, 1, RBX, 0x88, A),
	RD(r_zx_1_8, 1, RBX, 0x88, A),
	RD(r_zx_2_4, 2, RBX, 0x9788, A),
	RD(r_zx_2_8, 2, RBX, 0x9788, A),
	RD(r_sx_1_2, 1, RBX, (RAX & ~0xffffUL) | 0xff88, A),
	RD(r_sx_1_4, 1, RBX, 0xffffff88, A),
	RD(r_sx_1_8, 1, RBX, 0xffffffffffffff88, A),
	RD(r_sx_2_4, 2, RBX, 0xffff9788, A),
	RD(r_sx_2_8, 2, RBX, 0xffffffffffff9788, A),
	RD(r_sx_4_8, 4, RBX, 0xffffffffb5a69788, A),
	RD(r_disp8, 4, RBX + 0x7c, 0xb5a69788, A),
	RD(r_disp8_neg, 4, RBX - 0x80, 0xb5a69788, A),
	RD(r_disp32, 4, RBX + 0x12340, 0xb5a69788, A),
	RD(r_sib, 4, RBX + RSI, 0xb5a69788, A),
	RD(r_sib_4, 4, RBX + 0x20 + RSI * 4, 0xb5a69788, A),
	RD(r_sib_8_32, 4, RBX + 0x2000 + RSI * 8, 0xb5a69788, A),
	RD(r_no_base, 4, RBX + 0xbfff000, 0xb5a69788, A),
	RD(r_rbp, 4, RBX, 0xb5a69788, A),
	RD(r_r12, 4, RBX, 0xb5a69788, A),
	RD(r_r13, 4, RBX + 8 + 0x30, 0xb5a69788, A),
	RD(r_rip, 4, RIP_TARGET(6), 0xb5a69788, A),
	RD(r_moffs4, 4, 0xc0000124, 0xb5a69788, A),
	RD(r_moffs8, 8, 0xc0000128, INPUT, A),
	RD(r_a32, 4, RBX + 0x10 + RSI, 0xb5a69788, A),
	RD(r_gs, 4, RBX + 0x5034, 0xb5a69788, A),
	WR(w1, 1, RBX, 0x88),
	WR(w1_ah, 1, RBX + 1, 0x77),
	WR(w1_bpl, 1, RBX, 0x18),
	WR(w2, 2, RBX, 0x7788),
	WR(w4, 4, RBX, 0x55667788),
	WR(w8, 8, RBX, RAX),
	WR(w4_r14, 4, RBX + 4 + RSI * 2, 0x18),
	WR(wi1, 1, RBX, 0x9a),
	WR(wi2, 2, RBX, 0x9abc),
	WR(wi4, 4, RBX + 0x1000, 0x9abcdef0),
	WR(wi8, 8, RBX, 0xffffffff9abcdef0),
	WR(wi4_rip, 4, RIP_TARGET(10), 0x11223344),
	WR(w_moffs1, 1, 0xc0000201, 0x88),
	WR(w_moffs8, 8, 0xc0000208, RAX),
	CASE(r4_32, 0, MODE_PROTECTED, 4, RBX + 0x40 + RSI * 4, 0xb5a69788, A),
	CASE(r2_32, 0, MODE_PROTECTED, 2, RBX, 0x55669788, A),
	CASE(r_sx_32, 0, MODE_PROTECTED, 1, RBX + 1, 0xffffff88, A),
	CASE(w4_32, 1, MODE_PROTECTED, 4, 0xc0000300, 0x55667788, NONE),
	CASE(wi2_32, 1, MODE_PROTECTED, 2, RBX + 2, 0x9abc, NONE),
	CASE(r4_16, 0, MODE_REAL, 4, REAL_DS + 0x100 + 0x40 + RSI, 0xb5a69788, A),
	CASE(r1_16, 0, MODE_REAL, 1, REAL_DS + 0x1234, 0x55667788, A),
	CASE(w2_16, 1, MODE_REAL, 2, REAL_DS + 0xfe, 0x7788, NONE),
	CASE(w4_16_a32, 1, MODE_REAL, 4, REAL_DS + 0x240 + RSI, 0x55667788, NONE),
};

static void start(const struct mmio_case *c, struct vm *vm, struct vcpu *vcpu)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	vm_create(vm, VM_MEMORY);
	vcpu_start(vcpu, vm, c->mode);
	__vm_load(vm, CODE_GPA, c->start, c->end);
	regs = vcpu_regs(vcpu);
	regs.rax = c->mode == MODE_LONG ? RAX : (uint32_t)RAX;
	regs.rbx = c->mode == MODE_REAL ? 0x100 : RBX;
	regs.rbp = regs.r12 = regs.r13 = RBX;
	regs.rsi = RSI;
	regs.r9 = regs.r15 = ~0UL;
	regs.r14 = 0x18;
	vcpu_set_regs(vcpu, &regs);
	sregs = vcpu_sregs(vcpu);
	if (c->mode == MODE_REAL)
		sregs.ds.base = REAL_DS;
	else
		sregs.gs.base = RBX + 0x5000;
	vcpu_set_sregs(vcpu, &sregs);
}

static uint64_t get_reg(const struct kvm_regs *regs, enum reg reg)
{
	switch (reg) {
	case A:
		return regs->rax;
	case SI:
		return regs->rsi;
	case R9:
		return regs->r9;
	case R15:
		return regs->r15;
	default:
		return 0;
	}
}

static void run_case(struct __test_metadata *_metadata, const struct mmio_case *c)
{
	struct kvm_regs before, after;
	struct kvm_run *run;
	struct vcpu vcpu;
	struct vm vm;
	uint64_t data = 0;

	start(c, &vm, &vcpu);
	run = vcpu.run;
	before = vcpu_regs(&vcpu);
	vcpu_run_to(&vcpu, KVM_EXIT_MMIO);
	EXPECT_EQ(run->mmio.is_write, c->write);
	EXPECT_EQ(run->mmio.phys_addr, c->address);
	EXPECT_EQ(run->mmio.len, c->len);
	if (c->write) {
		memcpy(&data, run->mmio.data, c->len);
		EXPECT_EQ(data, c->value);
	} else {
		/* What lies past len must not be used. */
		memset(run->mmio.data, 0xee, 8);
		data = INPUT;
		memcpy(run->mmio.data, &data, c->len);
	}
	vcpu_run_to_port(&vcpu, PORT_SYNC);

	after = vcpu_regs(&vcpu);
	if (!c->write) {
		EXPECT_EQ(get_reg(&after, c->reg), c->value)
			TH_LOG("register %#lx", get_reg(&after, c->reg));
	}
	/* Nothing else changes. */
	if (c->reg != A)
		EXPECT_EQ(after.rax, before.rax);
	if (c->reg != SI)
		EXPECT_EQ(after.rsi, before.rsi);
	if (c->reg != R9)
		EXPECT_EQ(after.r9, before.r9);
	if (c->reg != R15)
		EXPECT_EQ(after.r15, before.r15);
	EXPECT_EQ(after.rbx, before.rbx);
	EXPECT_EQ(after.rflags, before.rflags);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST(mov_forms)
{
	unsigned int i;
	bool failed = false;

	for (i = 0; i < ARRAY_SIZE(mmio_cases); i++) {
		run_case(_metadata, &mmio_cases[i]);
		if (_metadata->exit_code && !failed) {
			failed = true;
			TH_LOG("first to fail: %s", mmio_cases[i].name);
		}
	}
}

/* The flags are the guest's, whatever they are: MOV changes none. */
GUEST_CODE(flags_and_loop, 64,
	"	movl $100, %ecx\n"
	"	xorl %edx, %edx\n"
	"1:	movl %ecx, (%rbx)\n"
	"	stc\n"
	"	movl 4(%rbx), %eax\n"
	"	adcl %eax, %edx\n"
	"	decl %ecx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

TEST(many_in_a_loop)
{
	struct mmio_case c = CASE(flags_and_loop, 0, MODE_LONG, 4, 0, 0, NONE);
	uint32_t sum = 0, value;
	struct vcpu vcpu;
	struct vm vm;
	unsigned int i;

	start(&c, &vm, &vcpu);
	for (i = 100; i; i--) {
		vcpu_run_to(&vcpu, KVM_EXIT_MMIO);
		memcpy(&value, vcpu.run->mmio.data, 4);
		ASSERT_EQ(vcpu.run->mmio.is_write, 1);
		ASSERT_EQ(value, i);
		vcpu_run_to(&vcpu, KVM_EXIT_MMIO);
		ASSERT_EQ(vcpu.run->mmio.is_write, 0);
		ASSERT_EQ(vcpu.run->mmio.phys_addr, RBX + 4);
		value = i * 0x01010101;
		memcpy(vcpu.run->mmio.data, &value, 4);
		sum += value + 1;
	}
	vcpu_run_to_port(&vcpu, PORT_DONE);
	EXPECT_EQ(vcpu_regs(&vcpu).rdx, sum);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* A vector register goes from and to a device in pieces of 8 bytes. */
GUEST_CODE(vectors, 64,
	"	movups (%rbx), %xmm9\n"
	"	movups %xmm9, 16(%rbx)\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

TEST(vector_moves)
{
	struct mmio_case c = CASE(vectors, 0, MODE_LONG, 4, 0, 0, NONE);
	struct vcpu vcpu;
	struct vm vm;
	uint64_t value;
	int i;

	start(&c, &vm, &vcpu);
	for (i = 0; i < 4; i++) {
		vcpu_run_to(&vcpu, KVM_EXIT_MMIO);
		ASSERT_EQ(vcpu.run->mmio.is_write, i >= 2);
		ASSERT_EQ(vcpu.run->mmio.phys_addr, RBX + 8 * i);
		ASSERT_EQ(vcpu.run->mmio.len, 8);
		value = 0x1122334455667788 + i % 2;
		if (i < 2)
			memcpy(vcpu.run->mmio.data, &value, 8);
		else
			ASSERT_EQ(memcmp(vcpu.run->mmio.data, &value, 8), 0);
	}
	vcpu_run_to_port(&vcpu, PORT_DONE);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/*
 * Where a device was there is memory then, for the processor itself: it loads
 * and stores as no device is accessed, which nobody emulates.
 */
GUEST_CODE(device_then_memory, 64,
	"	movl (%rbx), %eax\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	fildll (%rbx)\n"
	"	fistpll 8(%rbx)\n"
	"	outb %al, $" STR(PORT_SYNC) "\n");

TEST(memory_where_a_device_was)
{
	struct mmio_case c = CASE(device_then_memory, 0, MODE_LONG, 4, 0, 0, NONE);
	volatile uint64_t *mem;
	struct vcpu vcpu;
	struct vm vm;

	start(&c, &vm, &vcpu);
	mem = memory_alloc(PAGE, PAGE);
	vcpu_run_to(&vcpu, KVM_EXIT_MMIO);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	ASSERT_EQ(vm_set_slot(&vm, 1, 0, MMIO_GPA, PAGE, (void *)mem), 0);
	mem[0] = 0x123456789abc;
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(mem[1], 0x123456789abc);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/*
 * An address becomes memory, memory becomes MMIO again, and a read-only slot
 * is memory for reads and MMIO for writes.
 */
GUEST_CODE(touch_loop, 64,
	"1:	movl (%rbx), %eax\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movl $0x77777777, 4(%rbx)\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");

TEST(slot_comes_and_goes)
{
	struct mmio_case c = CASE(touch_loop, 0, MODE_LONG, 4, 0, 0, NONE);
	volatile uint32_t *mem;
	struct vcpu vcpu;
	struct vm vm;
	uint32_t value;

	start(&c, &vm, &vcpu);
	mem = memory_alloc(PAGE, PAGE);
	vcpu_run_to(&vcpu, KVM_EXIT_MMIO);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	vcpu_run_to(&vcpu, KVM_EXIT_MMIO);
	vcpu_run_to_port(&vcpu, PORT_SYNC);

	ASSERT_EQ(vm_set_slot(&vm, 1, 0, MMIO_GPA, PAGE, (void *)mem), 0);
	mem[0] = 0x1234;
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&vcpu).rax, 0x1234);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(mem[1], 0x77777777);

	ASSERT_EQ(vm_set_slot(&vm, 1, 0, MMIO_GPA, 0, (void *)mem), 0);
	mem[1] = 0;
	vcpu_run_to(&vcpu, KVM_EXIT_MMIO);
	EXPECT_EQ(vcpu.run->mmio.is_write, 0);
	value = 0x4321;
	memcpy(vcpu.run->mmio.data, &value, 4);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&vcpu).rax, 0x4321);
	vcpu_run_to(&vcpu, KVM_EXIT_MMIO);
	EXPECT_EQ(vcpu.run->mmio.is_write, 1);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(mem[1], 0);

	if (try_ioctl(vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) < 1)
		SKIP(return, "no read-only slots");
	ASSERT_EQ(vm_set_slot(&vm, 1, KVM_MEM_READONLY, MMIO_GPA, PAGE, (void *)mem), 0);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&vcpu).rax, 0x1234);
	vcpu_run_to(&vcpu, KVM_EXIT_MMIO);
	EXPECT_EQ(vcpu.run->mmio.is_write, 1);
	EXPECT_EQ(vcpu.run->mmio.phys_addr, MMIO_GPA + 4);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(mem[1], 0);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/*
 * An access across the end of memory: the bytes that have memory go there,
 * the rest is MMIO.
 */
GUEST_CODE(straddle, 64,
	"	movq %rax, 0x1ffffc\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movq 0x1ffffd, %rax\n"
	"	outb %al, $" STR(PORT_SYNC) "\n");

TEST(across_the_end_of_memory)
{
	struct mmio_case c = CASE(straddle, 0, MODE_LONG, 4, 0, 0, NONE);
	uint64_t value = 0;
	struct vcpu vcpu;
	struct vm vm;

	start(&c, &vm, &vcpu);
	vcpu_run_to(&vcpu, KVM_EXIT_MMIO);
	EXPECT_EQ(vcpu.run->mmio.is_write, 1);
	EXPECT_EQ(vcpu.run->mmio.phys_addr, VM_MEMORY);
	EXPECT_EQ(vcpu.run->mmio.len, 4);
	memcpy(&value, vcpu.run->mmio.data, 4);
	EXPECT_EQ(value, RAX >> 32);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(*(uint32_t *)(vm.mem + VM_MEMORY - 4), (uint32_t)RAX);

	vcpu_run_to(&vcpu, KVM_EXIT_MMIO);
	EXPECT_EQ(vcpu.run->mmio.is_write, 0);
	EXPECT_EQ(vcpu.run->mmio.phys_addr, VM_MEMORY);
	EXPECT_EQ(vcpu.run->mmio.len, 5);
	value = 0xa5a4a3a2a1;
	memcpy(vcpu.run->mmio.data, &value, 8);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&vcpu).rax, (value << 24) | ((uint32_t)RAX >> 8));
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
