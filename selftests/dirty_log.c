// SPDX-License-Identifier: GPL-2.0
/*
 * Dirty logging: the client copies only the pages that the log names, while
 * vCPUs write at random and the memory is unmapped under them. In the end the
 * copy is the guest's memory, and the log has named what the guest says that
 * it wrote, and nothing else.
 */
#include <pthread.h>
#include <signal.h>
#include <linux/kvm_para.h>

#include "kselftest_harness.h"
#include "swap.h"
#include "vm.h"

#define SLOT_GPA	0x40000000UL
#define SLOT_PAGES	1024
#define SLOT_SIZE	(SLOT_PAGES * PAGE)
#define WORDS		(SLOT_PAGES / 64)
#define VCPUS		2
#define ROUNDS		50
#define RING_SIZE	16384UL
#define RING_ENTRIES	(RING_SIZE / sizeof(struct kvm_dirty_gfn))
#define RING_OFFSET	(KVM_DIRTY_LOG_PAGE_OFFSET * PAGE)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

/*
 * Writes its random number to a random place, for ever, and then counts the
 * write of that page at DATA_GPA. Only every fourth page is ever written. The
 * emulator has nothing interrupt a guest whose interrupts are off.
 */
GUEST_CODE(writer, 64,
	"	sti\n"
	"	movabsq $6364136223846793005, %r9\n"
	"1:	imulq %r9, %rbx\n"
	"	addq $12345, %rbx\n"
	"	movq %rbx, %rcx\n"
	"	shrq $40, %rcx\n"
	"	andl $0x3fc, %ecx\n"
	"	movq %rbx, %rdx\n"
	"	shrq $20, %rdx\n"
	"	andl $0xff8, %edx\n"
	"	movl %ecx, %eax\n"
	"	shll $12, %eax\n"
	"	movq %rbx, 0x40000000(%rax,%rdx)\n"
	"	lock incl 0x100000(,%rcx,4)\n"
	"	jmp 1b\n");

/* Writes to page %rcx, reads page %rdx. */
GUEST_CODE(one_write, 64,
	"	shlq $12, %rcx\n"
	"	shlq $12, %rdx\n"
	"	movq 0x40000000(%rdx), %rax\n"
	"	movq %rax, 0x40000000(%rcx)\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Adds %rdx to a word of each of %rcx pages. */
GUEST_CODE(all_pages, 64,
	"	movl $0x40000000, %edi\n"
	"1:	testq %rdx, %rdx\n"
	"	jz 2f\n"
	"	addq %rdx, (%rdi)\n"
	"2:	movq (%rdi), %rax\n"
	"	addl $0x1000, %edi\n"
	"	decq %rcx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Counts in a word of page 7, for ever. */
GUEST_CODE(counter, 64,
	"	sti\n"
	"1:	incq 0x40007000\n"
	"	jmp 1b\n");

/* Writes %eax to MSR %ecx. */
GUEST_CODE(write_msr, 64,
	"	xorl %edx, %edx\n"
	"	wrmsr\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Reads four bytes from a port to page %rdi. */
GUEST_CODE(string_in, 64,
	"	shlq $12, %rdi\n"
	"	addq $0x40000000, %rdi\n"
	"	movl $0x99, %edx\n"
	"	insl\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

FIXTURE(dirty_log) {
	struct vm vm;
	struct vcpu vcpus[VCPUS];
	char *mem;
	int memfd;
	uint64_t bitmap[WORDS];
	uint64_t ever[WORDS];
	struct kvm_dirty_gfn *rings[VCPUS];
	uint32_t ring_next[VCPUS];	/* the entry to be harvested next */
	uint64_t harvested[WORDS];
	unsigned int ring_full;		/* exits of vCPU 0 because of its ring */
	volatile bool stop;
	unsigned long others, changes;
	volatile unsigned long runs;	/* returns of KVM_RUN */
};

FIXTURE_VARIANT(dirty_log) {
	uint64_t manual;	/* argument of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 */
	bool huge;		/* memory in large pages, collapsed under the guest */
	bool ring;		/* the vCPUs have rings */
};

FIXTURE_VARIANT_ADD(dirty_log, get) {
};

FIXTURE_VARIANT_ADD(dirty_log, get_huge) {
	.huge = true,
};

FIXTURE_VARIANT_ADD(dirty_log, clear) {
	.manual = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
};

FIXTURE_VARIANT_ADD(dirty_log, initially_set) {
	.manual = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET,
};

FIXTURE_VARIANT_ADD(dirty_log, initially_set_huge) {
	.manual = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET,
	.huge = true,
};

FIXTURE_VARIANT_ADD(dirty_log, ring) {
	.ring = true,
};

FIXTURE_VARIANT_ADD(dirty_log, ring_huge) {
	.ring = true,
	.huge = true,
};

static void on_signal(int sig)
{
}

static int set_slot(FIXTURE_DATA(dirty_log) *self, bool log)
{
	return vm_set_slot(&self->vm, 1, log ? KVM_MEM_LOG_DIRTY_PAGES : 0, SLOT_GPA,
			   SLOT_SIZE, self->mem);
}

static int enable_cap(struct vm *vm, unsigned int cap, uint64_t arg)
{
	struct kvm_enable_cap enable = { .cap = cap, .args = { arg } };

	return try_ioctl(vm->fd, KVM_ENABLE_CAP, (unsigned long)&enable);
}

FIXTURE_SETUP(dirty_log)
{
	struct sigaction sa = { .sa_handler = on_signal };
	unsigned int i;

	sigaction(SIGUSR1, &sa, NULL);
	vm_create(&self->vm, VM_MEMORY);
	if (variant->ring)
		ASSERT_EQ(enable_cap(&self->vm, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, RING_SIZE), 0);
	for (i = 0; i < VCPUS; i++) {
		vcpu_create(&self->vcpus[i], &self->vm, i);
		vcpu_set_supported_cpuid(&self->vcpus[i]);
		vcpu_set_mode(&self->vcpus[i], MODE_LONG);
		if (!variant->ring)
			continue;
		self->rings[i] = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
				      self->vcpus[i].fd, RING_OFFSET);
		ASSERT_NE(self->rings[i], MAP_FAILED);
	}
	self->memfd = -1;
	self->mem = memory_alloc(SLOT_SIZE, SZ_2M);
	if (variant->huge) {
		write_file("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
		madvise(self->mem, SLOT_SIZE, MADV_HUGEPAGE);
	} else {
		self->memfd = memfd_create("guest", 0);
		ASSERT_EQ(ftruncate(self->memfd, SLOT_SIZE), 0);
		ASSERT_NE(mmap(self->mem, SLOT_SIZE, PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_FIXED, self->memfd, 0), MAP_FAILED);
	}
	memset(self->mem, 0x55, SLOT_SIZE);
	if (variant->manual)
		ASSERT_EQ(enable_cap(&self->vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
				     variant->manual), 0);
	ASSERT_EQ(set_slot(self, false), 0);
}

FIXTURE_TEARDOWN(dirty_log)
{
	unsigned int i;

	for (i = 0; i < VCPUS; i++) {
		if (self->rings[i])
			munmap(self->rings[i], RING_SIZE);
		vcpu_destroy(&self->vcpus[i]);
	}
	vm_destroy(&self->vm);
	munmap(self->mem, SLOT_SIZE);
	close(self->memfd);
}

/* Harvests all rings and has the pages watched again. */
static long reset_rings(FIXTURE_DATA(dirty_log) *self)
{
	unsigned int i, n = 0;

	for (i = 0; i < VCPUS; i++) {
		for (;; n++) {
			struct kvm_dirty_gfn *gfn =
				&self->rings[i][self->ring_next[i] % RING_ENTRIES];

			if (__atomic_load_n(&gfn->flags, __ATOMIC_ACQUIRE) !=
			    KVM_DIRTY_GFN_F_DIRTY)
				break;
			if (gfn->slot != 1 || gfn->offset >= SLOT_PAGES)
				die("page %llu of slot %u", gfn->offset, gfn->slot);
			self->harvested[gfn->offset / 64] |= 1UL << gfn->offset % 64;
			__atomic_store_n(&gfn->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
			self->ring_next[i]++;
		}
	}
	return try_ioctl(self->vm.fd, KVM_RESET_DIRTY_RINGS, 0) == n ? 0 : -EPROTO;
}

/* Takes the marks out of the log, as the client of the variant does. */
static long take_log(FIXTURE_DATA(dirty_log) *self, bool manual)
{
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = self->bitmap };
	struct kvm_clear_dirty_log clear = {
		.slot = 1, .num_pages = SLOT_PAGES / 2, .dirty_bitmap = self->bitmap,
	};
	long ret;

	if (self->rings[0]) {
		ret = reset_rings(self);
		memcpy(self->bitmap, self->harvested, sizeof(self->bitmap));
		memset(self->harvested, 0, sizeof(self->harvested));
		return ret;
	}
	ret = try_ioctl(self->vm.fd, KVM_GET_DIRTY_LOG, (unsigned long)&log);
	if (ret || !manual)
		return ret;
	ret = try_ioctl(self->vm.fd, KVM_CLEAR_DIRTY_LOG, (unsigned long)&clear);
	clear.first_page = SLOT_PAGES / 2;
	clear.dirty_bitmap = self->bitmap + WORDS / 2;
	return ret ?: try_ioctl(self->vm.fd, KVM_CLEAR_DIRTY_LOG, (unsigned long)&clear);
}

static bool in_bitmap(const uint64_t *bitmap, unsigned int page)
{
	return bitmap[page / 64] >> page % 64 & 1;
}

static unsigned int count_bits(const uint64_t *bitmap)
{
	unsigned int i, n = 0;

	for (i = 0; i < SLOT_PAGES; i++)
		n += in_bitmap(bitmap, i);
	return n;
}

/* Copies the pages that the log names. */
static unsigned int copy_dirty(FIXTURE_DATA(dirty_log) *self, char *copy)
{
	unsigned int i, n = 0;

	for (i = 0; i < SLOT_PAGES; i++) {
		if (!in_bitmap(self->bitmap, i))
			continue;
		memcpy(copy + i * PAGE, self->mem + i * PAGE, PAGE);
		n++;
	}
	for (i = 0; i < WORDS; i++)
		self->ever[i] |= self->bitmap[i];
	return n;
}

struct thread {
	FIXTURE_DATA(dirty_log) *self;
	struct vcpu *vcpu;
	pthread_t id;
};

static void *run_vcpu(void *arg)
{
	struct thread *thread = arg;
	int ret;

	while (!thread->self->stop) {
		ret = vcpu_run(thread->vcpu);
		thread->self->runs++;
		/* The client may have the page read-only at the moment. */
		if (ret == -EFAULT || ret == -EINTR)
			continue;
		if (!ret && thread->vcpu->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL) {
			usleep(500);
			continue;
		}
		vcpu_dump(thread->vcpu, ret);
		thread->self->others++;
		break;
	}
	return NULL;
}

/* Changes how the client maps the memory, and nothing of what is in it. */
static void *change_memory(void *arg)
{
	struct thread *thread = arg;
	FIXTURE_DATA(dirty_log) *self = thread->self;
	unsigned int n = 0, at;
	char *p;

	for (n = 0; !self->stop; n++) {
		at = n * 37 % (SLOT_PAGES - 16);
		p = self->mem + at * PAGE;
		if (self->memfd < 0) {
			if (n % 4 == 0)
				madvise(self->mem + (n & 4 ? SZ_2M : 0), SZ_2M, MADV_COLLAPSE);
		} else if (n % 3 == 0) {
			madvise(p, 16 * PAGE, MADV_DONTNEED);
		} else if (n % 3 == 1) {
			if (mmap(p, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
				 self->memfd, at * PAGE) == MAP_FAILED)
				die("mmap: %s", strerror(errno));
		}
		mprotect(p, 4 * PAGE, PROT_READ);
		mprotect(p, 4 * PAGE, PROT_READ | PROT_WRITE);
		self->changes++;
		usleep(500);
	}
	return NULL;
}

TEST_F_TIMEOUT(dirty_log, copy_follows_the_guest, 100)
{
	struct thread threads[VCPUS + 1];
	char *copy = memory_alloc(SLOT_SIZE, PAGE);
	volatile uint32_t *written = (uint32_t *)(self->vm.mem + DATA_GPA);
	unsigned int i, round, copied = 0, missed = 0, extra = 0, differ = 0;
	uint64_t first[WORDS];

	vm_load(&self->vm, CODE_GPA, writer);
	memset((void *)written, 0, SLOT_PAGES * 4);
	for (i = 0; i <= VCPUS; i++) {
		struct kvm_regs regs;

		threads[i].self = self;
		if (i == VCPUS)
			break;
		threads[i].vcpu = &self->vcpus[i];
		regs = vcpu_regs(threads[i].vcpu);
		regs.rbx = 77 + i;
		regs.rip = CODE_GPA;
		vcpu_set_regs(threads[i].vcpu, &regs);
		pthread_create(&threads[i].id, NULL, run_vcpu, &threads[i]);
	}
	pthread_create(&threads[VCPUS].id, NULL, change_memory, &threads[VCPUS]);
	usleep(20000);

	/* The log begins while the guest writes; all of it is copied once. */
	ASSERT_EQ(set_slot(self, true), 0);
	memcpy(copy, self->mem, SLOT_SIZE);
	if (variant->manual & KVM_DIRTY_LOG_INITIALLY_SET) {
		ASSERT_EQ(take_log(self, true), 0);
		EXPECT_EQ(count_bits(self->bitmap), SLOT_PAGES);
		copy_dirty(self, copy);
		memset(self->ever, 0, sizeof(self->ever));
	}
	/* What is written now is also what is counted now. */
	for (i = 0; i < SLOT_PAGES; i++)
		written[i] = 0;
	for (round = 0; round < ROUNDS; round++) {
		usleep(2000);
		ASSERT_EQ(take_log(self, variant->manual), 0);
		copied += copy_dirty(self, copy);
	}
	self->stop = true;
	for (i = 0; i <= VCPUS; i++) {
		while (pthread_tryjoin_np(threads[i].id, NULL) == EBUSY) {
			pthread_kill(threads[i].id, SIGUSR1);
			usleep(1000);
		}
	}
	ASSERT_EQ(take_log(self, variant->manual), 0);
	copied += copy_dirty(self, copy);
	memcpy(first, self->bitmap, sizeof(first));

	for (i = 0; i < SLOT_PAGES; i++) {
		missed += written[i] && !in_bitmap(self->ever, i);
		extra += i % 4 && in_bitmap(self->ever, i);
		differ += !!memcmp(copy + i * PAGE, self->mem + i * PAGE, PAGE);
	}
	TH_LOG("%u pages copied, %u of the guest, %lu changes of memory", copied,
	       count_bits(self->ever), self->changes);
	EXPECT_EQ(differ, 0);
	EXPECT_EQ(missed, 0);
	EXPECT_EQ(extra, 0);
	EXPECT_GT(copied, 0);
	EXPECT_EQ(self->others, 0);

	/* Nothing was written since. */
	ASSERT_EQ(take_log(self, variant->manual), 0);
	EXPECT_EQ(count_bits(self->bitmap), 0);
	munmap(copy, SLOT_SIZE);
}

/*
 * A write after the log was taken is in the next one, also where a CPU wrote
 * the page before and has not left its guest since. It takes two CPUs to see
 * a translation that outlives the answer.
 */
TEST_F_TIMEOUT(dirty_log, writes_after_are_in_the_next, 100)
{
	volatile uint64_t *count = (uint64_t *)(self->mem + 7 * PAGE);
	struct thread thread = { .self = self, .vcpu = &self->vcpus[0] };
	unsigned int turn, spins, missed = 0, stuck = 0;
	unsigned long runs;
	uint64_t before;

	vm_load(&self->vm, CODE_GPA, counter);
	vcpu_set_rip(thread.vcpu, CODE_GPA);
	ASSERT_EQ(set_slot(self, true), 0);
	pthread_create(&thread.id, NULL, run_vcpu, &thread);
	for (turn = 0; turn < 200; turn++) {
		ASSERT_EQ(take_log(self, variant->manual), 0);
		before = *count;
		for (spins = 0; *count == before && spins < 100000; spins++) {
			if (spins > 100)
				sched_yield();
		}
		stuck += *count == before;
		/* A processor that logs tells the ring when it leaves the guest. */
		for (runs = self->runs; variant->ring && self->runs == runs; usleep(100))
			pthread_kill(thread.id, SIGUSR1);
		ASSERT_EQ(take_log(self, variant->manual), 0);
		missed += !in_bitmap(self->bitmap, 7);
	}
	self->stop = true;
	while (pthread_tryjoin_np(thread.id, NULL) == EBUSY) {
		pthread_kill(thread.id, SIGUSR1);
		usleep(1000);
	}
	EXPECT_EQ(stuck, 0);
	EXPECT_EQ(missed, 0);
	EXPECT_EQ(self->others, 0);
}

static void run_to_done(FIXTURE_DATA(dirty_log) *self, uint64_t rcx, uint64_t rdx)
{
	struct kvm_regs regs = vcpu_regs(&self->vcpus[0]);

	regs.rip = CODE_GPA;
	regs.rcx = rcx;
	regs.rdx = rdx;
	vcpu_set_regs(&self->vcpus[0], &regs);
	while (self->rings[0]) {
		int ret = vcpu_run(&self->vcpus[0]);
		struct kvm_run *run = self->vcpus[0].run;

		if (!ret && run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_DONE)
			return;
		if (ret || run->exit_reason != KVM_EXIT_DIRTY_RING_FULL) {
			vcpu_dump(&self->vcpus[0], ret);
			die("neither done nor out of room");
		}
		/* It stays there until there is room. */
		vcpu_run_to(&self->vcpus[0], KVM_EXIT_DIRTY_RING_FULL);
		self->ring_full++;
		if (reset_rings(self))
			die("other pages reset than harvested");
	}
	vcpu_run_to_port(&self->vcpus[0], PORT_DONE);
}

/*
 * Asserts that the log names only page @page, and takes it out. KVM names
 * pages, too, that are first mapped by a read.
 */
#define expect_only(page) do {							\
	unsigned int _page = (page);						\
										\
	ASSERT_EQ(take_log(self, variant->manual), 0);				\
	if (device_is_kvm_rs())							\
		EXPECT_EQ(count_bits(self->bitmap), 1);				\
	EXPECT_TRUE(in_bitmap(self->bitmap, _page));				\
} while (0)

TEST_F(dirty_log, one_page_is_one_bit)
{
	unsigned int i, turn;

	vm_load(&self->vm, CODE_GPA, one_write);
	/* All of it mapped, in large pages if there are any. */
	for (i = 0; i < SLOT_PAGES; i += 64)
		run_to_done(self, i, i);
	for (turn = 0; turn < 2; turn++) {
		ASSERT_EQ(set_slot(self, true), 0);
		ASSERT_EQ(take_log(self, variant->manual), 0);
		EXPECT_EQ(count_bits(self->bitmap),
			  variant->manual & KVM_DIRTY_LOG_INITIALLY_SET ? SLOT_PAGES : 0);
		for (i = 5; i < SLOT_PAGES; i += 101) {
			run_to_done(self, i, i + 1);
			expect_only(i);
			/* Again, and beside another. */
			run_to_done(self, i, i);
			run_to_done(self, i, i + 2);
			expect_only(i);
		}
		ASSERT_EQ(set_slot(self, false), 0);
		run_to_done(self, 3, 4);
	}
}

/* All pages at once: more than a processor that logs has room for. */
TEST_F(dirty_log, all_pages_are_all_bits)
{
	unsigned int turn;

	vm_load(&self->vm, CODE_GPA, all_pages);
	ASSERT_EQ(set_slot(self, true), 0);
	run_to_done(self, SLOT_PAGES, 0);
	ASSERT_EQ(take_log(self, variant->manual), 0);
	for (turn = 0; turn < 3; turn++) {
		run_to_done(self, SLOT_PAGES, 1);
		ASSERT_EQ(take_log(self, variant->manual), 0);
		EXPECT_EQ(count_bits(self->bitmap), SLOT_PAGES);
		run_to_done(self, SLOT_PAGES, 0);
		ASSERT_EQ(take_log(self, variant->manual), 0);
		EXPECT_EQ(count_bits(self->bitmap), 0);
	}
	if (variant->ring)
		EXPECT_GE(self->ring_full, 3);
}

/*
 * Large pages are split when the log begins, or where it begins with all pages
 * in it when they are taken out; or else each by its first write. They come
 * back when it ends.
 */
TEST_F(dirty_log, large_pages_split_and_rejoin)
{
	static const char eager[] = "/sys/module/kvm_rs/parameters/eager_page_split";
	bool initially_set = variant->manual & KVM_DIRTY_LOG_INITIALLY_SET;
	unsigned int early;

	if (!variant->huge || !device_is_kvm_rs())
		return;
	vm_load(&self->vm, CODE_GPA, one_write);
	for (early = 0; early < 2; early++) {
		write_file(eager, early ? "Y" : "N");
		run_to_done(self, 0, SLOT_PAGES - 1);
		run_to_done(self, SLOT_PAGES - 1, 0);
		if (!early && !module_stat("ept_2m"))
			SKIP(return, "the host gives no large pages");
		ASSERT_EQ(module_stat("ept_2m"), 2);
		ASSERT_EQ(set_slot(self, true), 0);
		EXPECT_EQ(module_stat("ept_2m"), early && !initially_set ? 0 : 2);
		ASSERT_EQ(take_log(self, variant->manual), 0);
		EXPECT_EQ(module_stat("ept_2m"), early ? 0 : 2);
		run_to_done(self, 5, 6);
		EXPECT_EQ(module_stat("ept_2m"), early ? 0 : 1);
		expect_only(5);
		run_to_done(self, 600, 7);
		run_to_done(self, 601, 601);
		EXPECT_EQ(module_stat("ept_2m"), 0);
		ASSERT_EQ(take_log(self, variant->manual), 0);
		EXPECT_EQ(count_bits(self->bitmap), 2);
		ASSERT_EQ(set_slot(self, false), 0);
	}
	run_to_done(self, 0, SLOT_PAGES - 1);
	EXPECT_EQ(module_stat("ept_2m"), 2);
}

/* The kernel writes on behalf of the guest, too. */
TEST_F(dirty_log, writes_of_the_kernel)
{
	struct kvm_regs regs;

	ASSERT_EQ(set_slot(self, true), 0);
	ASSERT_EQ(take_log(self, variant->manual), 0);

	vm_load(&self->vm, CODE_GPA, write_msr);
	regs = vcpu_regs(&self->vcpus[0]);
	regs.rax = (SLOT_GPA + 17 * PAGE) | 1;
	vcpu_set_regs(&self->vcpus[0], &regs);
	run_to_done(self, MSR_KVM_SYSTEM_TIME_NEW, 0);
	expect_only(17);
	regs = vcpu_regs(&self->vcpus[0]);
	regs.rax = 0;
	vcpu_set_regs(&self->vcpus[0], &regs);
	run_to_done(self, MSR_KVM_SYSTEM_TIME_NEW, 0);

	vm_load(&self->vm, CODE_GPA, string_in);
	regs = vcpu_regs(&self->vcpus[0]);
	regs.rip = CODE_GPA;
	regs.rdi = 40;
	vcpu_set_regs(&self->vcpus[0], &regs);
	ASSERT_EQ(take_log(self, variant->manual), 0);
	vcpu_run_to(&self->vcpus[0], KVM_EXIT_IO);
	vcpu_run_to_port(&self->vcpus[0], PORT_DONE);
	expect_only(40);
}

struct errors_row {
	const char *what;
	uint32_t slot;
	uint32_t pages;
	uint64_t first;
	bool bad_bitmap;
	int error;
};

/* What a client writes to its ring is a wish, and its own trouble. */
TEST(ring_is_the_clients_to_spoil)
{
	struct kvm_dirty_gfn *ring;
	struct vm vm;
	struct vcpu vcpu;
	unsigned int i;
	char *mem = memory_alloc(64 * PAGE, PAGE);

	vm_create(&vm, VM_MEMORY);
	ASSERT_EQ(enable_cap(&vm, KVM_CAP_DIRTY_LOG_RING, RING_SIZE), 0);
	ASSERT_EQ(vm_set_slot(&vm, 1, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, 64 * PAGE, mem), 0);
	vcpu_create(&vcpu, &vm, 0);
	vcpu_set_supported_cpuid(&vcpu);
	vcpu_set_mode(&vcpu, MODE_LONG);
	ring = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.fd, RING_OFFSET);
	ASSERT_NE(ring, MAP_FAILED);
	if (device_is_kvm_rs()) {
		/* KVM takes these, and believes its ring to be full from there on. */
		memset(ring, 0xff, RING_SIZE);
		EXPECT_EQ(try_ioctl(vm.fd, KVM_RESET_DIRTY_RINGS, 0), 0);
		memset(ring, 0, RING_SIZE);
	}
	vm_load(&vm, CODE_GPA, all_pages);
	for (i = 0; i < 8; i++) {
		static const struct kvm_dirty_gfn wishes[] = {
			{ .slot = 7, .offset = 1 },
			{ .slot = 32764, .offset = 0 },
			{ .slot = 1 << 16 | 1, .offset = 0 },
			{ .slot = -1U, .offset = -1UL },
			{ .slot = 1, .offset = 64 },
			{ .slot = 1, .offset = -1UL },
			{ .slot = 0, .offset = 0 },
			{ .slot = 1, .offset = 63 },
		};
		struct kvm_regs regs = vcpu_regs(&vcpu);

		regs.rip = CODE_GPA;
		regs.rcx = 1;
		regs.rdx = 1;
		vcpu_set_regs(&vcpu, &regs);
		if (i)
			munmap(mem, PAGE), mmap(mem, PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		vcpu_run_to_port(&vcpu, PORT_DONE);
		ASSERT_EQ(ring[i].flags, KVM_DIRTY_GFN_F_DIRTY);
		EXPECT_EQ(ring[i].slot, 1);
		EXPECT_EQ(ring[i].offset, 0);
		ring[i] = wishes[i];
		ring[i].flags = KVM_DIRTY_GFN_F_RESET;
		EXPECT_EQ(try_ioctl(vm.fd, KVM_RESET_DIRTY_RINGS, 0), 1);
	}
	munmap(ring, RING_SIZE);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

GUEST_CODE(many_in, 64,
	"	movl $0x40000000, %edi\n"
	"	movl $1000, %ecx\n"
	"	cld\n"
	"	rep insb\n"
	"	outb %al, $" STR(PORT_DONE) "\n");
GUEST_CODE(many_from_a_device, 64,
	"	movl $0x40000000, %edi\n"
	"	movl $0xc0000000, %esi\n"
	"	movl $3000, %ecx\n"
	"	cld\n"
	"	rep movsb\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/*
 * String instructions that are executed for the guest: a page has an entry for all of
 * what the client gave at once, and a ring that fills meanwhile stops the vCPU.
 */
TEST(rings_and_strings)
{
	struct kvm_dirty_gfn *ring;
	struct vcpu vcpu;
	struct vm vm;
	unsigned int next = 0, full = 0, reads = 0, i;
	unsigned char *mem = memory_alloc(4 * PAGE, PAGE);

	vm_create(&vm, VM_MEMORY);
	ASSERT_EQ(enable_cap(&vm, KVM_CAP_DIRTY_LOG_RING, RING_SIZE), 0);
	ASSERT_EQ(vm_set_slot(&vm, 1, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, 4 * PAGE, mem), 0);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	ring = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.fd, RING_OFFSET);
	ASSERT_NE(ring, MAP_FAILED);

	vm_load(&vm, CODE_GPA, many_in);
	vcpu_run_to(&vcpu, KVM_EXIT_IO);
	ASSERT_EQ(vcpu.run->io.count, 1000);
	memset(vcpu_io_data(&vcpu), 0x77, 1000);
	vcpu_run_to_port(&vcpu, PORT_DONE);
	vcpu_complete(&vcpu);
	for (i = 0; i < 4 * PAGE; i++) {
		ASSERT_EQ(mem[i], i < 1000 ? 0x77 : 0);
	}
	EXPECT_EQ(ring[0].flags, KVM_DIRTY_GFN_F_DIRTY);
	EXPECT_EQ(ring[1].flags, 0);

	vm_load(&vm, CODE_GPA, many_from_a_device);
	vcpu_set_rip(&vcpu, CODE_GPA);
	for (;;) {
		ASSERT_EQ(vcpu_run(&vcpu), 0);
		if (vcpu.run->exit_reason == KVM_EXIT_MMIO) {
			ASSERT_EQ(vcpu.run->mmio.is_write, 0);
			vcpu.run->mmio.data[0] = 1 + reads++ % 255;
		} else if (vcpu.run->exit_reason == KVM_EXIT_DIRTY_RING_FULL) {
			full++;
			while (ring[next % RING_ENTRIES].flags == KVM_DIRTY_GFN_F_DIRTY)
				ring[next++ % RING_ENTRIES].flags = KVM_DIRTY_GFN_F_RESET;
			ASSERT_GT(xioctl(vm.fd, KVM_RESET_DIRTY_RINGS, 0), 0);
		} else {
			break;
		}
	}
	ASSERT_EQ(vcpu.run->exit_reason, KVM_EXIT_IO);
	EXPECT_EQ(vcpu.run->io.port, PORT_DONE);
	/* Each byte that came from the device is there. */
	for (i = 0; i < 3000; i++) {
		ASSERT_EQ(mem[i], 1 + i % 255);
	}
	EXPECT_GT(full, 0);
	munmap(ring, RING_SIZE);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/*
 * A slot that begins to log as it is moved, is moved as it logs, and ceases to log as it
 * is moved: its log goes with it, and another's is not touched.
 */
TEST(moved)
{
	static const unsigned int pages = 64;
	struct kvm_dirty_log log = { .slot = 1 };
	unsigned char *mem = memory_alloc(pages * PAGE, PAGE);
	unsigned char *other = memory_alloc(PAGE, PAGE);
	struct kvm_regs regs;
	struct vcpu vcpu;
	uint64_t bits;
	struct vm vm;

	log.dirty_bitmap = &bits;
	vm_create(&vm, VM_MEMORY);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	vm_load(&vm, CODE_GPA, all_pages);
	regs = vcpu_regs(&vcpu);
#define WALK(n, add)							\
	do {								\
		regs.rip = CODE_GPA;					\
		regs.rcx = n;						\
		regs.rdx = add;						\
		vcpu_set_regs(&vcpu, &regs);				\
		vcpu_run_to_port(&vcpu, PORT_DONE);			\
		vcpu_complete(&vcpu);					\
	} while (0)
#define MOVE(flags, gpa)						\
	ASSERT_EQ(vm_set_slot(&vm, 1, flags, gpa, pages * PAGE, mem), 0)
	for (unsigned int turn = 0; turn < 2; turn++) {
		MOVE(0, SLOT_GPA + SZ_2M);
		MOVE(KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA);
		/* Read first: whether the write is noticed is up to the processor then. */
		WALK(pages, 0);
		WALK(pages, 1);
		xioctl(vm.fd, KVM_GET_DIRTY_LOG, &log);
		EXPECT_EQ(bits, ~0UL);
		WALK(5, 1);
		MOVE(KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA + SZ_2M);
		xioctl(vm.fd, KVM_GET_DIRTY_LOG, &log);
		EXPECT_EQ(bits, 0x1f);
		/* One more that logs, at the place where the first was; the first ceases to. */
		ASSERT_EQ(vm_set_slot(&vm, 2, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, PAGE, other), 0);
		MOVE(0, SLOT_GPA + 2 * SZ_2M);
		WALK(1, 0);
		WALK(1, 1);
		log.slot = 2;
		bits = 0;
		xioctl(vm.fd, KVM_GET_DIRTY_LOG, &log);
		EXPECT_EQ(bits, 1);
		log.slot = 1;
		ASSERT_EQ(vm_set_slot(&vm, 2, 0, SLOT_GPA, 0, other), 0);
	}
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST(errors_of_rings)
{
	static const struct {
		uint64_t size;
		int error;
	} rows[] = {
		{ 0, EINVAL }, { 1, EINVAL }, { 2048, EINVAL }, { 3 * 16384, EINVAL },
		{ 16384 + 1, EINVAL }, { 1UL << 32, EINVAL }, { 1 << 21, E2BIG },
		{ 1U << 31, E2BIG }, { 1UL << 32 | RING_SIZE, 0 }, { RING_SIZE, EINVAL },
		{ 1 << 21, E2BIG },
	};
	struct kvm_clear_dirty_log clear = { .slot = 99, .first_page = 1 };
	struct kvm_dirty_log log = { .slot = 99 };
	struct vm vm;
	struct vcpu vcpu;
	unsigned int i;
	void *mem = memory_alloc(16 * PAGE, PAGE);

	vm_create_empty(&vm);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING), 1 << 20);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING_ACQ_REL), 1 << 20);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP), 0);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_RESET_DIRTY_RINGS, 0), -EINVAL);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_GET_DIRTY_LOG, (unsigned long)&log), -ENOENT);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		EXPECT_EQ(enable_cap(&vm, KVM_CAP_DIRTY_LOG_RING, rows[i].size), -rows[i].error)
			TH_LOG("%lx", rows[i].size);
	}
	EXPECT_EQ(enable_cap(&vm, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, 0), -EINVAL);
	ASSERT_EQ(vm_set_slot(&vm, 1, KVM_MEM_LOG_DIRTY_PAGES, 0, 16 * PAGE, mem), 0);
	/* Before anything else is looked at. */
	EXPECT_EQ(try_ioctl(vm.fd, KVM_GET_DIRTY_LOG, (unsigned long)&log), -ENXIO);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_CLEAR_DIRTY_LOG, (unsigned long)&clear), -ENXIO);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_RESET_DIRTY_RINGS, 0), 0);

	vcpu_create(&vcpu, &vm, 0);
	EXPECT_EQ(mmap(NULL, RING_SIZE, PROT_READ, MAP_PRIVATE, vcpu.fd, RING_OFFSET), MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);
	EXPECT_EQ(mmap(NULL, RING_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, vcpu.fd, RING_OFFSET),
		  MAP_FAILED);
	/* Only the last page is one of the ring. */
	EXPECT_EQ(mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, vcpu.fd, RING_OFFSET - PAGE),
		  MAP_FAILED);
	mem = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, vcpu.fd, 0);
	EXPECT_NE(mem, MAP_FAILED);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);

	/* Too late. */
	vm_create_empty(&vm);
	vcpu_create(&vcpu, &vm, 0);
	EXPECT_EQ(enable_cap(&vm, KVM_CAP_DIRTY_LOG_RING, RING_SIZE), -EINVAL);
	EXPECT_EQ(mmap(NULL, RING_SIZE, PROT_READ, MAP_PRIVATE, vcpu.fd, 0) == MAP_FAILED, 0);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST(errors_of_get)
{
	static const struct errors_row rows[] = {
		{ "no such slot", 7, .error = ENOENT },
		{ "a slot that does not log", 0, .error = ENOENT },
		{ "last slot", 32763, .error = ENOENT },
		{ "past the last slot", 32764, .error = EINVAL },
		{ "largest number", 0xffff, .error = EINVAL },
		{ "no such address space", 2 << 16 | 1, .error = EINVAL },
		{ "bad bitmap", 1, .bad_bitmap = true, .error = EFAULT },
		{ "good", 1 },
	};
	uint64_t bitmap[2];
	struct vm vm;
	unsigned int i;
	char *mem = memory_alloc(65 * PAGE, PAGE);

	vm_create(&vm, VM_MEMORY);
	ASSERT_EQ(vm_set_slot(&vm, 1, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, 65 * PAGE, mem), 0);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		struct kvm_dirty_log log = {
			.slot = rows[i].slot,
			.dirty_bitmap = rows[i].bad_bitmap ? (void *)8 : bitmap,
		};

		EXPECT_EQ(try_ioctl(vm.fd, KVM_GET_DIRTY_LOG, (unsigned long)&log),
			  -rows[i].error)
			TH_LOG("%s", rows[i].what);
	}
	vm_destroy(&vm);
}

TEST(errors_of_clear)
{
	static const struct errors_row rows[] = {
		{ "no such slot", 7, 64, .error = ENOENT },
		{ "no such slot, odd start", 7, 64, 1, .error = EINVAL },
		{ "a slot that does not log", 0, 64, .error = ENOENT },
		{ "past the last slot", 32764, 64, .error = EINVAL },
		{ "no such address space", 2 << 16 | 1, 64, .error = EINVAL },
		{ "odd start", 1, 64, 32, .error = EINVAL },
		{ "odd end", 1, 63, .error = EINVAL },
		{ "past the end", 1, 128, .error = EINVAL },
		{ "starts past the end", 1, 64, 128, .error = EINVAL },
		{ "wraps", 1, 64, -64UL, .error = EINVAL },
		{ "bad bitmap", 1, 65, .bad_bitmap = true, .error = EFAULT },
		{ "bad bitmap, nothing", 1, 0, .bad_bitmap = true },
		{ "good", 1, 64 },
		{ "good, the rest", 1, 1, 64 },
		{ "good, all", 1, 65 },
	};
	uint64_t bitmap[2] = { -1UL, -1UL };
	struct vm vm;
	unsigned int i;
	char *mem = memory_alloc(65 * PAGE, PAGE);

	vm_create(&vm, VM_MEMORY);
	ASSERT_EQ(vm_set_slot(&vm, 1, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, 65 * PAGE, mem), 0);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		struct kvm_clear_dirty_log clear = {
			.slot = rows[i].slot,
			.num_pages = rows[i].pages,
			.first_page = rows[i].first,
			.dirty_bitmap = rows[i].bad_bitmap ? (void *)8 : bitmap,
		};

		EXPECT_EQ(try_ioctl(vm.fd, KVM_CLEAR_DIRTY_LOG, (unsigned long)&clear),
			  -rows[i].error)
			TH_LOG("%s", rows[i].what);
	}
	vm_destroy(&vm);
}

TEST(errors_of_enable)
{
	static const struct {
		uint64_t arg;
		int error;
	} rows[] = {
		{ 4, EINVAL }, { 2, EINVAL }, { 1UL << 32, EINVAL }, { 7, EINVAL },
		{ 1, 0 }, { 3, 0 }, { 0, 0 },
	};
	struct vm vm;
	unsigned int i;

	vm_create_empty(&vm);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2), 3);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		EXPECT_EQ(enable_cap(&vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, rows[i].arg),
			  -rows[i].error);
	}
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
