// SPDX-License-Identifier: GPL-2.0
/*
 * The host learns which pages a guest uses: page_idle asks the MMU notifiers.
 * With eptad=0 the same by entries that are made not present.
 */
#include "kselftest_harness.h"
#include "swap.h"
#include "vm.h"

#define SLOT_GPA	0x40000000UL
#define PAGES		64
#define BITMAP		"/sys/kernel/mm/page_idle/bitmap"
#define PFN(entry)	((entry) & ((1UL << 55) - 1))

FIXTURE(memory_aging) {
	struct vm vm;
	struct vcpu vcpu;
	char *mem;
	char *other;			/* a page whose loss flushes the vCPU */
	int bitmap;
};

/* Adds 1 to the first word of %rcx pages from %rbx. */
GUEST_CODE(touch_pages, 64,
	"1:	incq (%rbx)\n"
	"	addq $0x1000, %rbx\n"
	"	decq %rcx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

FIXTURE_SETUP(memory_aging)
{
	self->bitmap = open(BITMAP, O_RDWR);
	if (self->bitmap < 0)
		SKIP(return, "no " BITMAP);
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	vm_load(&self->vm, CODE_GPA, touch_pages);
	self->mem = memory_alloc((PAGES + 1) * PAGE, SZ_2M);
	self->other = self->mem + PAGES * PAGE;
	madvise(self->mem, (PAGES + 1) * PAGE, MADV_NOHUGEPAGE);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, (PAGES + 1) * PAGE, self->mem), 0);
}

FIXTURE_TEARDOWN(memory_aging)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->bitmap);
}

static void touch(struct __test_metadata *_metadata, FIXTURE_DATA(memory_aging) *self,
		  unsigned int first, unsigned int count)
{
	struct kvm_regs regs = vcpu_regs(&self->vcpu);

	regs.rip = CODE_GPA;
	regs.rbx = SLOT_GPA + first * PAGE;
	regs.rcx = count;
	vcpu_set_regs(&self->vcpu, &regs);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
}

/*
 * Makes the vCPU's processor forget all it has cached, which ageing does not:
 * a page goes that the guest has mapped.
 */
static void flush(struct __test_metadata *_metadata, FIXTURE_DATA(memory_aging) *self)
{
	touch(_metadata, self, PAGES, 1);
	ASSERT_EQ(madvise(self->other, PAGE, MADV_DONTNEED), 0);
}

/* The page's word and bit in the bitmap. */
static uint64_t word_of(FIXTURE_DATA(memory_aging) *self, unsigned int i, uint64_t *bit)
{
	uint64_t entry = pagemap(self->mem + i * PAGE);

	if (!(entry & PAGEMAP_PRESENT) || !PFN(entry))
		die("page %u has no frame", i);
	*bit = 1UL << PFN(entry) % 64;
	return PFN(entry) / 64 * 8;
}

static void mark_idle(FIXTURE_DATA(memory_aging) *self)
{
	uint64_t bit, at;
	unsigned int i;

	for (i = 0; i < PAGES; i++) {
		at = word_of(self, i, &bit);
		if (pwrite(self->bitmap, &bit, 8, at) != 8)
			die("page_idle: %s", strerror(errno));
	}
}

/* Whether the page was not used since mark_idle(). */
static bool is_idle(FIXTURE_DATA(memory_aging) *self, unsigned int i)
{
	uint64_t bit, at, word;

	at = word_of(self, i, &bit);
	if (pread(self->bitmap, &word, 8, at) != 8)
		die("page_idle: %s", strerror(errno));
	return word & bit;
}

/* Has the host put new pages on the lists that page_idle knows, without moving any. */
static void put_on_lists(void)
{
	write_file("/proc/sys/vm/drop_caches", "1");
}

/*
 * Likewise, until all are found so: page_idle passes over pages that the host looks
 * at itself just then, or has not put on its lists yet.
 */
static bool become_idle(FIXTURE_DATA(memory_aging) *self)
{
	unsigned int attempt, i;

	for (attempt = 0; attempt < 10; attempt++) {
		put_on_lists();
		mark_idle(self);
		for (i = 0; i < PAGES; i++)
			if (!is_idle(self, i))
				break;
		if (i == PAGES)
			return true;
	}
	return false;
}

TEST_F(memory_aging, used_pages_are_told)
{
	unsigned int round, i;

	touch(_metadata, self, 0, PAGES);
	for (round = 0; round < 4; round++) {
		unsigned int first = round * 16;

		ASSERT_TRUE(become_idle(self));
		flush(_metadata, self);
		touch(_metadata, self, first, 16);
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(is_idle(self, i), i < first || i >= first + 16)
				TH_LOG("page %u in round %u", i, round);
		}
	}
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(*(uint64_t *)(self->mem + i * PAGE), 2);
	}
}

/* An old page that the host takes is gone, and what was written is not. */
TEST_F(memory_aging, old_pages_go)
{
	unsigned int i;

	touch(_metadata, self, 0, PAGES);
	put_on_lists();
	mark_idle(self);
	flush(_metadata, self);
	touch(_metadata, self, 0, PAGES / 2);
	mark_idle(self);
	ASSERT_EQ(madvise(self->mem, PAGES * PAGE, MADV_DONTNEED), 0);
	touch(_metadata, self, 0, PAGES);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(*(uint64_t *)(self->mem + i * PAGE), 1);
	}
	mark_idle(self);
	if (swap_available())
		ASSERT_EQ(page_out(self->mem, PAGES * PAGE), true);
	touch(_metadata, self, 0, PAGES);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(*(uint64_t *)(self->mem + i * PAGE), 2);
	}
}

TEST_HARNESS_MAIN
