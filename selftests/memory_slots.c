// SPDX-License-Identifier: GPL-2.0
/*
 * Thousands of slots, created, moved and deleted at random, which share memory
 * of the client and take it from all over: each call's answer, and what the
 * guest then finds at random addresses, is held against a plain model. The
 * client's pages are replaced meanwhile, under whatever slots they are in.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define SLOT_GPA	0x40000000UL
#define FRAMES		(1U << 16)	/* of guest memory for slots to be in */
#define HOST_PAGES	512
#define SLOTS		3000
#define MAX_PAGES	24
#define NO_SLOT		0xffff
#define PROBES		24
#define EVERY		16		/* of all slot numbers */
#define MMIO_DATA	0x5a5a5a5a5a5a5a5aUL

struct slot {
	unsigned int frame, pages, host;
	bool ro;
};

FIXTURE(memory_slots) {
	struct vm vm;
	struct vcpu vcpu;
	char *mem;
	uint64_t value[HOST_PAGES];	/* word 0 of each of the client's pages */
	uint64_t last_value;
	struct slot slots[SLOTS];	/* pages is 0 where there is none */
	uint16_t owner[FRAMES];
	uint64_t seed;
	unsigned int there;
};

/* Reads %rcx addresses from the list at %rbx, and puts what it finds there. */
GUEST_CODE(read_list, 64,
	"1:	movq (%rbx), %rax\n"
	"	movq (%rax), %rax\n"
	"	movq %rax, (%rbx)\n"
	"	addq $8, %rbx\n"
	"	decq %rcx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Writes the complement of what is there to word 1 at %rbx. */
GUEST_CODE(write_one, 64,
	"	movq (%rbx), %rax\n"
	"	notq %rax\n"
	"	movq %rax, 8(%rbx)\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static unsigned int pick(FIXTURE_DATA(memory_slots) *self, unsigned int below)
{
	self->seed = self->seed * 6364136223846793005UL + 1442695040888963407UL;
	return (self->seed >> 33) % below;
}

static volatile uint64_t *host(FIXTURE_DATA(memory_slots) *self, unsigned int page)
{
	return (uint64_t *)(self->mem + page * PAGE);
}

FIXTURE_SETUP(memory_slots)
{
	unsigned int i;

	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	self->mem = memory_alloc(HOST_PAGES * PAGE, SZ_2M);
	madvise(self->mem, HOST_PAGES * PAGE, MADV_NOHUGEPAGE);
	for (i = 0; i < HOST_PAGES; i++)
		self->value[i] = *host(self, i) = ++self->last_value;
	memset(self->slots, 0, sizeof(self->slots));
	memset(self->owner, 0xff, sizeof(self->owner));
	self->seed = 20231114;
	self->there = 0;
}

FIXTURE_TEARDOWN(memory_slots)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	munmap(self->mem, HOST_PAGES * PAGE);
}

/* The library's memory is slot 0. */
static int set(FIXTURE_DATA(memory_slots) *self, unsigned int i, const struct slot *to)
{
	return vm_set_slot(&self->vm, i + 1, to->ro ? KVM_MEM_READONLY : 0,
			   SLOT_GPA + to->frame * PAGE, to->pages * PAGE,
			   self->mem + to->host * PAGE);
}

static void own(FIXTURE_DATA(memory_slots) *self, unsigned int i, uint16_t owner)
{
	struct slot *slot = &self->slots[i];
	unsigned int k;

	for (k = 0; k < slot->pages; k++)
		self->owner[slot->frame + k] = owner;
}

/* What the call has to answer. */
static int answer(FIXTURE_DATA(memory_slots) *self, unsigned int i, const struct slot *to)
{
	const struct slot *slot = &self->slots[i];
	unsigned int k;

	if (!to->pages)
		return slot->pages ? 0 : -EINVAL;
	if (slot->pages && (slot->pages != to->pages || slot->host != to->host ||
			    slot->ro != to->ro))
		return -EINVAL;
	for (k = 0; k < to->pages; k++)
		if (self->owner[to->frame + k] != NO_SLOT &&
		    self->owner[to->frame + k] != i)
			return -EEXIST;
	return 0;
}

static void change(struct __test_metadata *_metadata, FIXTURE_DATA(memory_slots) *self,
		   unsigned int i, const struct slot *to)
{
	int expected = answer(self, i, to);

	ASSERT_EQ(set(self, i, to), expected)
		TH_LOG("slot %u to %u pages at frame %#x", i, to->pages, to->frame);
	if (expected)
		return;
	self->there += !!to->pages - !!self->slots[i].pages;
	own(self, i, NO_SLOT);
	self->slots[i] = *to;
	own(self, i, i);
}

/* A change of a random slot; most make sense. */
static void random_change(struct __test_metadata *_metadata,
			  FIXTURE_DATA(memory_slots) *self, bool grow)
{
	unsigned int i = pick(self, SLOTS);
	struct slot to = self->slots[i];

	if (!to.pages) {
		if (!grow && pick(self, 4))
			return;
		to.pages = 1 + pick(self, MAX_PAGES);
		to.host = pick(self, HOST_PAGES - to.pages);
		to.ro = !pick(self, 8);
		to.frame = pick(self, FRAMES - to.pages);
	} else {
		switch (pick(self, grow ? 8 : 3)) {
		case 0:
			to.pages = 0;
			break;
		case 1:		/* a little, over itself */
			to.frame = (to.frame + pick(self, 9)) % (FRAMES - MAX_PAGES);
			break;
		case 3:
			to.ro = !to.ro;
			break;
		case 4:
			to.host = pick(self, HOST_PAGES - MAX_PAGES);
			break;
		case 5:
			to.pages = 1 + pick(self, MAX_PAGES);
			to.frame = pick(self, FRAMES - MAX_PAGES);
			break;
		default:
			to.frame = pick(self, FRAMES - MAX_PAGES);
		}
	}
	change(_metadata, self, i, &to);
}

/* Replaces the client's @pages pages from @first by new ones. */
static void replace(FIXTURE_DATA(memory_slots) *self, unsigned int first, unsigned int pages)
{
	char *at = self->mem + first * PAGE;
	unsigned int i;

	if (mmap(at, pages * PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
		die("mmap: %s", strerror(errno));
	for (i = first; i < first + pages; i++)
		self->value[i] = *host(self, i) = ++self->last_value;
}

/* A frame that most often is in a slot. */
static unsigned int random_frame(FIXTURE_DATA(memory_slots) *self)
{
	const struct slot *slot = &self->slots[pick(self, SLOTS)];

	if (!slot->pages || !pick(self, 4))
		return pick(self, FRAMES);
	/* One past the end now and then. */
	return (slot->frame + pick(self, slot->pages + 1)) % FRAMES;
}

static uint64_t expected(FIXTURE_DATA(memory_slots) *self, unsigned int frame)
{
	const struct slot *slot;

	if (self->owner[frame] == NO_SLOT)
		return MMIO_DATA;
	slot = &self->slots[self->owner[frame]];
	return self->value[slot->host + frame - slot->frame];
}

static void start(FIXTURE_DATA(memory_slots) *self, uint64_t rbx, uint64_t rcx)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2, .rbx = rbx, .rcx = rcx,
	};

	vcpu_set_regs(&self->vcpu, &regs);
}

/* Lets the guest read at random, and answers for what is not there. */
static void probe(struct __test_metadata *_metadata, FIXTURE_DATA(memory_slots) *self)
{
	volatile uint64_t *list = vm_u64(&self->vm, DATA_GPA);
	struct kvm_run *run = self->vcpu.run;
	unsigned int frames[PROBES], i;
	uint64_t data = MMIO_DATA;

	vm_load(&self->vm, CODE_GPA, read_list);
	for (i = 0; i < PROBES; i++) {
		frames[i] = random_frame(self);
		list[i] = SLOT_GPA + frames[i] * PAGE;
	}
	start(self, DATA_GPA, PROBES);
	for (;;) {
		ASSERT_EQ(vcpu_run(&self->vcpu), 0);
		if (run->exit_reason != KVM_EXIT_MMIO)
			break;
		i = (run->mmio.phys_addr - SLOT_GPA) / PAGE;
		ASSERT_EQ(run->mmio.is_write, 0);
		ASSERT_LT(i, FRAMES);
		ASSERT_EQ(self->owner[i], NO_SLOT);
		memcpy(run->mmio.data, &data, sizeof(data));
	}
	ASSERT_EQ(run->exit_reason, KVM_EXIT_IO);
	for (i = 0; i < PROBES; i++) {
		ASSERT_EQ(list[i], expected(self, frames[i])) TH_LOG("frame %#x", frames[i]);
	}
}

/* Lets the guest write to one of its frames. */
static void probe_write(struct __test_metadata *_metadata, FIXTURE_DATA(memory_slots) *self)
{
	struct kvm_run *run = self->vcpu.run;
	unsigned int frame = random_frame(self), page;
	const struct slot *slot;

	if (self->owner[frame] == NO_SLOT)
		return;
	slot = &self->slots[self->owner[frame]];
	page = slot->host + frame - slot->frame;
	host(self, page)[1] = 0;
	vm_load(&self->vm, CODE_GPA, write_one);
	start(self, SLOT_GPA + frame * PAGE, 0);
	if (slot->ro) {
		vcpu_run_to(&self->vcpu, KVM_EXIT_MMIO);
		ASSERT_EQ(run->mmio.is_write, 1);
		ASSERT_EQ(run->mmio.phys_addr, SLOT_GPA + frame * PAGE + 8);
	}
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	ASSERT_EQ(host(self, page)[1], slot->ro ? 0 : ~self->value[page]);
}

TEST_F(memory_slots, random_changes)
{
	unsigned int round, i, pages, most = 0;

	for (round = 0; round < 120; round++) {
		for (i = 0; i < 60; i++)
			random_change(_metadata, self, round < 90);
		pages = 1 + pick(self, 8);
		replace(self, pick(self, HOST_PAGES - pages), pages);
		probe(_metadata, self);
		probe_write(_metadata, self);
		if (self->there > most)
			most = self->there;
	}
	TH_LOG("%u slots at most, %u at the end", most, self->there);
	EXPECT_GT(most, 1000);
}

/* One page of the client in many slots, with numbers from all over. */
TEST_F(memory_slots, one_page_in_all)
{
	int count = xioctl(self->vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
	volatile uint64_t *list = vm_u64(&self->vm, DATA_GPA);
	int i, step = 7919;

	for (i = 1; i < count; i += EVERY) {
		unsigned int id = (unsigned long)(i / EVERY) * step % (count / EVERY) * EVERY + 1;

		ASSERT_EQ(vm_set_slot(&self->vm, id, 0, SLOT_GPA + id * PAGE, PAGE,
				      self->mem), 0) TH_LOG("slot %u", id);
	}
	ASSERT_EQ(vm_set_slot(&self->vm, count, 0, SLOT_GPA, PAGE, self->mem), -EINVAL);
	vm_load(&self->vm, CODE_GPA, read_list);
	for (i = 1; i < count; i += EVERY * 40) {
		list[0] = SLOT_GPA + i * PAGE;
		/* Each of the slots must lose the page. */
		if (i % 3 == 0)
			replace(self, 0, 1);
		start(self, DATA_GPA, 1);
		vcpu_run_to_port(&self->vcpu, PORT_DONE);
		ASSERT_EQ(list[0], self->value[0]);
	}
	madvise(self->mem, PAGE, MADV_DONTNEED);
	for (i = 1; i < count; i += EVERY * 40) {
		list[0] = SLOT_GPA + i * PAGE;
		start(self, DATA_GPA, 1);
		vcpu_run_to_port(&self->vcpu, PORT_DONE);
		ASSERT_EQ(list[0], 0);
	}
}

TEST_HARNESS_MAIN
