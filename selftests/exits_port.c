// SPDX-License-Identifier: GPL-2.0
/*
 * Port I/O: IN and OUT of 1, 2 and 4 bytes by immediate and by DX, and the
 * string forms in both directions, forwards and backwards, with every address
 * size. What user space sees, and what registers and memory hold afterwards.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define PORT		0x3f8
#define RAX		0x1122334455667788UL

FIXTURE(exits_port) {
	struct vm vm;
	struct vcpu vcpu;
};

FIXTURE_SETUP(exits_port)
{
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
}

FIXTURE_TEARDOWN(exits_port)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

GUEST_CODE(plain, 64,
	"	outb %al, $0x42\n"
	"	outw %ax, $0x42\n"
	"	outl %eax, $0x42\n"
	"	outb %al, %dx\n"
	"	outw %ax, %dx\n"
	"	outl %eax, %dx\n"
	"	inb $0x42, %al\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movq %rbx, %rax\n"
	"	inw $0x42, %ax\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movq %rbx, %rax\n"
	"	inl $0x42, %eax\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movq %rbx, %rax\n"
	"	inb %dx, %al\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movq %rbx, %rax\n"
	"	inw %dx, %ax\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movq %rbx, %rax\n"
	"	inl %dx, %eax\n"
	"	outb %al, $" STR(PORT_SYNC) "\n");

/* Checks an exit in every field, and that the data lies in the mapping. */
static void check_io(struct __test_metadata *_metadata, struct vcpu *vcpu,
		     unsigned int direction, unsigned int port,
		     unsigned int size, unsigned int count)
{
	struct kvm_run *run = vcpu->run;

	vcpu_run_to(vcpu, KVM_EXIT_IO);
	ASSERT_EQ(run->io.direction, direction);
	ASSERT_EQ(run->io.port, port);
	ASSERT_EQ(run->io.size, size);
	ASSERT_EQ(run->io.count, count);
	ASSERT_GE(run->io.data_offset, sizeof(*run) - sizeof(run->s) - 256);
	ASSERT_LE(run->io.data_offset + size * count, vcpu->run_size);
}

TEST_F(exits_port, out_and_in)
{
	static const uint64_t in_result[] = {
		(RAX & ~0xffUL) | 0xd4, (RAX & ~0xffffUL) | 0xc3d4, 0xa1b2c3d4,
	};
	static const uint32_t input = 0xa1b2c3d4;
	struct vcpu *vcpu = &self->vcpu;
	struct kvm_regs regs = vcpu_regs(vcpu);
	unsigned int i;

	vm_load(&self->vm, CODE_GPA, plain);
	regs.rax = RAX;
	regs.rbx = RAX;
	regs.rdx = 0xffff0000 | PORT;
	vcpu_set_regs(vcpu, &regs);

	for (i = 0; i < 6; i++) {
		unsigned int size = 1 << (i % 3);
		uint32_t value = 0;

		check_io(_metadata, vcpu, KVM_EXIT_IO_OUT, i < 3 ? 0x42 : PORT, size, 1);
		memcpy(&value, vcpu_io_data(vcpu), size);
		EXPECT_EQ(value, RAX & (0xffffffffU >> (32 - size * 8)));
	}
	for (i = 0; i < 6; i++) {
		unsigned int size = 1 << (i % 3);

		check_io(_metadata, vcpu, KVM_EXIT_IO_IN, i < 3 ? 0x42 : PORT, size, 1);
		memset(vcpu_io_data(vcpu), 0xee, 8);
		memcpy(vcpu_io_data(vcpu), &input, size);
		vcpu_run_to_port(vcpu, PORT_SYNC);
		EXPECT_EQ(vcpu_regs(vcpu).rax, in_result[i % 3])
			TH_LOG("in of %u bytes: %#llx", size, vcpu_regs(vcpu).rax);
	}
}

/*
 * RIP of an OUT that was not finished: the instruction is complete only with
 * the next KVM_RUN, which need not run the guest.
 */
TEST_F(exits_port, in_completes_with_immediate_exit)
{
	struct vcpu *vcpu = &self->vcpu;

	vm_load(&self->vm, CODE_GPA + 0x100, plain);
	memcpy(self->vm.mem + CODE_GPA, "\xe4\x42\xf4", 3);	/* in $0x42, %al; hlt */
	check_io(_metadata, vcpu, KVM_EXIT_IO_IN, 0x42, 1, 1);
	*(uint8_t *)vcpu_io_data(vcpu) = 0x77;
	vcpu->run->immediate_exit = 1;
	EXPECT_EQ(vcpu_run(vcpu), -EINTR);
	vcpu->run->immediate_exit = 0;
	EXPECT_EQ(vcpu_regs(vcpu).rax & 0xff, 0x77);
	EXPECT_EQ(vcpu_regs(vcpu).rip, CODE_GPA + 2);
	vcpu_run_to(vcpu, KVM_EXIT_HLT);
}

/*
 * The string forms. Each instruction is followed by an OUT to PORT_SYNC, at
 * which everything the instruction does must have been done.
 */
#define SYNC	"\n	outb %al, $" STR(PORT_SYNC) "\n"
GUEST_CODE(rep_outsb, 64, "cld; rep outsb" SYNC);
GUEST_CODE(rep_outsw, 64, "cld; rep outsw" SYNC);
GUEST_CODE(rep_outsl, 64, "cld; rep outsl" SYNC);
GUEST_CODE(rep_outsb_down, 64, "std; rep outsb; cld" SYNC);
GUEST_CODE(rep_outsl_down, 64, "std; rep outsl; cld" SYNC);
GUEST_CODE(rep_outsw_a32, 64, "cld; addr32 rep outsw" SYNC);
GUEST_CODE(one_outsl, 64, "cld; outsl" SYNC);
GUEST_CODE(rep_insb, 64, "cld; rep insb" SYNC);
GUEST_CODE(rep_insw, 64, "cld; rep insw" SYNC);
GUEST_CODE(rep_insl, 64, "cld; rep insl" SYNC);
GUEST_CODE(rep_insb_down, 64, "std; rep insb; cld" SYNC);
GUEST_CODE(rep_insl_down, 64, "std; rep insl; cld" SYNC);
GUEST_CODE(rep_insw_a32, 64, "cld; addr32 rep insw" SYNC);
GUEST_CODE(one_insw, 64, "cld; insw" SYNC);
/* In 16-bit real mode, with 16- and 32-bit addresses; and 32-bit code. */
GUEST_CODE(rep_outsb_16, 16, "cld; rep outsb" SYNC);
GUEST_CODE(rep_insw_16, 16, "cld; rep insw" SYNC);
GUEST_CODE(rep_outsl_16_a32, 16, "cld; addr32 rep outsl" SYNC);
GUEST_CODE(rep_insb_32, 32, "cld; rep insb" SYNC);
GUEST_CODE(rep_outsw_32_a16, 32, "cld; addr16 rep outsw" SYNC);

struct string_case {
	const char *name, *start, *end;
	bool in, down, rep;
	enum mode mode;
	unsigned int size;
	uint64_t count;		/* RCX */
	uint64_t index;		/* RSI or RDI: first element */
	uint64_t mask;		/* of the registers that an address size counts in */
};

#define CASE(code, ...)	{ #code, code, code##_end, __VA_ARGS__ }
#define A16	0xffffUL
#define A32	0xffffffffUL
#define A64	(~0UL)

static const struct string_case string_cases[] = {
	/* in, down, rep */
	CASE(rep_outsb, 0, 0, 1, MODE_LONG, 1, 10, DATA_GPA + 3, A64),
	CASE(rep_outsw, 0, 0, 1, MODE_LONG, 2, 100, DATA_GPA + 1, A64),
	CASE(rep_outsl, 0, 0, 1, MODE_LONG, 4, 7, DATA_GPA + 4, A64),
	/* More than a page of data, and data that crosses one. */
	CASE(rep_outsb, 0, 0, 1, MODE_LONG, 1, 5000, DATA_GPA, A64),
	CASE(rep_outsl, 0, 0, 1, MODE_LONG, 4, 1500, DATA_GPA + 0xffe, A64),
	CASE(rep_outsw, 0, 0, 1, MODE_LONG, 2, 3, DATA_GPA + 0xffd, A64),
	CASE(rep_outsb_down, 0, 1, 1, MODE_LONG, 1, 9, DATA_GPA + 0x1004, A64),
	CASE(rep_outsl_down, 0, 1, 1, MODE_LONG, 4, 1100, DATA_GPA + 0x3000, A64),
	CASE(rep_outsw_a32, 0, 0, 1, MODE_LONG, 2, 0x700000005, 0x500000000 + DATA_GPA, A32),
	CASE(rep_outsb, 0, 0, 1, MODE_LONG, 1, 0, DATA_GPA, A64),
	CASE(one_outsl, 0, 0, 0, MODE_LONG, 4, 1, DATA_GPA + 8, A64),
	CASE(rep_insb, 1, 0, 1, MODE_LONG, 1, 10, DATA_GPA + 3, A64),
	CASE(rep_insw, 1, 0, 1, MODE_LONG, 2, 100, DATA_GPA + 1, A64),
	CASE(rep_insl, 1, 0, 1, MODE_LONG, 4, 7, DATA_GPA + 4, A64),
	CASE(rep_insb, 1, 0, 1, MODE_LONG, 1, 5000, DATA_GPA, A64),
	CASE(rep_insl, 1, 0, 1, MODE_LONG, 4, 1500, DATA_GPA + 0xffe, A64),
	CASE(rep_insw, 1, 0, 1, MODE_LONG, 2, 3, DATA_GPA + 0xffd, A64),
	CASE(rep_insb_down, 1, 1, 1, MODE_LONG, 1, 9, DATA_GPA + 0x1004, A64),
	CASE(rep_insl_down, 1, 1, 1, MODE_LONG, 4, 1100, DATA_GPA + 0x3000, A64),
	CASE(rep_insw_a32, 1, 0, 1, MODE_LONG, 2, 0x700000005, 0x500000000 + DATA_GPA, A32),
	CASE(rep_insb, 1, 0, 1, MODE_LONG, 1, 0, DATA_GPA, A64),
	CASE(one_insw, 1, 0, 0, MODE_LONG, 2, 1, DATA_GPA + 8, A64),
	CASE(rep_outsb_16, 0, 0, 1, MODE_REAL, 1, 0x30020, 0x4000, A16),
	CASE(rep_insw_16, 1, 0, 1, MODE_REAL, 2, 20, 0x6000, A16),
	CASE(rep_outsl_16_a32, 0, 0, 1, MODE_REAL, 4, 20, 0x6000, A32),
	CASE(rep_insb_32, 1, 0, 1, MODE_PROTECTED, 1, 300, DATA_GPA + 0xff0, A32),
	CASE(rep_outsw_32_a16, 0, 0, 1, MODE_PROTECTED, 2, 0x50006, 0x16000, A16),
};

static uint8_t pattern(unsigned int i)
{
	return i * 7 + (i >> 8) * 13 + 1;
}

/* What @reg becomes when its part under @mask becomes @value. */
static uint64_t merge(uint64_t reg, uint64_t value, uint64_t mask)
{
	/* A write to a 32-bit register clears the upper half. */
	if (mask == A32)
		return value & mask;
	return (reg & ~mask) | (value & mask);
}

static void run_string(struct __test_metadata *_metadata, const struct string_case *c)
{
	uint64_t count = c->count & c->mask, first = c->index & c->mask;
	uint64_t bytes = count * c->size, low, i, moved = 0, step;
	struct kvm_regs regs;
	struct kvm_run *run;
	struct vcpu vcpu;
	uint8_t *mem;
	struct vm vm;

	vm_create(&vm, VM_MEMORY);
	vcpu_start(&vcpu, &vm, c->mode);
	run = vcpu.run;
	__vm_load(&vm, CODE_GPA, c->start, c->end);
	/* Element k is at low + k * size, or at the mirrored place with DF. */
	low = c->down ? first - (count - 1) * c->size : first;
	mem = (uint8_t *)vm.mem + low;
	for (i = 0; i < bytes; i++)
		mem[i] = c->in ? 0xcc : pattern(i);
	mem[-1] = 0xab;
	mem[bytes] = 0xcd;

	regs = vcpu_regs(&vcpu);
	regs.rdx = PORT;
	regs.rcx = c->count;
	regs.rsi = c->in ? 0x5151515151 : c->index;
	regs.rdi = c->in ? c->index : 0xd1d1d1d1d1;
	vcpu_set_regs(&vcpu, &regs);

	for (;;) {
		uint8_t *data;
		uint64_t n, k, j;

		vcpu_run_to(&vcpu, KVM_EXIT_IO);
		if (run->io.port == PORT_SYNC)
			break;
		ASSERT_EQ(run->io.port, PORT);
		ASSERT_EQ(run->io.size, c->size);
		ASSERT_EQ(run->io.direction, c->in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT);
		n = run->io.count;
		ASSERT_GE(n, 1);
		ASSERT_LE(moved + n, count);
		ASSERT_LE(run->io.data_offset + n * c->size, vcpu.run_size);
		data = vcpu_io_data(&vcpu);
		for (k = 0; k < n; k++) {
			uint64_t at = c->down ? count - 1 - moved - k : moved + k;

			for (j = 0; j < c->size; j++, data++) {
				if (c->in)
					*data = pattern(at * c->size + j);
				else
					ASSERT_EQ(*data, pattern(at * c->size + j));
			}
		}
		moved += n;
	}
	EXPECT_EQ(moved, count);
	for (i = 0; i < bytes; i++) {
		if (mem[i] != pattern(i))
			break;
	}
	EXPECT_EQ(i, bytes);
	EXPECT_EQ(mem[-1], 0xab);
	EXPECT_EQ(mem[bytes], 0xcd);

	regs = vcpu_regs(&vcpu);
	step = c->down ? -bytes : bytes;
	/* Without iterations nothing is written, not even a cleared half. */
	EXPECT_EQ(regs.rcx, c->rep ? merge(c->count, 0, count ? c->mask : 0) : c->count);
	EXPECT_EQ(c->in ? regs.rdi : regs.rsi,
		  merge(c->index, first + step, count ? c->mask : 0));
	EXPECT_EQ(c->in ? regs.rsi : regs.rdi, c->in ? 0x5151515151 : 0xd1d1d1d1d1);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST(string_forms)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(string_cases); i++) {
		const struct string_case *c = &string_cases[i];

		TH_LOG("%u: %s of %#lx elements at %#lx", i, c->name, c->count, c->index);
		run_string(_metadata, c);
	}
}

/* A segment base counts for the source, and only FS and GS have one. */
GUEST_CODE(rep_outsb_fs, 64, "cld; rep outsb %fs:(%rsi), %dx" SYNC);

TEST_F(exits_port, string_with_segment_override)
{
	struct vcpu *vcpu = &self->vcpu;
	struct kvm_sregs sregs = vcpu_sregs(vcpu);
	struct kvm_regs regs = vcpu_regs(vcpu);
	char seen[8] = "";
	unsigned int n = 0;

	vm_load(&self->vm, CODE_GPA, rep_outsb_fs);
	memcpy(self->vm.mem + DATA_GPA + 0x110, "segment", 8);
	sregs.fs.base = DATA_GPA;
	vcpu_set_sregs(vcpu, &sregs);
	regs.rsi = 0x110;
	regs.rcx = 7;
	regs.rdx = PORT;
	vcpu_set_regs(vcpu, &regs);
	for (;;) {
		vcpu_run_to(vcpu, KVM_EXIT_IO);
		if (vcpu->run->io.port != PORT)
			break;
		ASSERT_LE(n + vcpu->run->io.count, 7);
		memcpy(seen + n, vcpu_io_data(vcpu), vcpu->run->io.count);
		n += vcpu->run->io.count;
	}
	EXPECT_STREQ(seen, "segment");
	EXPECT_EQ(vcpu_regs(vcpu).rsi, 0x117);
}

/* INS to a page that the guest's tables do not map: #PF before any input. */
TEST_F(exits_port, ins_page_fault)
{
	struct exception_record *record = vm_record(&self->vm);
	struct kvm_regs regs = vcpu_regs(&self->vcpu);
	uint64_t *pd = (uint64_t *)(self->vm.mem + LONG_PT_GPA) + 1024;

	vm_load(&self->vm, CODE_GPA, rep_insb);
	pd[8] = 0;
	regs.rdi = 8 * SZ_2M + 0x123;
	regs.rcx = 4;
	regs.rdx = PORT;
	vcpu_set_regs(&self->vcpu, &regs);
	vcpu_run_to(&self->vcpu, KVM_EXIT_IO);
	if (self->vcpu.run->io.port == PORT) {
		/* KVM may ask for the input first, the write faults then. */
		memset(vcpu_io_data(&self->vcpu), 0x11, self->vcpu.run->io.count);
		vcpu_run_to(&self->vcpu, KVM_EXIT_IO);
	}
	ASSERT_EQ(self->vcpu.run->io.port, PORT_EXCEPTION);
	EXPECT_EQ(record->vector, 14);
	EXPECT_EQ(record->error, 2);
	EXPECT_EQ(record->cr2, 8 * SZ_2M + 0x123);
	EXPECT_EQ(record->rip, CODE_GPA + 1);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rcx, 4);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rdi, 8 * SZ_2M + 0x123);
}

/*
 * Runs a string instruction whose operand is no memory: INS to it or OUTS from it.
 * The client is asked for the port and for the memory; both get the same bytes, one by
 * one or several at once.
 */
static void check_device_string(struct __test_metadata *_metadata, struct vcpu *vcpu,
				uint64_t gpa, bool input, unsigned int n)
{
	struct kvm_regs regs = vcpu_regs(vcpu);
	struct kvm_run *run = vcpu->run;
	unsigned int asked = 0, got = 0, i;
	uint8_t bytes[16] = {};
	uint8_t *data;

	regs.rip = CODE_GPA;
	regs.rsi = regs.rdi = gpa;
	regs.rcx = n;
	regs.rdx = PORT;
	vcpu_set_regs(vcpu, &regs);
	for (;;) {
		ASSERT_EQ(vcpu_run(vcpu), 0);
		if (run->exit_reason == KVM_EXIT_MMIO) {
			EXPECT_EQ(run->mmio.is_write, input);
			EXPECT_EQ(run->mmio.phys_addr, gpa + (input ? got : asked));
			for (i = 0; i < run->mmio.len; i++) {
				if (input)
					bytes[got++ % sizeof(bytes)] = run->mmio.data[i];
				else
					run->mmio.data[i] = ++asked;
			}
			continue;
		}
		ASSERT_EQ(run->exit_reason, KVM_EXIT_IO);
		if (run->io.port == PORT_SYNC)
			break;
		ASSERT_EQ(run->io.port, PORT);
		EXPECT_EQ(run->io.direction, input ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT);
		data = vcpu_io_data(vcpu);
		for (i = 0; i < run->io.count; i++) {
			if (input)
				data[i] = ++asked;
			else
				bytes[got++ % sizeof(bytes)] = data[i];
		}
	}
	EXPECT_EQ(got, n);
	EXPECT_EQ(asked, n);
	for (i = 0; i < n; i++) {
		EXPECT_EQ(bytes[i], i + 1);
	}
	regs = vcpu_regs(vcpu);
	EXPECT_EQ(input ? regs.rdi : regs.rsi, gpa + n);
	EXPECT_EQ(regs.rcx, 0);
}

TEST_F(exits_port, string_with_a_device)
{
	vm_load(&self->vm, CODE_GPA, rep_insb);
	check_device_string(_metadata, &self->vcpu, MMIO_GPA + 4, true, 5);
	check_device_string(_metadata, &self->vcpu, MMIO_GPA + PAGE - 2, true, 4);
	vm_load(&self->vm, CODE_GPA, rep_outsb);
	check_device_string(_metadata, &self->vcpu, MMIO_GPA + 4, false, 5);
	check_device_string(_metadata, &self->vcpu, MMIO_GPA + PAGE - 2, false, 4);
}

/* Writes to memory that the guest only reads are the client's, as all are. */
TEST_F(exits_port, ins_to_read_only_memory)
{
	char *mem = memory_alloc(PAGE, PAGE);

	memset(mem, 0x55, PAGE);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, KVM_MEM_READONLY, SZ_4M, PAGE, mem), 0);
	vm_load(&self->vm, CODE_GPA, rep_insb);
	check_device_string(_metadata, &self->vcpu, SZ_4M + 8, true, 3);
	EXPECT_EQ(mem[8], 0x55);
	EXPECT_EQ(mem[10], 0x55);
}

TEST_HARNESS_MAIN
