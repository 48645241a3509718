// SPDX-License-Identifier: GPL-2.0
/*
 * Kinds of memory that a client can have behind a slot: files, memory of the
 * device kind that has no page structures in use, large pages of hugetlbfs,
 * locked memory, and what userfaultfd protects.
 */
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "kselftest_harness.h"
#include "swap.h"
#include "vm.h"

#define SLOT_GPA	0x40000000UL
#define PAGES		8

FIXTURE(memory_backing) {
	struct vm vm;
	struct vcpu vcpu;
};

/* Reads word 0 at %rbx into %rax, adds one, and writes that to word 1. */
GUEST_CODE(read_and_write, 64,
	"	movq (%rbx), %rax\n"
	"	movq %rax, %rdx\n"
	"	incq %rdx\n"
	"	movq %rdx, 8(%rbx)\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

GUEST_CODE(read_only, 64,
	"	movq (%rbx), %rax\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Registers are read in their size. */
GUEST_CODE(read_register, 64,
	"	movl (%rbx), %eax\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

FIXTURE_SETUP(memory_backing)
{
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
}

FIXTURE_TEARDOWN(memory_backing)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

static void start(FIXTURE_DATA(memory_backing) *self, const char *code,
		  const char *end, uint64_t gpa)
{
	struct kvm_regs regs = { .rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2, .rbx = gpa };

	__vm_load(&self->vm, CODE_GPA, code, end);
	vcpu_set_regs(&self->vcpu, &regs);
}
#define START(self, code, gpa)	start(self, code, code##_end, gpa)

/* The guest reads and writes a page; returns what it read. */
static uint64_t work(FIXTURE_DATA(memory_backing) *self, uint64_t gpa)
{
	START(self, read_and_write, gpa);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	return vcpu_regs(&self->vcpu).rax;
}

static uint64_t look(FIXTURE_DATA(memory_backing) *self, uint64_t gpa)
{
	START(self, read_only, gpa);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	return vcpu_regs(&self->vcpu).rax;
}

static volatile uint64_t *map(size_t size, int prot, int flags, int fd, off_t offset)
{
	void *ret = mmap(NULL, size, prot, flags, fd, offset);

	if (ret == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return ret;
}

static int memory_file(unsigned int flags, size_t size)
{
	int fd = memfd_create("guest", MFD_CLOEXEC | flags);

	if (fd < 0 || ftruncate(fd, size))
		die("memfd: %s", strerror(errno));
	return fd;
}

/* A file that others have mapped too. */
TEST_F(memory_backing, shared_file)
{
	int fd = memory_file(0, PAGES * PAGE);
	volatile uint64_t *mem = map(PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	volatile uint64_t *other = map(PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint64_t value;

	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, PAGES * PAGE, (void *)mem), 0);
	other[0] = 41;
	EXPECT_EQ(work(self, SLOT_GPA), 41);
	EXPECT_EQ(other[1], 42);
	value = 77;
	ASSERT_EQ(pwrite(fd, &value, 8, 0), 8);
	EXPECT_EQ(work(self, SLOT_GPA), 77);
	/* A hole is punched, and filled by the guest. */
	ASSERT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
	EXPECT_EQ(work(self, SLOT_GPA), 0);
	ASSERT_EQ(pread(fd, &value, 8, 8), 8);
	EXPECT_EQ(value, 1);
	/* The file ends before the slot. */
	ASSERT_EQ(ftruncate(fd, PAGE), 0);
	START(self, read_and_write, SLOT_GPA + PAGE);
	EXPECT_EQ(vcpu_run(&self->vcpu), -EFAULT);
	EXPECT_EQ(work(self, SLOT_GPA), 0);
	close(fd);
}

/* A private mapping: the file's pages until someone writes. */
TEST_F(memory_backing, private_file)
{
	int fd = memory_file(0, PAGES * PAGE);
	uint64_t value = 11;
	volatile uint64_t *mem;

	ASSERT_EQ(pwrite(fd, &value, 8, 0), 8);
	mem = map(PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, PAGES * PAGE, (void *)mem), 0);
	EXPECT_EQ(look(self, SLOT_GPA), 11);
	value = 12;
	ASSERT_EQ(pwrite(fd, &value, 8, 0), 8);
	EXPECT_EQ(look(self, SLOT_GPA), 12);
	EXPECT_EQ(work(self, SLOT_GPA), 12);
	EXPECT_EQ(mem[1], 13);
	ASSERT_EQ(pread(fd, &value, 8, 8), 8);
	EXPECT_EQ(value, 0);
	/* The client writes first, to a page that the guest has only read. */
	EXPECT_EQ(look(self, SLOT_GPA + PAGE), 0);
	mem[PAGE / 8] = 21;
	EXPECT_EQ(look(self, SLOT_GPA + PAGE), 21);
	close(fd);
}

/* The zero page is read, and must not be written. */
TEST_F(memory_backing, zero_page)
{
	volatile uint64_t *mem = map(PAGES * PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int i;

	madvise((void *)mem, PAGES * PAGE, MADV_NOHUGEPAGE);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, KVM_MEM_READONLY, SLOT_GPA, PAGE, (void *)mem), 0);
	ASSERT_EQ(vm_set_slot(&self->vm, 2, 0, SLOT_GPA + PAGE, (PAGES - 1) * PAGE,
			      (char *)mem + PAGE), 0);
	for (i = 0; i < PAGES; i++) {
		EXPECT_EQ(look(self, SLOT_GPA + i * PAGE), 0);
	}
	for (i = 1; i < PAGES; i += 2) {
		EXPECT_EQ(work(self, SLOT_GPA + i * PAGE), 0);
	}
	for (i = 1; i < PAGES; i++) {
		EXPECT_EQ(mem[i * PAGE / 8 + 1], i & 1);
	}
	EXPECT_EQ(look(self, SLOT_GPA), 0);
	mem[0] = 5;
	EXPECT_EQ(look(self, SLOT_GPA), 5);
}

/* Without the right to write, the client cannot give it to the guest. */
TEST_F(memory_backing, read_only_mapping)
{
	int fd = memory_file(0, PAGE);
	uint64_t value = 3;
	volatile uint64_t *mem;

	ASSERT_EQ(pwrite(fd, &value, 8, 0), 8);
	mem = map(PAGE, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, PAGE, (void *)mem), 0);
	EXPECT_EQ(look(self, SLOT_GPA), 3);
	START(self, read_and_write, SLOT_GPA);
	EXPECT_EQ(vcpu_run(&self->vcpu), -EFAULT);
	EXPECT_TRUE(vcpu_fault_is_at(&self->vcpu, SLOT_GPA));
	EXPECT_EQ(mem[1], 0);
	/* The client cannot write either, but a read-only slot does not mind. */
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, 0, (void *)mem), 0);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, KVM_MEM_READONLY, SLOT_GPA, PAGE, (void *)mem), 0);
	EXPECT_EQ(look(self, SLOT_GPA), 3);
	START(self, read_and_write, SLOT_GPA);
	vcpu_run_to(&self->vcpu, KVM_EXIT_MMIO);
	EXPECT_EQ(self->vcpu.run->mmio.is_write, 1);
	close(fd);
}

TEST_F(memory_backing, locked)
{
	volatile uint64_t *mem = map(PAGES * PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int i;

	ASSERT_EQ(mlock((void *)mem, PAGES * PAGE), 0);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, PAGES * PAGE, (void *)mem), 0);
	for (i = 0; i < PAGES; i++) {
		mem[i * PAGE / 8] = i;
		EXPECT_EQ(work(self, SLOT_GPA + i * PAGE), i);
		EXPECT_EQ(mem[i * PAGE / 8 + 1], i + 1);
	}
	ASSERT_EQ(munlock((void *)mem, PAGES * PAGE), 0);
	EXPECT_EQ(work(self, SLOT_GPA), 0);
}

/* The physical address of a page of this process that is there. */
static uint64_t physical(volatile void *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	if (fd < 0 || pread(fd, &entry, 8, (uintptr_t)p / PAGE * 8) != 8)
		die("pagemap: %s", strerror(errno));
	close(fd);
	return (entry & ((1UL << 55) - 1)) * PAGE;
}

/*
 * A mapping of frames, not of pages (VM_PFNMAP): of memory, by /dev/mem. First
 * a frame that another mapping has, too, then the firmware's read-only one.
 */
TEST_F(memory_backing, frames)
{
	volatile uint64_t *page = map(PAGE, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open("/dev/mem", O_RDWR | O_CLOEXEC);
	volatile uint64_t *mem;
	unsigned int i;

	if (fd < 0)
		SKIP(return, "no /dev/mem");
	page[0] = 1;
	ASSERT_EQ(mlock((void *)page, PAGE), 0);
	mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, physical(page));
	if (mem == MAP_FAILED)
		SKIP(return, "/dev/mem gives no memory");
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, PAGE, (void *)mem), 0);
	for (i = 0; i < 3; i++) {
		page[0] = 100 + i;
		EXPECT_EQ(work(self, SLOT_GPA), 100 + i);
		EXPECT_EQ(page[1], 101 + i);
	}
	ASSERT_EQ(munmap((void *)mem, PAGE), 0);
	START(self, read_and_write, SLOT_GPA);
	EXPECT_EQ(vcpu_run(&self->vcpu), -EFAULT);

	/* The frames where the firmware is, by a mapping that may only be read. */
	mem = map(PAGE, PROT_READ, MAP_SHARED, fd, 0xf0000);
	ASSERT_EQ(vm_set_slot(&self->vm, 2, 0, SLOT_GPA + PAGE, PAGE, (void *)mem), 0);
	EXPECT_EQ(look(self, SLOT_GPA + PAGE), mem[0]);
	START(self, read_and_write, SLOT_GPA + PAGE);
	vcpu_run_to(&self->vcpu, KVM_EXIT_MMIO);
	EXPECT_EQ(self->vcpu.run->mmio.is_write, 1);
	EXPECT_EQ(self->vcpu.run->mmio.phys_addr, SLOT_GPA + PAGE + 8);
	close(fd);
}

/* Registers of a device: the I/O APIC's. */
TEST_F(memory_backing, device)
{
	int fd = open("/dev/mem", O_RDWR | O_CLOEXEC);
	volatile uint32_t *mem;

	if (fd < 0)
		SKIP(return, "no /dev/mem");
	mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0xfec00000);
	if (mem == MAP_FAILED)
		SKIP(return, "/dev/mem gives no registers");
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, PAGE, (void *)mem), 0);
	START(self, read_register, SLOT_GPA);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	/* The index register, as the host's kernel left it. */
	EXPECT_EQ(vcpu_regs(&self->vcpu).rax, *mem);
	close(fd);
}

TEST_F(memory_backing, hugetlbfs)
{
	const size_t size = 2 * SZ_2M;
	volatile uint64_t *mem;
	long before, i;
	int fd;

	write_file("/proc/sys/vm/nr_hugepages", "4");
	if (meminfo("HugePages_Total") < 4)
		SKIP(return, "no large pages");
	fd = memory_file(MFD_HUGETLB, size);
	mem = map(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, size, (void *)mem), 0);
	before = module_stat("ept_2m_mapped");
	for (i = 0; i < (long)(size / PAGE); i++) {
		mem[i * PAGE / 8] = i;
		EXPECT_EQ(work(self, SLOT_GPA + i * PAGE), i);
		EXPECT_EQ(mem[i * PAGE / 8 + 1], i + 1);
		/* Each page of a large one costs no fault of its own. */
		if (i == 40)
			i = size / PAGE / 2 - 1;
		if (i == (long)(size / PAGE / 2) + 40)
			i = size / PAGE - 2;
	}
	if (before >= 0)
		EXPECT_GE(module_stat("ept_2m_mapped") - before, 2);
	ASSERT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SZ_2M), 0);
	EXPECT_EQ(work(self, SLOT_GPA), 0);
	EXPECT_EQ(look(self, SLOT_GPA + SZ_2M + PAGE), 513);
	ASSERT_EQ(munmap((void *)mem, size), 0);
	START(self, read_and_write, SLOT_GPA);
	EXPECT_EQ(vcpu_run(&self->vcpu), -EFAULT);
	close(fd);
	write_file("/proc/sys/vm/nr_hugepages", "0");
}

struct monitor {
	int fd;
	volatile uint64_t *mem;
	volatile unsigned int faults;
};

/* Answers one fault: counts it, and lets the writer go on. */
static void *monitor(void *data)
{
	struct monitor *m = data;
	struct uffdio_writeprotect protect = { .range = { (uintptr_t)m->mem, PAGE } };
	struct uffd_msg msg;

	if (read(m->fd, &msg, sizeof(msg)) != sizeof(msg))
		die("read: %s", strerror(errno));
	if (msg.event == UFFD_EVENT_PAGEFAULT &&
	    msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)
		m->faults++;
	if (ioctl(m->fd, UFFDIO_WRITEPROTECT, &protect))
		die("UFFDIO_WRITEPROTECT: %s", strerror(errno));
	return NULL;
}

/* A page is protected while the guest has it writable: its next write waits. */
TEST_F(memory_backing, userfaultfd_write_protect)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	struct monitor m = { .fd = syscall(SYS_userfaultfd, O_CLOEXEC) };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	pthread_t thread;
	unsigned int i;

	if (m.fd < 0 || ioctl(m.fd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd with write protection");
	m.mem = map(2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise((void *)m.mem, 2 * PAGE, MADV_NOHUGEPAGE);
	m.mem[0] = 1;
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, PAGE, (void *)m.mem), 0);
	range.range.start = protect.range.start = (uintptr_t)m.mem;
	range.range.len = protect.range.len = PAGE;
	if (ioctl(m.fd, UFFDIO_REGISTER, &range))
		SKIP(return, "no write protection");
	for (i = 1; i <= 5; i++) {
		m.mem[0] = i;
		EXPECT_EQ(work(self, SLOT_GPA), i);
		ASSERT_EQ(ioctl(m.fd, UFFDIO_WRITEPROTECT, &protect), 0);
		EXPECT_EQ(look(self, SLOT_GPA), i);
		EXPECT_EQ(m.faults, i - 1);
		ASSERT_EQ(pthread_create(&thread, NULL, monitor, &m), 0);
		EXPECT_EQ(work(self, SLOT_GPA), i);
		ASSERT_EQ(pthread_join(thread, NULL), 0);
		EXPECT_EQ(m.faults, i);
		EXPECT_EQ(m.mem[1], i + 1);
	}
	close(m.fd);
}

TEST_HARNESS_MAIN
