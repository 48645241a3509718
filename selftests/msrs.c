// SPDX-License-Identifier: GPL-2.0
/*
 * Every MSR number that something may be behind: /dev/kvm-rs and /dev/kvm, in
 * one boot, must give the client and the guest the same answers to reads and
 * writes of it, list the same MSRs to be saved, and the same that tell features.
 * What belongs to features that kvm_rs does not have is listed below.
 */
#include "kselftest_harness.h"
#include "state.h"
#include "vm.h"

#define MEMORY		SZ_4M
#define COMMANDS_GPA	DATA_GPA

static const struct range {
	uint32_t first, last;
} ranges[] = {
	{ 0x0, 0x1fff },
	{ 0x40000000, 0x4000011f },
	{ 0x4b564d00, 0x4b564d1f },
	{ 0xc0000000, 0xc000031f },
	{ 0xc0010000, 0xc001021f },
	{ 0xc0011000, 0xc001103f },
};

/* What is not there, and why. */
static const struct {
	uint32_t first, last;
	const char *why;
} excused[] = {
	{ 0x9e, 0x9e, "SMM" },
	{ 0x480, 0x491, "VMX in guests" },
	{ 0xc1, 0xc8, "performance counters" },
	{ 0x186, 0x18d, "performance counters" },
	{ 0x309, 0x329, "performance counters" },
	{ 0x345, 0x345, "performance counters" },
	{ 0x38d, 0x391, "performance counters" },
	{ 0x3f1, 0x3f2, "performance counters" },
	{ 0x4c1, 0x4c8, "performance counters" },
	{ 0x600, 0x600, "performance counters" },
	{ 0xc0010000, 0xc0010007, "performance counters" },
	{ 0xc0010200, 0xc001020f, "performance counters" },
	{ 0xc0000300, 0xc0000303, "performance counters" },
	{ 0x40000000, 0x4000011f, "Hyper-V" },
	{ 0x122, 0x122, "TSX_CTRL; and the emulated CPU has it for kvm_intel" },
	{ 0xc0000084, 0xc0000084, "its upper half is reserved; kvm_intel lets the CPU decide" },
	{ 0x4b564d08, 0x4b564d08, "encrypted guests" },
};

/* Saved by one of the two only. */
static const struct {
	uint32_t first, last;
	const char *why;
} unlike[] = {
	{ 0x48, 0x48, "the emulated CPU has any MSR for kvm_intel, which tries; kvm_rs asks CPUID" },
	{ 0xc0010117, 0xc0010117, "as 0x48" },
	{ 0x200, 0x20f, "MTRRs: kvm_intel lets the client know of them by itself" },
	{ 0x250, 0x26f, "MTRRs" },
	{ 0x2ff, 0x2ff, "MTRRs" },
};

static const uint64_t values[] = { 0, 1, ~0UL, 0x5555555555555555 };

#define MAX_NUMBERS	0x3000
#define OPERATIONS	(1 + 2 * ARRAY_SIZE(values))

/* What became of one operation: whether it succeeded, and what was read. */
struct answer {
	bool ok;
	uint64_t value;
};

struct table {
	const char *path;
	uint32_t nr_saved, nr_features;
	uint32_t saved[512], features[512];
	struct answer client[MAX_NUMBERS][OPERATIONS];
	struct answer guest[MAX_NUMBERS][OPERATIONS];
};

static struct table tables[2] = { { "/dev/kvm-rs" }, { "/dev/kvm" } };
static uint32_t numbers[MAX_NUMBERS];
static unsigned int nr_numbers;

static const char *excuse(uint32_t index)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(excused); i++)
		if (excused[i].first <= index && index <= excused[i].last)
			return excused[i].why;
	return NULL;
}

static bool may_be_saved(uint32_t index)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(unlike); i++)
		if (unlike[i].first <= index && index <= unlike[i].last)
			return true;
	return excuse(index);
}

/* Counters that go on meanwhile. */
static bool is_volatile(uint32_t index)
{
	return index == 0x10 || index == 0x3b;
}

static uint32_t read_list(int dev, unsigned long request, uint32_t *indices)
{
	static struct {
		struct kvm_msr_list head;
		uint32_t indices[512];
	} list;

	list.head.nmsrs = 512;
	xioctl(dev, request, &list);
	memcpy(indices, list.indices, list.head.nmsrs * sizeof(*indices));
	return list.head.nmsrs;
}

static struct answer client_msr(struct vcpu *vcpu, unsigned long request, uint32_t index,
				uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry = { .index = index, .data = value } };
	struct answer answer = { .ok = try_ioctl(vcpu->fd, request, (long)&msrs) == 1 };

	if (answer.ok && request == KVM_GET_MSRS && !is_volatile(index))
		answer.value = msrs.entry.data;
	return answer;
}

/* Whether the client, or a guest that reads, of either device can access an MSR. */
static bool is_there(unsigned int number)
{
	unsigned int i, k;

	for (i = 0; i < 2; i++) {
		if (tables[i].guest[number][0].ok)
			return true;
		for (k = 0; k < OPERATIONS; k++)
			if (tables[i].client[number][k].ok)
				return true;
	}
	return false;
}

/* What a guest does, one after the other. */
struct command {
	uint32_t index, write;
	uint64_t value;
	uint64_t ok;
};

GUEST_CODE(accesses, 64,
	"1:	cmp %rdi, %rsi\n"
	"	jae 5f\n"
	"	lea 3f(%rip), %rax\n"
	"	mov %rax, " REC_RESUME "\n"
	"	movq $1, 16(%rsi)\n"
	"	mov (%rsi), %ecx\n"
	"	mov 8(%rsi), %eax\n"
	"	mov 12(%rsi), %edx\n"
	"	cmpl $0, 4(%rsi)\n"
	"	jne 2f\n"
	"	rdmsr\n"
	"	mov %eax, 8(%rsi)\n"
	"	mov %edx, 12(%rsi)\n"
	"	jmp 4f\n"
	"2:	wrmsr\n"
	"	jmp 4f\n"
	"3:	movq $0, 16(%rsi)\n"
	"4:	add $24, %rsi\n"
	"	jmp 1b\n"
	"5:	movq $0, " REC_RESUME "\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static void start(struct table *t, struct vm *vm, struct vcpu *vcpu)
{
	setenv("KVM_RS_DEVICE", t->path, 1);
	vm_create(vm, MEMORY);
	vm_enable_apic(vm);
	vcpu_create(vcpu, vm, 0);
	vcpu_set_common_cpuid(vcpu);
}

static void ask_client(struct table *t)
{
	struct vcpu vcpu;
	struct vm vm;
	unsigned int i, k;

	start(t, &vm, &vcpu);
	t->nr_saved = read_list(vm.dev, KVM_GET_MSR_INDEX_LIST, t->saved);
	t->nr_features = read_list(vm.dev, KVM_GET_MSR_FEATURE_INDEX_LIST, t->features);
	for (i = 0; i < nr_numbers; i++) {
		struct answer *answer = t->client[i];

		answer[0] = client_msr(&vcpu, KVM_GET_MSRS, numbers[i], 0);
		for (k = 0; k < ARRAY_SIZE(values); k++) {
			answer[2 * k + 1] = client_msr(&vcpu, KVM_SET_MSRS, numbers[i], values[k]);
			answer[2 * k + 2] = client_msr(&vcpu, KVM_GET_MSRS, numbers[i], 0);
			/* What takes neither 0 nor 1 takes nothing. */
			if (k == 1 && !answer[0].ok && !answer[1].ok && !answer[3].ok)
				break;
		}
		if (answer[0].ok)
			client_msr(&vcpu, KVM_SET_MSRS, numbers[i], answer[0].value);
	}
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

static void run_commands(struct vcpu *vcpu, unsigned int n)
{
	struct kvm_regs regs;

	vcpu_set_rip(vcpu, CODE_GPA);
	regs = vcpu_regs(vcpu);
	regs.rsi = COMMANDS_GPA;
	regs.rdi = COMMANDS_GPA + n * sizeof(struct command);
	vcpu_set_regs(vcpu, &regs);
	vcpu_run_to_port(vcpu, PORT_DONE);
	vcpu_complete(vcpu);
}

static struct answer answer_of(const struct command *c)
{
	struct answer answer = { .ok = c->ok };

	if (c->ok && !c->write && !is_volatile(c->index))
		answer.value = c->value;
	return answer;
}

/* First reads all, then writes what a client or a guest of either device can access. */
static void ask_guest(struct table *t, bool write)
{
	struct command *commands;
	unsigned int i, k, n = 0;
	struct vcpu vcpu;
	struct vm vm;

	start(t, &vm, &vcpu);
	vcpu_set_mode(&vcpu, MODE_LONG);
	vm_load(&vm, CODE_GPA, accesses);
	commands = (struct command *)(vm.mem + COMMANDS_GPA);
	for (i = 0; i < nr_numbers; i++) {
		if (!write) {
			commands[n++] = (struct command){ .index = numbers[i] };
			continue;
		}
		if (!is_there(i))
			continue;
		for (k = 0; k < ARRAY_SIZE(values); k++) {
			commands[n++] = (struct command){ numbers[i], 1, values[k], 0 };
			commands[n++] = (struct command){ .index = numbers[i] };
		}
	}
	run_commands(&vcpu, n);
	for (i = n = 0; i < nr_numbers; i++) {
		if (!write)
			t->guest[i][0] = answer_of(&commands[n++]);
		else if (is_there(i))
			for (k = 1; k < OPERATIONS; k++)
				t->guest[i][k] = answer_of(&commands[n++]);
	}
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

static const char *operation(unsigned int k)
{
	static char text[64];

	if (!k)
		return "read";
	snprintf(text, sizeof(text), "%s %#lx", k % 2 ? "write of" : "read after",
		 values[(k - 1) / 2]);
	return text;
}

/* Tells what differs of one MSR, the first operation only; returns whether that is allowed. */
static bool same(unsigned int number, const char *who, const struct answer *rs,
		 const struct answer *kvm)
{
	unsigned int k;

	for (k = 0; k < OPERATIONS; k++)
		if (rs[k].ok != kvm[k].ok || rs[k].value != kvm[k].value)
			break;
	if (k == OPERATIONS || excuse(numbers[number]))
		return true;
	printf("# %s: %#x: %s: kvm-rs %s %#lx, kvm %s %#lx\n", who, numbers[number], operation(k),
	       rs[k].ok ? "yes" : "no", rs[k].value, kvm[k].ok ? "yes" : "no", kvm[k].value);
	return false;
}

static bool in_list(const uint32_t *list, unsigned int n, uint32_t index)
{
	while (n--)
		if (list[n] == index)
			return true;
	return false;
}

/* Tells what is in one list only, and not excused. */
static unsigned int lacks(const char *what, const uint32_t *a, unsigned int na, const uint32_t *b,
			  unsigned int nb)
{
	unsigned int i, n = 0;

	for (i = 0; i < nb; i++) {
		if (in_list(a, na, b[i]) || may_be_saved(b[i]))
			continue;
		printf("# %s %#x\n", what, b[i]);
		n++;
	}
	return n;
}

FIXTURE(msrs) {};

FIXTURE_SETUP(msrs)
{
	unsigned int i, index;

	if (access("/dev/kvm-rs", F_OK) || access("/dev/kvm", F_OK))
		SKIP(return, "needs /dev/kvm and /dev/kvm-rs");
	nr_numbers = 0;
	for (i = 0; i < ARRAY_SIZE(ranges); i++)
		for (index = ranges[i].first; index <= ranges[i].last; index++)
			numbers[nr_numbers++] = index;
	for (i = 0; i < 2; i++)
		ask_client(&tables[i]);
}

FIXTURE_TEARDOWN(msrs)
{
}

TEST_F(msrs, lists)
{
	const struct table *rs = &tables[0], *kvm = &tables[1];

	EXPECT_EQ(lacks("not saved:", rs->saved, rs->nr_saved, kvm->saved, kvm->nr_saved), 0);
	EXPECT_EQ(lacks("saved, but not by kvm:", kvm->saved, kvm->nr_saved, rs->saved,
			rs->nr_saved), 0);
	EXPECT_EQ(lacks("no feature:", rs->features, rs->nr_features, kvm->features,
			kvm->nr_features), 0);
	EXPECT_EQ(lacks("a feature, but not of kvm:", kvm->features, kvm->nr_features,
			rs->features, rs->nr_features), 0);
}

TEST_F(msrs, accesses)
{
	unsigned int i, there = 0, differ = 0;

	for (i = 0; i < 2; i++)
		ask_guest(&tables[i], false);
	for (i = 0; i < 2; i++)
		ask_guest(&tables[i], true);
	for (i = 0; i < nr_numbers; i++) {
		there += is_there(i);
		differ += !same(i, "client", tables[0].client[i], tables[1].client[i]);
		differ += !same(i, "guest", tables[0].guest[i], tables[1].guest[i]);
	}
	TH_LOG("%u numbers, %u with something behind", nr_numbers, there);
	EXPECT_EQ(differ, 0);
}

TEST_HARNESS_MAIN
