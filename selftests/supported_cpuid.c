// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_GET_SUPPORTED_CPUID of kvm_rs beside that of kvm_intel, in one boot: the
 * same leaves with the same values, but for what is listed below.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define MAX_ENTRIES	128
#define ANY		~0U

enum reg { EAX, EBX, ECX, EDX };

static const char *const names[] = { "EAX", "EBX", "ECX", "EDX" };

/* Bits that kvm_intel offers and kvm_rs does not. */
static const struct {
	uint32_t function, index;
	enum reg reg;
	uint32_t bits;
	const char *why;
} not_offered[] = {
	{ 0, 0, EAX, ~0U, "the highest leaf: 0x20 is not there" },
	{ 1, 0, ECX, 1 << 5, "VMX in guests" },
	{ 7, 0, ECX, 1 << 2, "UMIP on a CPU that lacks it" },
	{ 7, 0, ECX, 1 << 16, "5-level paging" },
	{ 0x80000008, 0, EAX, 0xff00, "linear addresses of 5-level paging" },
};

/* Leaves that only kvm_intel has. */
static const struct {
	uint32_t function, index;
	const char *why;
} not_there[] = {
	{ 0x20, ANY, "resets of the CPU's history" },
};

struct table {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[MAX_ENTRIES];
};

static void read_table(struct table *t, const char *path)
{
	int fd = open(path, O_RDWR);

	memset(t, 0, sizeof(*t));
	t->head.nent = MAX_ENTRIES;
	xioctl(fd, KVM_GET_SUPPORTED_CPUID, t);
	close(fd);
}

static const struct kvm_cpuid_entry2 *find(const struct table *t,
					   const struct kvm_cpuid_entry2 *like)
{
	unsigned int i;

	for (i = 0; i < t->head.nent; i++)
		if (t->entries[i].function == like->function && t->entries[i].index == like->index)
			return &t->entries[i];
	return NULL;
}

static uint32_t allowed(const struct kvm_cpuid_entry2 *e, enum reg reg)
{
	uint32_t bits = 0;
	unsigned int i;

	for (i = 0; i < sizeof(not_offered) / sizeof(not_offered[0]); i++)
		if (not_offered[i].function == e->function && not_offered[i].index == e->index &&
		    not_offered[i].reg == reg)
			bits |= not_offered[i].bits;
	return bits;
}

static bool may_lack(const struct kvm_cpuid_entry2 *e)
{
	unsigned int i;

	for (i = 0; i < sizeof(not_there) / sizeof(not_there[0]); i++)
		if (not_there[i].function == e->function &&
		    (not_there[i].index == ANY || not_there[i].index == e->index))
			return true;
	return false;
}

static uint32_t value(const struct kvm_cpuid_entry2 *e, enum reg reg)
{
	const uint32_t values[] = { e->eax, e->ebx, e->ecx, e->edx };

	return values[reg];
}

TEST(as_in_kvm)
{
	static struct table ours, theirs;
	unsigned int i, same = 0;
	enum reg reg;

	if (access("/dev/kvm-rs", R_OK | W_OK) || access("/dev/kvm", R_OK | W_OK))
		SKIP(return, "needs /dev/kvm-rs and /dev/kvm");
	read_table(&ours, "/dev/kvm-rs");
	read_table(&theirs, "/dev/kvm");
	for (i = 0; i < theirs.head.nent; i++) {
		const struct kvm_cpuid_entry2 *b = &theirs.entries[i], *a = find(&ours, b);

		if (!a) {
			EXPECT_TRUE(may_lack(b))
				TH_LOG("no %#x.%u: %#x %#x %#x %#x", b->function, b->index, b->eax,
				       b->ebx, b->ecx, b->edx);
			continue;
		}
		EXPECT_EQ(a->flags, b->flags) TH_LOG("flags of %#x.%u", b->function, b->index);
		for (reg = EAX; reg <= EDX; reg++) {
			uint32_t x = value(a, reg), y = value(b, reg), bits = allowed(b, reg);

			/* Sums over what is there are excused only where something is not. */
			if (bits == ANY && ours.head.nent == theirs.head.nent)
				bits = 0;

			EXPECT_EQ(x & ~bits, y & ~bits)
				TH_LOG("%#x.%u %s: %#x, and %#x in KVM: %#x", b->function, b->index,
				       names[reg], x, y, x ^ y);
			same += x == y;
		}
	}
	for (i = 0; i < ours.head.nent; i++) {
		EXPECT_NE(find(&theirs, &ours.entries[i]), NULL)
			TH_LOG("%#x.%u alone", ours.entries[i].function, ours.entries[i].index);
	}
	TH_LOG("%u leaves of kvm_intel, %u words the same", theirs.head.nent, same);
}

TEST_HARNESS_MAIN
