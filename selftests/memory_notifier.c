// SPDX-License-Identifier: GPL-2.0
/*
 * A guest's memory is its client's memory: whatever happens to the client's
 * mapping while a guest has the page mapped is what the guest sees from then
 * on. Small pages here; memory_huge has the large ones.
 */
#include <sys/socket.h>

#include "kselftest_harness.h"
#include "swap.h"
#include "vm.h"

#define SLOT_GPA	0x40000000UL
#define PAGES		16

FIXTURE(memory_notifier) {
	struct vm vm;
	struct vcpu vcpu;
	volatile uint64_t *mem;		/* the page the guest works on */
	uint64_t count;			/* what the guest has written last */
};

/* Reads word 0, writes a counter to word 1, reports, for ever. */
GUEST_CODE(read_and_count, 64,
	"1:	movq (%rbx), %rax\n"
	"	incq %rdx\n"
	"	movq %rdx, 8(%rbx)\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");

static void start(FIXTURE_DATA(memory_notifier) *self, void *mem)
{
	struct kvm_regs regs;
	int ret;

	self->mem = mem;
	ret = vm_set_slot(&self->vm, 1, 0, SLOT_GPA, PAGES * PAGE, mem);
	if (ret)
		die("slot: %s", strerror(-ret));
	vm_load(&self->vm, CODE_GPA, read_and_count);
	regs = vcpu_regs(&self->vcpu);
	regs.rbx = SLOT_GPA;
	regs.rdx = 0;
	vcpu_set_regs(&self->vcpu, &regs);
}

FIXTURE_SETUP(memory_notifier)
{
	void *mem = memory_alloc(PAGES * PAGE, SZ_2M);

	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	madvise(mem, PAGES * PAGE, MADV_NOHUGEPAGE);
	start(self, mem);
	self->mem[0] = 0x1111;
}

FIXTURE_TEARDOWN(memory_notifier)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

/* One turn of the guest; returns what it read. Its write must have come. */
#define step(self)	__step(_metadata, self, __LINE__)
static uint64_t __step(struct __test_metadata *_metadata,
		       FIXTURE_DATA(memory_notifier) *self, int line)
{
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	self->count++;
	EXPECT_EQ(self->mem[1], self->count) TH_LOG("step at line %d", line);
	return vcpu_regs(&self->vcpu).rax;
}

static void *map_at(volatile void *p, int flags, int fd)
{
	void *ret = mmap((void *)p, PAGES * PAGE, PROT_READ | PROT_WRITE,
			 flags | MAP_FIXED, fd, 0);

	if (ret != p)
		die("mmap: %s", strerror(errno));
	return ret;
}

/* The client's writes to a mapped page, as a base for the rest. */
TEST_F(memory_notifier, plain_writes)
{
	unsigned int i;

	for (i = 0; i < 10; i++) {
		self->mem[0] = i * 3;
		EXPECT_EQ(step(self), i * 3);
	}
}

TEST_F(memory_notifier, munmap_and_mmap_anew)
{
	unsigned int i;

	for (i = 0; i < 10; i++) {
		EXPECT_EQ(step(self), self->mem[0]);
		ASSERT_EQ(munmap((void *)self->mem, PAGES * PAGE), 0);
		ASSERT_EQ(vcpu_run(&self->vcpu), -EFAULT);
		map_at(self->mem, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		if (i & 1)
			self->mem[0] = 0x2222 + i;
		EXPECT_EQ(step(self), i & 1 ? 0x2222 + i : 0);
		/* Replaced in one go, never unmapped. */
		map_at(self->mem, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		self->mem[0] = 0x3333 + i;
		EXPECT_EQ(step(self), 0x3333 + i);
	}
}

TEST_F(memory_notifier, mprotect)
{
	unsigned int i;

	for (i = 0; i < 3; i++) {
		EXPECT_EQ(step(self), 0x1111);
		ASSERT_EQ(mprotect((void *)self->mem, PAGES * PAGE, PROT_READ), 0);
		/* Reads go through, the write does not, however often. */
		ASSERT_EQ(vcpu_run(&self->vcpu), -EFAULT);
		EXPECT_EQ(vcpu_fault_is_at(&self->vcpu, SLOT_GPA), true);
		ASSERT_EQ(vcpu_run(&self->vcpu), -EFAULT);
		EXPECT_EQ(vcpu_regs(&self->vcpu).rdx, self->count + 1);
		EXPECT_EQ(self->mem[1], self->count);
		ASSERT_EQ(mprotect((void *)self->mem, PAGES * PAGE,
				   PROT_READ | PROT_WRITE), 0);
		EXPECT_EQ(step(self), 0x1111);

		ASSERT_EQ(mprotect((void *)self->mem, PAGES * PAGE, PROT_NONE), 0);
		ASSERT_EQ(vcpu_run(&self->vcpu), -EFAULT);
		ASSERT_EQ(mprotect((void *)self->mem, PAGES * PAGE,
				   PROT_READ | PROT_WRITE), 0);
		EXPECT_EQ(step(self), 0x1111);
	}
}

TEST_F(memory_notifier, dontneed)
{
	unsigned int i;

	for (i = 0; i < 10; i++) {
		self->mem[0] = 0x4444 + i;
		EXPECT_EQ(step(self), 0x4444 + i);
		ASSERT_EQ(madvise((void *)self->mem, PAGE, MADV_DONTNEED), 0);
		EXPECT_EQ(step(self), 0);
	}
}

/*
 * After a fork the guest, the parent's, goes on with the parent's copy, and
 * what it writes does not reach the child.
 */
TEST_F(memory_notifier, fork_and_write)
{
	uint64_t seen[2];
	int pair[2], status;
	pid_t child;
	char c;

	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	EXPECT_EQ(step(self), 0x1111);
	child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		/* Wait for the guest's write, then look and write. */
		if (read(pair[1], &c, 1) != 1)
			_exit(1);
		seen[0] = self->mem[0];
		seen[1] = self->mem[1];
		self->mem[0] = 0xc411d;
		self->mem[1] = 0xc411d;
		if (write(pair[1], seen, sizeof(seen)) != sizeof(seen))
			_exit(1);
		if (read(pair[1], &c, 1) != 1)
			_exit(1);
		/* The parent's later write is not seen either. */
		_exit(self->mem[0] != 0xc411d || self->mem[1] != 0xc411d);
	}
	EXPECT_EQ(step(self), 0x1111);
	ASSERT_EQ(write(pair[0], "x", 1), 1);
	ASSERT_EQ(read(pair[0], seen, sizeof(seen)), sizeof(seen));
	EXPECT_EQ(seen[0], 0x1111);
	EXPECT_EQ(seen[1], 1);		/* the count before the fork */
	EXPECT_EQ(step(self), 0x1111);
	self->mem[0] = 0x5555;
	EXPECT_EQ(step(self), 0x5555);
	ASSERT_EQ(write(pair[0], "x", 1), 1);
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
	self->mem[0] = 0x6666;
	EXPECT_EQ(step(self), 0x6666);
}

/* The other order: the parent breaks the sharing, with the page mapped. */
TEST_F(memory_notifier, fork_and_write_by_client)
{
	int status, pair[2];
	pid_t child;
	char c;

	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	EXPECT_EQ(step(self), 0x1111);
	child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		/* Keeps the old page alive, so that the parent must copy. */
		if (read(pair[1], &c, 1) != 1)
			_exit(1);
		_exit(self->mem[0] != 0x1111 || self->mem[1] != 1);
	}
	self->mem[0] = 0x7777;
	EXPECT_EQ(step(self), 0x7777);
	ASSERT_EQ(write(pair[0], "x", 1), 1);
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
}

/*
 * A page that nobody has written: the guest's read finds zeroes, the client's
 * write then is seen, and the guest's write does not go into the page of
 * zeroes that others read.
 */
TEST_F(memory_notifier, zero_page)
{
	struct kvm_regs regs = vcpu_regs(&self->vcpu);
	unsigned int i;

	for (i = 1; i < 8; i++) {
		volatile uint64_t *page = self->mem + i * PAGE / 8;

		regs = vcpu_regs(&self->vcpu);
		regs.rip = CODE_GPA;
		regs.rbx = SLOT_GPA + i * PAGE;
		regs.rdx = 0x1000;
		vcpu_set_regs(&self->vcpu, &regs);
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		EXPECT_EQ(vcpu_regs(&self->vcpu).rax, 0);
		EXPECT_EQ(page[1], 0x1001);
		page[0] = 0x8888;
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		EXPECT_EQ(vcpu_regs(&self->vcpu).rax, 0x8888);
	}
	for (; i < PAGES; i++) {
		EXPECT_EQ(self->mem[i * PAGE / 8 + 1], 0);
	}
}

/* The guest only reads, then the client writes: the page of zeroes goes. */
GUEST_CODE(only_read, 64,
	"1:	movq (%rbx), %rax\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");

TEST_F(memory_notifier, zero_page_only_read)
{
	volatile uint64_t *page = self->mem + 9 * PAGE / 8;
	struct kvm_regs regs = vcpu_regs(&self->vcpu);

	vm_load(&self->vm, CODE_GPA, only_read);
	regs.rbx = SLOT_GPA + 9 * PAGE;
	vcpu_set_regs(&self->vcpu, &regs);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rax, 0);
	page[0] = 0x9999;
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rax, 0x9999);
}

TEST_F(memory_notifier, pageout)
{
	unsigned int i;

	if (!swap_available())
		SKIP(return, "no swap, zram or ram disk");
	for (i = 0; i < 5; i++) {
		/* The guest's write is the last: it must mark the page dirty. */
		self->mem[0] = 0xaaaa + i;
		EXPECT_EQ(step(self), 0xaaaa + i);
		ASSERT_EQ(page_out((void *)self->mem, PAGE), true);
		/* In from swap by the guest's access, and both words are there. */
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		self->count++;
		EXPECT_EQ(vcpu_regs(&self->vcpu).rax, 0xaaaa + i);
		EXPECT_EQ(self->mem[1], self->count);
		/* Out again, in by the client. */
		ASSERT_EQ(page_out((void *)self->mem, PAGE), true);
		EXPECT_EQ(self->mem[1], self->count);
		EXPECT_EQ(self->mem[0], 0xaaaa + i);
		self->mem[0] = 0xbbbb + i;
		EXPECT_EQ(step(self), 0xbbbb + i);
	}
}

TEST_F(memory_notifier, mremap)
{
	volatile uint64_t *old = self->mem, *new;

	EXPECT_EQ(step(self), 0x1111);
	new = memory_alloc(PAGES * PAGE, SZ_2M);
	new = mremap((void *)old, PAGES * PAGE, PAGES * PAGE,
		     MREMAP_MAYMOVE | MREMAP_FIXED, new);
	ASSERT_NE(new, MAP_FAILED);
	ASSERT_EQ(vcpu_run(&self->vcpu), -EFAULT);
	EXPECT_EQ(new[0], 0x1111);
	EXPECT_EQ(new[1], 1);
	/* Something else comes to lie where the slot points. */
	map_at(old, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	old[0] = 0x2222;
	EXPECT_EQ(step(self), 0x2222);
	EXPECT_EQ(new[1], 1);
	/* And the first page moves back over it. */
	new = mremap((void *)new, PAGES * PAGE, PAGES * PAGE,
		     MREMAP_MAYMOVE | MREMAP_FIXED, old);
	ASSERT_EQ(new, old);
	EXPECT_EQ(step(self), 0x1111);
}

TEST_F(memory_notifier, shared_file)
{
	uint64_t value = 0x123123;
	volatile uint64_t *other;
	int fd = memfd_create("guest", 0);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(ftruncate(fd, PAGES * PAGE), 0);
	other = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(other, MAP_FAILED);
	EXPECT_EQ(step(self), 0x1111);
	map_at(self->mem, MAP_SHARED, fd);
	other[0] = 0xcccc;
	EXPECT_EQ(step(self), 0xcccc);
	EXPECT_EQ(other[1], self->count);
	ASSERT_EQ(pwrite(fd, &value, 8, 0), 8);
	EXPECT_EQ(step(self), 0x123123);
	ASSERT_EQ(pread(fd, &value, 8, 8), 8);
	EXPECT_EQ(value, self->count);
	/* A hole in the file, then the end of it. */
	ASSERT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
	EXPECT_EQ(step(self), 0);
	ASSERT_EQ(ftruncate(fd, 0), 0);
	ASSERT_EQ(vcpu_run(&self->vcpu), -EFAULT);
	ASSERT_EQ(ftruncate(fd, PAGES * PAGE), 0);
	other[0] = 0xdddd;
	EXPECT_EQ(step(self), 0xdddd);
	close(fd);
}

/* A private mapping of a file: the guest's writes are not the file's. */
TEST_F(memory_notifier, private_file)
{
	uint64_t value = 0xeeee;
	int fd = memfd_create("guest", 0);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(ftruncate(fd, PAGES * PAGE), 0);
	ASSERT_EQ(pwrite(fd, &value, 8, 0), 8);
	map_at(self->mem, MAP_PRIVATE, fd);
	EXPECT_EQ(step(self), 0xeeee);
	ASSERT_EQ(pread(fd, &value, 8, 8), 8);
	EXPECT_EQ(value, 0);
	value = 0xffff;
	ASSERT_EQ(pwrite(fd, &value, 8, 0), 8);
	EXPECT_EQ(step(self), 0xeeee);
	close(fd);
}

TEST_HARNESS_MAIN
