// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_IOEVENTFD: a write that is as the client said signals its eventfd, once,
 * and is no exit; every other write is. Lengths, values, ports and memory-mapped
 * I/O, string instructions, an eventfd that the client has closed, and that no
 * write is lost or done twice while others assign and deassign.
 */
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "kselftest_harness.h"
#include "vm.h"

#define PORT		0xe0
#define VALUE		0x1122334455667788ULL
#define FLAG(name)	KVM_IOEVENTFD_FLAG_##name

/* A write of %rax to (%rbx) or port %dx, and the end. */
#define WRITE(name, text)						\
	GUEST_CODE(name, 64,						\
		"	" text "\n"					\
		"	outb %al, $" STR(PORT_DONE) "\n")
WRITE(mmio_1, "movb %al, (%rbx)");
WRITE(mmio_2, "movw %ax, (%rbx)");
WRITE(mmio_4, "movl %eax, (%rbx)");
WRITE(mmio_8, "movq %rax, (%rbx)");
WRITE(port_1, "outb %al, %dx");
WRITE(port_2, "outw %ax, %dx");
WRITE(port_4, "outl %eax, %dx");
WRITE(outs_1, "cld; rep outsb");
WRITE(outs_2, "cld; rep outsw");
WRITE(stos_4, "cld; movq %rbx, %rdi; rep stosl");
WRITE(read_4, "movl (%rbx), %eax");

static const struct {
	bool pio;
	unsigned int length;
	const char *code, *end;
} writes[] = {
	{ false, 1, mmio_1, mmio_1_end },
	{ false, 2, mmio_2, mmio_2_end },
	{ false, 4, mmio_4, mmio_4_end },
	{ false, 8, mmio_8, mmio_8_end },
	{ true, 1, port_1, port_1_end },
	{ true, 2, port_2, port_2_end },
	{ true, 4, port_4, port_4_end },
};
#define WRITES	(sizeof(writes) / sizeof(writes[0]))

static int assign(struct vm *vm, int fd, unsigned int flags, uint64_t address,
		  unsigned int length, uint64_t value)
{
	struct kvm_ioeventfd request = {
		.datamatch = value,
		.addr = address,
		.len = length,
		.fd = fd,
		.flags = flags,
	};

	return try_ioctl(vm->fd, KVM_IOEVENTFD, (unsigned long)&request);
}

static uint64_t taken(int fd)
{
	uint64_t count;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

FIXTURE(ioeventfd) {
	struct vm vm;
	struct vcpu vcpu;
	int fd;
};

FIXTURE_SETUP(ioeventfd)
{
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	self->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

FIXTURE_TEARDOWN(ioeventfd)
{
	close(self->fd);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

/* Runs guest code; returns how many exits it made before its end. */
static unsigned int run(struct vcpu *vcpu, const char *code, const char *end,
			uint64_t rax, uint64_t rbx, uint64_t rcx)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2,
		.rax = rax, .rbx = rbx, .rcx = rcx, .rdx = PORT, .rsi = DATA_GPA,
	};
	unsigned int exits = 0;

	__vm_load(vcpu->vm, CODE_GPA, code, end);
	vcpu_set_regs(vcpu, &regs);
	for (;;) {
		if (vcpu_run(vcpu)) {
			vcpu_dump(vcpu, errno);
			die("the guest stopped");
		}
		if (vcpu->run->exit_reason == KVM_EXIT_IO &&
		    vcpu->run->io.port == PORT_DONE)
			return exits;
		exits++;
	}
}
#define RUN(self, code, rax, rbx, rcx)					\
	run(&(self)->vcpu, code, code##_end, rax, rbx, rcx)

static uint64_t cut(uint64_t value, unsigned int length)
{
	return length == 8 ? value : value & ((1ULL << length * 8) - 1);
}

/* Every write against every request: it signals or it exits, and never both. */
TEST_F(ioeventfd, lengths_and_values)
{
	static const unsigned int lengths[] = { 0, 1, 2, 4, 8 };
	unsigned int i, k, pio, valued, exits, length, round;

	for (pio = 0; pio < 2; pio++)
	for (k = 0; k < 5; k++)
	for (valued = 0; valued < 3; valued++) {
		unsigned int flags = (pio ? FLAG(PIO) : 0) |
				     (valued ? FLAG(DATAMATCH) : 0);
		uint64_t at = pio ? PORT : MMIO_GPA;
		/* A value that matches, and one that differs in the top bit. */
		uint64_t value;

		length = lengths[k];
		value = cut(VALUE, length ?: 8);
		if (valued == 2)
			value ^= 1ULL << ((length ?: 8) * 8 - 1);
		if (!length && valued) {
			ASSERT_EQ(-EINVAL, assign(&self->vm, self->fd, flags,
						  at, length, value));
			continue;
		}
		ASSERT_EQ(0, assign(&self->vm, self->fd, flags, at, length, value));
		for (i = 0; i < WRITES; i++) {
			bool hit = writes[i].pio == pio &&
				   (!length || length == writes[i].length) &&
				   valued != 2;

			/* The first may find no entry in the MMU's tables. */
			for (round = 0; round < 2; round++) {
				exits = run(&self->vcpu, writes[i].code,
					    writes[i].end, VALUE, MMIO_GPA, 0);
				EXPECT_EQ(!hit, exits);
				EXPECT_EQ(hit, taken(self->fd))
					TH_LOG("%s, length %u, value %u, write of %u",
					       pio ? "port" : "MMIO", length, valued,
					       writes[i].length);
			}
		}
		/* The address must be the same. */
		EXPECT_EQ(1, RUN(self, mmio_1, VALUE, MMIO_GPA + 1, 0));
		EXPECT_EQ(0, taken(self->fd));
		ASSERT_EQ(0, assign(&self->vm, self->fd, flags | FLAG(DEASSIGN),
				    at, length, value));
		for (i = 0; i < WRITES; i++) {
			EXPECT_EQ(1, run(&self->vcpu, writes[i].code,
					 writes[i].end, VALUE, MMIO_GPA, 0));
		}
		EXPECT_EQ(0, taken(self->fd));
	}
}

TEST_F(ioeventfd, many_at_one_address)
{
	int fds[4];
	unsigned int i;

	for (i = 0; i < 4; i++)
		fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	/* Two values, another length, and the next address. */
	ASSERT_EQ(0, assign(&self->vm, fds[0], FLAG(DATAMATCH), MMIO_GPA, 4, 1));
	ASSERT_EQ(0, assign(&self->vm, fds[1], FLAG(DATAMATCH), MMIO_GPA, 4, 2));
	ASSERT_EQ(0, assign(&self->vm, fds[2], 0, MMIO_GPA, 2, 0));
	ASSERT_EQ(0, assign(&self->vm, fds[3], 0, MMIO_GPA + 2, 0, 0));
	EXPECT_EQ(0, RUN(self, mmio_4, 1, MMIO_GPA, 0));
	EXPECT_EQ(0, RUN(self, mmio_4, 2, MMIO_GPA, 0));
	EXPECT_EQ(1, RUN(self, mmio_4, 3, MMIO_GPA, 0));
	EXPECT_EQ(0, RUN(self, mmio_2, 3, MMIO_GPA, 0));
	EXPECT_EQ(0, RUN(self, mmio_8, 3, MMIO_GPA + 2, 0));
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(1, taken(fds[i]));
	}

	/* What would match the same write is refused, and leaves the others. */
	EXPECT_EQ(-EEXIST, assign(&self->vm, self->fd, 0, MMIO_GPA, 4, 0));
	EXPECT_EQ(-EEXIST, assign(&self->vm, self->fd, 0, MMIO_GPA, 0, 0));
	EXPECT_EQ(-EEXIST, assign(&self->vm, self->fd, FLAG(DATAMATCH), MMIO_GPA, 4, 2));
	EXPECT_EQ(-EEXIST, assign(&self->vm, self->fd, FLAG(DATAMATCH), MMIO_GPA, 2, 7));
	EXPECT_EQ(-EEXIST, assign(&self->vm, self->fd, 0, MMIO_GPA + 2, 1, 0));
	/* Only the same, with the same eventfd, is taken back. */
	EXPECT_EQ(-ENOENT, assign(&self->vm, self->fd, FLAG(DEASSIGN), MMIO_GPA, 2, 0));
	EXPECT_EQ(-ENOENT, assign(&self->vm, fds[0], FLAG(DEASSIGN), MMIO_GPA, 4, 1));
	EXPECT_EQ(-ENOENT, assign(&self->vm, fds[2], FLAG(DEASSIGN) | FLAG(PIO),
				  MMIO_GPA, 2, 0));
	EXPECT_EQ(-EBADF, assign(&self->vm, -1, FLAG(DEASSIGN), MMIO_GPA, 2, 0));
	EXPECT_EQ(0, RUN(self, mmio_2, 3, MMIO_GPA, 0));
	EXPECT_EQ(1, taken(fds[2]));
	/* Another kind of bus is another address, on which guests here never write. */
	EXPECT_EQ(0, assign(&self->vm, self->fd, FLAG(VIRTIO_CCW_NOTIFY), MMIO_GPA, 4, 0));
	EXPECT_EQ(1, RUN(self, mmio_4, 3, MMIO_GPA, 0));
	EXPECT_EQ(0, taken(self->fd));
	for (i = 0; i < 4; i++)
		close(fds[i]);
}

/* The skipped instruction of a write of any length is not looked at. */
TEST_F(ioeventfd, any_length_does_not_decode)
{
	ASSERT_EQ(0, assign(&self->vm, self->fd, 0, MMIO_GPA, 0, 0));
	RUN(self, mmio_4, 0, MMIO_GPA, 0);
	EXPECT_EQ(1, taken(self->fd));
	EXPECT_EQ(0, RUN(self, read_4, 5, MMIO_GPA, 0));
	EXPECT_EQ(1, taken(self->fd));
	EXPECT_EQ(5, vcpu_regs(&self->vcpu).rax);
}

TEST_F(ioeventfd, string_instructions)
{
	char *data = self->vm.mem + DATA_GPA;
	struct kvm_regs regs;

	/* Elements that match, between such that do not. */
	memcpy(data, "aabaab", 6);
	ASSERT_EQ(0, assign(&self->vm, self->fd, FLAG(PIO) | FLAG(DATAMATCH),
			    PORT, 1, 'a'));
	EXPECT_EQ(2, RUN(self, outs_1, 0, 0, 6));
	EXPECT_EQ(4, taken(self->fd));
	regs = vcpu_regs(&self->vcpu);
	EXPECT_EQ(0, regs.rcx);
	EXPECT_EQ(DATA_GPA + 6, regs.rsi);
	EXPECT_EQ(3, RUN(self, outs_2, 0, 0, 3));
	EXPECT_EQ(0, taken(self->fd));
	/* One of the words that STOS writes. */
	ASSERT_EQ(0, assign(&self->vm, self->fd, 0, MMIO_GPA + 8, 4, 0));
	EXPECT_EQ(4, RUN(self, stos_4, 0, MMIO_GPA, 5));
	EXPECT_EQ(1, taken(self->fd));
}

/* The VM keeps an eventfd that the client has closed. */
TEST_F(ioeventfd, closed_by_the_client)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), other = dup(fd);

	ASSERT_EQ(0, assign(&self->vm, fd, FLAG(PIO), PORT, 1, 0));
	close(fd);
	EXPECT_EQ(0, RUN(self, port_1, 0, 0, 0));
	EXPECT_EQ(1, taken(other));
	close(other);
	EXPECT_EQ(0, RUN(self, port_1, 0, 0, 0));
	EXPECT_EQ(-EBADF, assign(&self->vm, fd, FLAG(DEASSIGN) | FLAG(PIO), PORT, 1, 0));
}

/* A slot where the eventfd was: then it is memory, and again when it is gone. */
TEST_F(ioeventfd, memory_comes_first)
{
	char *page = memory_alloc(PAGE, PAGE);

	ASSERT_EQ(0, assign(&self->vm, self->fd, 0, MMIO_GPA, 0, 0));
	RUN(self, mmio_4, 1, MMIO_GPA, 0);
	RUN(self, mmio_4, 1, MMIO_GPA, 0);
	EXPECT_EQ(2, taken(self->fd));
	ASSERT_EQ(0, vm_set_slot(&self->vm, 1, 0, MMIO_GPA, PAGE, page));
	EXPECT_EQ(0, RUN(self, mmio_4, 7, MMIO_GPA, 0));
	EXPECT_EQ(0, taken(self->fd));
	EXPECT_EQ(7, page[0]);
	ASSERT_EQ(0, vm_set_slot(&self->vm, 1, 0, MMIO_GPA, 0, page));
	EXPECT_EQ(0, RUN(self, mmio_4, 1, MMIO_GPA, 0));
	EXPECT_EQ(0, RUN(self, mmio_4, 1, MMIO_GPA, 0));
	EXPECT_EQ(2, taken(self->fd));
}

/* Turns in %rcx of a write to a port, one of a value, and one of any length. */
GUEST_CODE(all_three, 64,
	"1:	outb %al, $" STR(PORT) "\n"
	"	movl %eax, 4(%rbx)\n"
	"	movl %eax, (%rbx)\n"
	"	decq %rcx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static volatile bool stop;

struct juggled {
	struct vm *vm;
	int fd;
};

static void *juggle(void *arg)
{
	int other = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct juggled *juggled = arg;
	struct vm *v = juggled->vm;
	int fd = juggled->fd;
	uint64_t calls = 0;

	while (!stop) {
		unsigned int off = calls++ & 1 ? FLAG(DEASSIGN) : 0;

		assign(v, fd, off | FLAG(PIO), PORT, 1, 0);
		assign(v, fd, off | FLAG(DATAMATCH), MMIO_GPA + 4, 4, 9);
		assign(v, fd, off, MMIO_GPA, 0, 0);
		/* More at other addresses move the first about. */
		assign(v, other, off | FLAG(PIO), PORT - 1, 1, 0);
		assign(v, other, off, MMIO_GPA - 8, 8, 0);
	}
	close(other);
	return (void *)calls;
}

TEST_F(ioeventfd, none_lost_while_they_change)
{
	struct juggled juggled = { &self->vm, self->fd };
	void *calls;
	unsigned int exits, turns = 3000;
	pthread_t thread;
	uint64_t signals;

	stop = false;
	pthread_create(&thread, NULL, juggle, &juggled);
	exits = RUN(self, all_three, 9, MMIO_GPA, turns);
	stop = true;
	pthread_join(thread, &calls);
	signals = taken(self->fd);
	EXPECT_EQ(3 * turns, exits + signals);
	EXPECT_LT(0, signals);
	EXPECT_LT(0, exits);
	TH_LOG("%u exits, %lu signals, %lu changes", exits, signals, (long)calls);
}

/* After the ioctl has returned, no write of another thread signals any more. */
TEST_F(ioeventfd, deassign_is_final)
{
	unsigned int i;

	for (i = 0; i < 50; i++) {
		ASSERT_EQ(0, assign(&self->vm, self->fd, FLAG(PIO), PORT, 1, 0));
		EXPECT_EQ(0, RUN(self, port_1, 0, 0, 0));
		ASSERT_EQ(0, assign(&self->vm, self->fd, FLAG(PIO) | FLAG(DEASSIGN),
				    PORT, 1, 0));
		EXPECT_EQ(1, taken(self->fd));
		EXPECT_EQ(1, RUN(self, port_1, 0, 0, 0));
		EXPECT_EQ(0, taken(self->fd));
	}
}

TEST_HARNESS_MAIN
