// SPDX-License-Identifier: GPL-2.0
/*
 * Slots whose memory comes from a file of guest memory, with the client's own
 * mapping of it and without; what happens when pages are taken from the file,
 * when it is closed, and when the VM goes first.
 */
#include <linux/falloc.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "vm.h"

#define SLOT_GPA	0x40000000UL
#define PAGES		8
#define SIZE		(PAGES * PAGE)
#define SHARED		(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)
#define HOLE		(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ROUNDS		60

FIXTURE(guest_memfd) {
	struct vm vm;
	struct vcpu vcpu;
	int fd;
};

/* Reads word 0 at %rbx into %rax, adds one, and writes that to word 1. */
GUEST_CODE(read_and_write, 64,
	"	movq (%rbx), %rax\n"
	"	movq %rax, %rdx\n"
	"	incq %rdx\n"
	"	movq %rdx, 8(%rbx)\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Copies word 0 to word 1 of each of %rcx pages from %rbx until (%rsi) is set. */
GUEST_CODE(copy_until_told, 64,
	"1:	movq %rbx, %rdi\n"
	"	movq %rcx, %rdx\n"
	"2:	movq (%rdi), %rax\n"
	"	movq %rax, 8(%rdi)\n"
	"	addq $0x1000, %rdi\n"
	"	decq %rdx\n"
	"	jnz 2b\n"
	"	cmpq $0, (%rsi)\n"
	"	je 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static int create(int vm, uint64_t size, uint64_t flags)
{
	struct kvm_create_guest_memfd args = { .size = size, .flags = flags };

	return try_ioctl(vm, KVM_CREATE_GUEST_MEMFD, (unsigned long)&args);
}

static int set_slot(int vm, unsigned int slot, unsigned int flags, uint64_t gpa,
		    uint64_t size, void *host, int fd, uint64_t offset)
{
	struct kvm_userspace_memory_region2 region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
		.guest_memfd = fd,
		.guest_memfd_offset = offset,
	};

	return try_ioctl(vm, KVM_SET_USER_MEMORY_REGION2, (unsigned long)&region);
}

FIXTURE_SETUP(guest_memfd)
{
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	self->fd = create(self->vm.fd, SIZE, SHARED);
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(guest_memfd)
{
	if (self->fd >= 0)
		close(self->fd);
	if (self->vm.fd >= 0) {
		vcpu_destroy(&self->vcpu);
		vm_destroy(&self->vm);
	}
}

static void start(FIXTURE_DATA(guest_memfd) *self, uint64_t gpa)
{
	struct kvm_regs regs = { .rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2, .rbx = gpa };

	vm_load(&self->vm, CODE_GPA, read_and_write);
	vcpu_set_regs(&self->vcpu, &regs);
}

/* The guest reads and writes a page; returns what it read. */
static uint64_t work(FIXTURE_DATA(guest_memfd) *self, uint64_t gpa)
{
	start(self, gpa);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	return vcpu_regs(&self->vcpu).rax;
}

static volatile uint64_t *map(int fd)
{
	void *ret = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (ret == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return ret;
}

/* The guest's memory is the file's, wherever the slot says that the client has it. */
TEST_F(guest_memfd, client_and_guest_share)
{
	volatile uint64_t *mem = map(self->fd);
	char *other = memory_alloc(SIZE, PAGE);
	unsigned int i;

	ASSERT_EQ(set_slot(self->vm.fd, 1, KVM_MEM_GUEST_MEMFD, SLOT_GPA, SIZE / 2, (void *)mem,
			   self->fd, 0), 0);
	ASSERT_EQ(set_slot(self->vm.fd, 2, KVM_MEM_GUEST_MEMFD, SLOT_GPA + SIZE / 2, SIZE / 2,
			   other, self->fd, SIZE / 2), 0);
	for (i = 0; i < PAGES; i++) {
		mem[i * PAGE / 8] = 40 + i;
		EXPECT_EQ(work(self, SLOT_GPA + i * PAGE), 40 + i);
		EXPECT_EQ(mem[i * PAGE / 8 + 1], 41 + i);
	}
	/* It is not the client's mapping that counts. */
	ASSERT_EQ(munmap((void *)mem, SIZE), 0);
	EXPECT_EQ(work(self, SLOT_GPA), 40);
	for (i = 0; i < SIZE; i++) {
		ASSERT_EQ(other[i], 0);
	}
}

/* Without any mapping of the client, which looks later. */
TEST_F(guest_memfd, guest_alone)
{
	volatile uint64_t *mem;

	ASSERT_EQ(set_slot(self->vm.fd, 1, KVM_MEM_GUEST_MEMFD, SLOT_GPA, PAGE, NULL, self->fd,
			   3 * PAGE), 0);
	EXPECT_EQ(work(self, SLOT_GPA), 0);
	mem = map(self->fd);
	EXPECT_EQ(mem[3 * PAGE / 8 + 1], 1);
	EXPECT_EQ(mem[1], 0);
}

/* A page that was punched out is another one, empty. */
TEST_F(guest_memfd, holes)
{
	volatile uint64_t *mem = map(self->fd);
	unsigned int i;

	ASSERT_EQ(set_slot(self->vm.fd, 1, KVM_MEM_GUEST_MEMFD, SLOT_GPA, SIZE, NULL, self->fd,
			   0), 0);
	for (i = 0; i < PAGES; i++) {
		mem[i * PAGE / 8] = i + 1;
		EXPECT_EQ(work(self, SLOT_GPA + i * PAGE), i + 1);
	}
	ASSERT_EQ(fallocate(self->fd, HOLE, PAGE, 2 * PAGE), 0);
	ASSERT_EQ(fallocate(self->fd, FALLOC_FL_KEEP_SIZE, 2 * PAGE, PAGE), 0);
	for (i = 0; i < PAGES; i++) {
		EXPECT_EQ(work(self, SLOT_GPA + i * PAGE), i == 1 || i == 2 ? 0 : i + 1);
	}
	EXPECT_EQ(mem[PAGE / 8 + 1], 1);
	/* Across the slot's end, and all of it. */
	ASSERT_EQ(fallocate(self->fd, HOLE, 0, 4 * SIZE), 0);
	for (i = 0; i < PAGES; i++) {
		EXPECT_EQ(work(self, SLOT_GPA + i * PAGE), 0);
	}
}

static void *run_vcpu(void *data)
{
	struct vcpu *vcpu = data;
	int ret;

	do
		ret = vcpu_run(vcpu);
	while (ret == -EINTR);
	return (void *)(long)ret;
}

/* Pages go while the guest is at them: it never goes on in one that is gone. */
TEST_F(guest_memfd, holes_under_a_running_guest)
{
	struct kvm_regs regs = {
		/* With interrupts on: else the machine's would not come, either. */
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 0x202, .rbx = SLOT_GPA,
		.rcx = PAGES, .rsi = DATA_GPA,
	};
	volatile uint64_t *mem = map(self->fd);
	unsigned int round, page, tries;
	pthread_t thread;
	void *ret;

	ASSERT_EQ(set_slot(self->vm.fd, 1, KVM_MEM_GUEST_MEMFD, SLOT_GPA, SIZE, NULL, self->fd,
			   0), 0);
	vm_load(&self->vm, CODE_GPA, copy_until_told);
	vcpu_set_regs(&self->vcpu, &regs);
	ASSERT_EQ(pthread_create(&thread, NULL, run_vcpu, &self->vcpu), 0);
	for (round = 1; round <= ROUNDS; round++) {
		page = round * 5 % PAGES;
		ASSERT_EQ(fallocate(self->fd, HOLE, page * PAGE, round % 3 * PAGE + PAGE), 0);
		EXPECT_EQ(mem[page * PAGE / 8], 0);
		mem[page * PAGE / 8] = round;
		for (tries = 0; mem[page * PAGE / 8 + 1] != round && tries < 1000; tries++)
			usleep(100);
		ASSERT_LT(tries, 1000) TH_LOG("page %u, round %u", page, round);
	}
	*vm_u64(&self->vm, DATA_GPA) = 1;
	ASSERT_EQ(pthread_join(thread, &ret), 0);
	EXPECT_EQ((long)ret, 0);
}

/* A closed file leaves the slot without memory, and lets another have its place. */
TEST_F(guest_memfd, closed)
{
	ASSERT_EQ(set_slot(self->vm.fd, 1, KVM_MEM_GUEST_MEMFD, SLOT_GPA, SIZE, NULL, self->fd,
			   0), 0);
	EXPECT_EQ(work(self, SLOT_GPA), 0);
	close(self->fd);
	start(self, SLOT_GPA);
	EXPECT_EQ(vcpu_run(&self->vcpu), -EFAULT);
	EXPECT_TRUE(vcpu_fault_is_at(&self->vcpu, SLOT_GPA));
	self->fd = create(self->vm.fd, SIZE, SHARED);
	ASSERT_GE(self->fd, 0);
	EXPECT_EQ(vcpu_run(&self->vcpu), -EFAULT);
	EXPECT_EQ(set_slot(self->vm.fd, 1, 0, SLOT_GPA, 0, NULL, 0, 0), 0);
	ASSERT_EQ(set_slot(self->vm.fd, 1, KVM_MEM_GUEST_MEMFD, SLOT_GPA, SIZE, NULL, self->fd,
			   0), 0);
	EXPECT_EQ(work(self, SLOT_GPA), 0);
}

/* A mapping keeps the file, as long as it is there. */
TEST_F(guest_memfd, kept_by_a_mapping)
{
	volatile uint64_t *mem = map(self->fd);

	ASSERT_EQ(set_slot(self->vm.fd, 1, KVM_MEM_GUEST_MEMFD, SLOT_GPA, SIZE, NULL, self->fd,
			   0), 0);
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(work(self, SLOT_GPA), 0);
	EXPECT_EQ(mem[1], 1);
	munmap((void *)mem, SIZE);
	start(self, SLOT_GPA);
	EXPECT_EQ(vcpu_run(&self->vcpu), -EFAULT);
}

/* The file outlives the VM's own descriptors, and the process that has them. */
TEST_F(guest_memfd, vm_first)
{
	volatile uint64_t *mem = map(self->fd);
	int status;
	pid_t child;

	ASSERT_EQ(set_slot(self->vm.fd, 1, KVM_MEM_GUEST_MEMFD, SLOT_GPA, SIZE, NULL, self->fd,
			   0), 0);
	mem[0] = 5;
	EXPECT_EQ(work(self, SLOT_GPA), 5);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	self->vm.fd = -1;
	EXPECT_EQ(mem[1], 6);
	child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		/* Of another process, which is left alone with it. */
		usleep(20000);
		if (fallocate(self->fd, HOLE, 0, SIZE) || mem[1])
			_exit(1);
		_exit(0);
	}
	munmap((void *)mem, SIZE);
	close(self->fd);
	self->fd = -1;
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
}

/* Memory that only a private guest would have is not an ordinary one's. */
TEST_F(guest_memfd, without_mmap)
{
	int fd = create(self->vm.fd, SIZE, 0);
	volatile uint64_t *mem = memory_alloc(SIZE, PAGE);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0), MAP_FAILED);
	EXPECT_EQ(errno, ENODEV);
	ASSERT_EQ(set_slot(self->vm.fd, 1, KVM_MEM_GUEST_MEMFD, SLOT_GPA, SIZE, (void *)mem, fd,
			   0), 0);
	mem[0] = 7;
	EXPECT_EQ(work(self, SLOT_GPA), 7);
	EXPECT_EQ(mem[1], 8);
	ASSERT_EQ(fallocate(fd, HOLE, 0, SIZE), 0);
	EXPECT_EQ(work(self, SLOT_GPA), 7);
	close(fd);
	EXPECT_EQ(work(self, SLOT_GPA), 7);
}

TEST_F(guest_memfd, pieces)
{
	const unsigned int flag = KVM_MEM_GUEST_MEMFD;
	int vm = self->vm.fd, fd = self->fd, other;
	struct kvm_userspace_memory_region small = {
		.slot = 1, .flags = flag, .guest_phys_addr = SLOT_GPA, .memory_size = PAGE,
	};
	struct vm another;

	EXPECT_EQ(try_ioctl(vm, KVM_SET_USER_MEMORY_REGION, (unsigned long)&small), -EINVAL);
	EXPECT_EQ(set_slot(vm, 1, flag, SLOT_GPA, SIZE, NULL, fd, PAGE), -EINVAL);
	EXPECT_EQ(set_slot(vm, 1, flag, SLOT_GPA, PAGE, NULL, fd, PAGE / 2), -EINVAL);
	EXPECT_EQ(set_slot(vm, 1, flag, SLOT_GPA, PAGE, NULL, fd, -PAGE), -EINVAL);
	EXPECT_EQ(set_slot(vm, 1, flag | KVM_MEM_READONLY, SLOT_GPA, PAGE, NULL, fd, 0), -EINVAL);
	EXPECT_EQ(set_slot(vm, 1, flag | KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, PAGE, NULL, fd, 0),
		  -EINVAL);
	EXPECT_EQ(set_slot(vm, 1, flag, SLOT_GPA, PAGE, NULL, -1, 0), -EBADF);
	EXPECT_EQ(set_slot(vm, 1, flag, SLOT_GPA, PAGE, NULL, vm, 0), -EINVAL);
	EXPECT_EQ(set_slot(vm, 1, flag, 0, PAGE, NULL, -1, 0), -EEXIST);
	vm_create_empty(&another);
	other = create(another.fd, SIZE, SHARED);
	ASSERT_GE(other, 0);
	EXPECT_EQ(set_slot(vm, 1, flag, SLOT_GPA, PAGE, NULL, other, 0), -EINVAL);
	EXPECT_EQ(set_slot(another.fd, 1, flag, SLOT_GPA, PAGE, NULL, fd, 0), -EINVAL);

	/* Slots that are tied to a file can only go, and their pieces do not overlap. */
	ASSERT_EQ(set_slot(vm, 1, flag, SLOT_GPA, 4 * PAGE, NULL, fd, 2 * PAGE), 0);
	EXPECT_EQ(set_slot(vm, 1, flag, SLOT_GPA, 4 * PAGE, NULL, fd, 2 * PAGE), -EINVAL);
	EXPECT_EQ(set_slot(vm, 1, flag, SLOT_GPA + PAGE, 4 * PAGE, NULL, fd, 2 * PAGE), -EINVAL);
	EXPECT_EQ(set_slot(vm, 1, 0, SLOT_GPA, 4 * PAGE, NULL, fd, 2 * PAGE), -EINVAL);
	EXPECT_EQ(set_slot(vm, 2, flag, SLOT_GPA + SIZE, 3 * PAGE, NULL, fd, 0), -EEXIST);
	EXPECT_EQ(set_slot(vm, 2, flag, SLOT_GPA + SIZE, PAGE, NULL, fd, 5 * PAGE), -EEXIST);
	EXPECT_EQ(set_slot(vm, 2, flag, 1UL << 51, PAGE, NULL, fd, 0), -EINVAL);
	EXPECT_EQ(set_slot(vm, 2, flag, SLOT_GPA + SIZE, 2 * PAGE, NULL, fd, 0), 0);
	EXPECT_EQ(set_slot(vm, 3, flag, SLOT_GPA + 2 * SIZE, 2 * PAGE, NULL, fd, 6 * PAGE), 0);
	EXPECT_EQ(work(self, SLOT_GPA), 0);
	EXPECT_EQ(set_slot(vm, 1, 0, SLOT_GPA, 0, NULL, 0, 0), 0);
	EXPECT_EQ(set_slot(vm, 4, flag, SLOT_GPA, 4 * PAGE, NULL, fd, 2 * PAGE), 0);
	EXPECT_EQ(work(self, SLOT_GPA), 0);
	close(other);
	vm_destroy(&another);
}

/* What kind of file it is. */
TEST_F(guest_memfd, file)
{
	struct statfs fs;
	struct stat st;
	char path[32];
	int handle;

	ASSERT_EQ(fstatfs(self->fd, &fs), 0);
	EXPECT_EQ(fs.f_type, GUEST_MEMFD_MAGIC);
	ASSERT_EQ(fstat(self->fd, &st), 0);
	EXPECT_TRUE(S_ISREG(st.st_mode));
	EXPECT_EQ(st.st_size, SIZE);
	EXPECT_EQ(ftruncate(self->fd, PAGE), -1);
	EXPECT_EQ(errno, EINVAL);
	EXPECT_EQ(fallocate(self->fd, 0, 0, PAGE), -1);
	EXPECT_EQ(errno, EOPNOTSUPP);
	EXPECT_EQ(fallocate(self->fd, HOLE | FALLOC_FL_ZERO_RANGE, 0, PAGE), -1);
	EXPECT_EQ(errno, EOPNOTSUPP);
	EXPECT_EQ(fallocate(self->fd, FALLOC_FL_KEEP_SIZE, SIZE, PAGE), -1);
	EXPECT_EQ(errno, EINVAL);
	EXPECT_EQ(mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, self->fd, 0), MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);
	EXPECT_EQ(mmap(NULL, SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, self->fd, 0), MAP_FAILED);
	EXPECT_EQ(errno, EPERM);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	EXPECT_EQ(open(path, O_RDWR), -1);
	EXPECT_EQ(errno, ENXIO);
	/* Who holds on to the inode alone keeps no memory, and does no harm. */
	handle = open(path, O_PATH);
	ASSERT_GE(handle, 0);
	close(self->fd);
	self->fd = -1;
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	self->vm.fd = -1;
	ASSERT_EQ(fstat(handle, &st), 0);
	EXPECT_EQ(st.st_size, SIZE);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", handle);
	EXPECT_EQ(chmod(path, 0600), -1);
	EXPECT_EQ(errno, EINVAL);
	close(handle);
}

/* Pages are there before the guest asks for them, and are given back. */
TEST_F(guest_memfd, prefault)
{
	struct kvm_pre_fault_memory range = { .gpa = SLOT_GPA, .size = 4096 * PAGE };
	int fd = create(self->vm.fd, range.size, SHARED);
	long before;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(set_slot(self->vm.fd, 1, KVM_MEM_GUEST_MEMFD, SLOT_GPA, range.size, NULL, fd,
			   0), 0);
	before = host_pages_used();
	if (try_ioctl(self->vcpu.fd, KVM_PRE_FAULT_MEMORY, (unsigned long)&range) == -EOPNOTSUPP)
		SKIP(close(fd); return, "no EPT");
	EXPECT_EQ(range.size, 0);
	/* A few more or less are those of others. */
	EXPECT_GE(host_pages_used() - before, 3968);
	ASSERT_EQ(fallocate(fd, HOLE, 0, 4096 * PAGE), 0);
	EXPECT_LE(host_pages_used() - before, 128);
	EXPECT_EQ(work(self, SLOT_GPA), 0);
	close(fd);
}

TEST_HARNESS_MAIN
