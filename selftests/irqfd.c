// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_IRQFD to a local APIC in the kernel, over routes to messages: what is
 * written to an eventfd interrupts the guest, halted or running, once, and is
 * taken from the eventfd; through changes of routes, with an eventfd that is
 * closed first, with a VM that is, and while others assign and deassign.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>

#include "kselftest_harness.h"
#include "irq.h"

#define GSI		40
#define VECTOR		0x60
#define APIC_BASE	0xfee00000
/* In guest memory: interrupts by vector, whether to spin, that it has begun. */
#define COUNTERS	DATA_GPA
#define SPIN		(DATA_GPA + 0x1000)
#define READY		(DATA_GPA + 0x1008)

/* Software-enables the local APIC, and halts or spins with interrupts on. */
GUEST_CODE(wait_for_interrupts, 64,
	"	movl $0xfee000f0, %edi\n"
	"	movl $0x1ff, (%rdi)\n"
	"	movq $1, (0x101008)\n"
	"1:	sti\n"
	"	cmpq $0, (0x101000)\n"
	"	jne 1b\n"
	"	hlt\n"
	"	jmp 1b\n");

#define HANDLER(name, counter)						\
	GUEST_CODE(name, 64,						\
		"	incq (" counter ")\n"				\
		"	pushq %rdi\n"					\
		"	movl $0xfee000b0, %edi\n"			\
		"	movl $0, (%rdi)\n"				\
		"	popq %rdi\n"					\
		"	iretq\n")
HANDLER(first_handler, "0x100000");
HANDLER(second_handler, "0x100008");

struct routing {
	struct kvm_irq_routing head;
	struct kvm_irq_routing_entry entry;
};

/* Leads the GSI to a vector, or nowhere for 0. */
static void route(struct vm *vm, unsigned int vector)
{
	struct routing routing = {
		.head.nr = vector != 0,
		.entry = {
			.gsi = GSI,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = { .address_lo = APIC_BASE, .data = vector },
		},
	};

	xioctl(vm->fd, KVM_SET_GSI_ROUTING, &routing);
}

static int irqfd(struct vm *vm, int fd, unsigned int gsi, unsigned int flags)
{
	struct kvm_irqfd request = { .fd = fd, .gsi = gsi, .flags = flags };

	return try_ioctl(vm->fd, KVM_IRQFD, (unsigned long)&request);
}
#define DEASSIGN	KVM_IRQFD_FLAG_DEASSIGN

static void set_gate(struct vm *vm, unsigned int vector, uint64_t target)
{
	volatile uint64_t *gate = vm_u64(vm, IDT_GPA + vector * 16);

	gate[0] = (target & 0xffff) | (uint64_t)SEL_CODE64 << 16 | 0x8e00ULL << 32 |
		  (target & 0xffff0000) << 32;
	gate[1] = target >> 32;
}

static void ignore(int signal)
{
}

static void *run(void *vcpu)
{
	vcpu_run(vcpu);
	return NULL;
}

static uint64_t taken(int fd)
{
	uint64_t count;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void sleep_ms(unsigned int ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000L }, NULL);
}

/* Waits up to two seconds for a word of the guest's to have a value. */
static bool reaches(volatile uint64_t *word, uint64_t value)
{
	unsigned int i;

	for (i = 0; i < 20000 && *word != value; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	return *word == value;
}

static bool create(struct vm *vm, struct vcpu *vcpu)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };

	vm_create(vm, SZ_2M);
	if (try_ioctl(vm->fd, KVM_ENABLE_CAP, (unsigned long)&split))
		return false;
	vcpu_start(vcpu, vm, MODE_LONG);
	return true;
}

FIXTURE(irqfd) {
	struct vm vm;
	struct vcpu vcpu;
	volatile uint64_t *counters;
	pthread_t thread;
	int fd;
};

FIXTURE_SETUP(irqfd)
{
	struct sigaction action = { .sa_handler = ignore };
	struct kvm_sregs sregs;

	sigaction(SIGUSR1, &action, NULL);
	self->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!create(&self->vm, &self->vcpu))
		SKIP(return, "no local APIC");
	sregs = vcpu_sregs(&self->vcpu);
	sregs.idt.base = IDT_GPA;
	sregs.idt.limit = 0xfff;
	vcpu_set_sregs(&self->vcpu, &sregs);
	vm_load(&self->vm, CODE_GPA, wait_for_interrupts);
	vm_load(&self->vm, CODE_GPA + PAGE, first_handler);
	vm_load(&self->vm, CODE_GPA + 2 * PAGE, second_handler);
	set_gate(&self->vm, VECTOR, CODE_GPA + PAGE);
	set_gate(&self->vm, VECTOR + 1, CODE_GPA + 2 * PAGE);
	self->counters = vm_u64(&self->vm, COUNTERS);
	route(&self->vm, VECTOR);
	pthread_create(&self->thread, NULL, run, &self->vcpu);
	if (!reaches(vm_u64(&self->vm, READY), 1))
		die("the guest does not begin");
}

FIXTURE_TEARDOWN(irqfd)
{
	/* A signal that comes before KVM_RUN would be missed. */
	self->vcpu.run->immediate_exit = 1;
	pthread_kill(self->thread, SIGUSR1);
	pthread_join(self->thread, NULL);
	close(self->fd);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

/* Each write is one interrupt, of a guest that halts and of one that runs. */
TEST_F(irqfd, interrupts_and_is_taken)
{
	unsigned int i;

	ASSERT_EQ(0, irqfd(&self->vm, self->fd, GSI, 0));
	for (i = 1; i <= 100; i++) {
		*vm_u64(&self->vm, SPIN) = i > 50;
		ASSERT_EQ(0, eventfd_write(self->fd, i));
		ASSERT_TRUE(reaches(&self->counters[0], i));
		ASSERT_EQ(0, taken(self->fd));
	}
	/* Another GSI, then another eventfd: nothing happens. */
	EXPECT_EQ(0, irqfd(&self->vm, self->fd, GSI + 1, DEASSIGN));
	EXPECT_EQ(0, eventfd_write(self->fd, 1));
	EXPECT_TRUE(reaches(&self->counters[0], 101));
	EXPECT_EQ(0, irqfd(&self->vm, self->fd, GSI, DEASSIGN));
	EXPECT_EQ(0, eventfd_write(self->fd, 7));
	sleep_ms(20);
	EXPECT_EQ(101, self->counters[0]);
	EXPECT_EQ(7, taken(self->fd));
}

TEST_F(irqfd, one_eventfd_one_irqfd)
{
	struct vcpu vcpu;
	struct vm other;
	int copy;

	ASSERT_TRUE(create(&other, &vcpu));
	ASSERT_EQ(0, irqfd(&self->vm, self->fd, GSI, 0));
	EXPECT_EQ(-EBUSY, irqfd(&self->vm, self->fd, GSI, 0));
	EXPECT_EQ(-EBUSY, irqfd(&self->vm, self->fd, GSI + 1, 0));
	EXPECT_EQ(-EBUSY, irqfd(&other, self->fd, GSI, 0));
	copy = dup(self->fd);
	EXPECT_EQ(-EBUSY, irqfd(&other, copy, GSI, 0));
	EXPECT_EQ(0, irqfd(&other, copy, GSI, DEASSIGN));
	EXPECT_EQ(-EBUSY, irqfd(&other, copy, GSI, 0));
	/* The copy is as good to take it back. */
	EXPECT_EQ(0, irqfd(&self->vm, copy, GSI, DEASSIGN));
	EXPECT_EQ(0, irqfd(&other, self->fd, GSI, 0));
	/* It goes with the VM's file, though the vCPU's keeps the VM. */
	close(other.fd);
	EXPECT_EQ(0, irqfd(&self->vm, self->fd, GSI, 0));
	EXPECT_EQ(0, eventfd_write(self->fd, 1));
	EXPECT_TRUE(reaches(&self->counters[0], 1));
	other.fd = dup(copy);
	vcpu_destroy(&vcpu);
	vm_destroy(&other);
	close(copy);
}

/* What was written before counts as written, and is left there. */
TEST_F(irqfd, pending_when_assigned)
{
	ASSERT_EQ(0, eventfd_write(self->fd, 5));
	ASSERT_EQ(0, irqfd(&self->vm, self->fd, GSI, 0));
	EXPECT_TRUE(reaches(&self->counters[0], 1));
	EXPECT_EQ(5, taken(self->fd));
	EXPECT_EQ(0, eventfd_write(self->fd, 1));
	EXPECT_TRUE(reaches(&self->counters[0], 2));
	EXPECT_EQ(0, taken(self->fd));
}

TEST_F(irqfd, follows_routes)
{
	unsigned int i;

	ASSERT_EQ(0, irqfd(&self->vm, self->fd, GSI, 0));
	for (i = 1; i <= 20; i++) {
		route(&self->vm, VECTOR + 1);
		ASSERT_EQ(0, eventfd_write(self->fd, 1));
		ASSERT_TRUE(reaches(&self->counters[1], i));
		ASSERT_EQ(i - 1, self->counters[0]);
		route(&self->vm, 0);
		ASSERT_EQ(0, eventfd_write(self->fd, 1));
		ASSERT_EQ(0, taken(self->fd));
		route(&self->vm, VECTOR);
		ASSERT_EQ(0, eventfd_write(self->fd, 1));
		ASSERT_TRUE(reaches(&self->counters[0], i));
	}
}

/* An eventfd that is closed while it is one of the guest's takes its irqfd along. */
TEST_F(irqfd, eventfd_closed_first)
{
	int fds[64], fd;
	unsigned int i, k;

	for (k = 0; k < 5; k++) {
		for (i = 0; i < 64; i++) {
			fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
			ASSERT_EQ(0, irqfd(&self->vm, fds[i], GSI, 0));
		}
		/* The last write and the closing come together. */
		for (i = 0; i < 64; i++) {
			ASSERT_EQ(0, eventfd_write(fds[i], 1));
			close(fds[i]);
		}
		ASSERT_EQ(0, irqfd(&self->vm, self->fd, GSI, 0));
		ASSERT_EQ(0, irqfd(&self->vm, self->fd, GSI, DEASSIGN));
	}
	EXPECT_EQ(-EBADF, irqfd(&self->vm, fds[0], GSI, DEASSIGN));
	/* Some are still closing when the VM goes. */
	for (i = 0; i < 64; i++) {
		fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		ASSERT_EQ(0, irqfd(&self->vm, fd, GSI, 0));
		close(fd);
	}
	EXPECT_LT(0, self->counters[0]);
}

static volatile bool stop;

/* Assigns and deassigns an eventfd, and changes routes elsewhere. */
static void *juggle(void *data)
{
	FIXTURE_DATA(irqfd) *self = data;
	long rounds = 0;

	while (!stop) {
		int error = irqfd(&self->vm, self->fd, GSI, 0);

		if (error && error != -EBUSY)
			die("assign: %d", error);
		if (!(rounds++ & 3))
			route(&self->vm, VECTOR);
		irqfd(&self->vm, self->fd, GSI, DEASSIGN);
	}
	return (void *)rounds;
}

/*
 * Two that assign and deassign, and one that writes. A write is an interrupt or
 * stays in the counter; it is one of both or, where it was there already when
 * an irqfd came, both: never none.
 */
TEST_F(irqfd, none_lost_while_they_change)
{
	uint64_t interrupts = 0, kept = 0, both = 0;
	pthread_t threads[2];
	unsigned int i, k;
	void *rounds[2];

	stop = false;
	for (i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, juggle, self);
	for (i = 0; i < 1000; i++) {
		uint64_t before = self->counters[0], count;

		ASSERT_EQ(0, eventfd_write(self->fd, 1));
		for (k = 0; k < 20000; k++) {
			/* The counter first: what it shows may still become an interrupt. */
			count = taken(self->fd);
			if (count || self->counters[0] != before)
				break;
			sched_yield();
		}
		ASSERT_LT(k, 20000) TH_LOG("write %u is lost", i);
		interrupts += self->counters[0] != before;
		kept += count;
		both += count && self->counters[0] != before;
	}
	stop = true;
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], &rounds[i]);
	TH_LOG("%lu interrupts, %lu kept, %lu both, %ld and %ld changes", interrupts,
	       kept, both, (long)rounds[0], (long)rounds[1]);
	EXPECT_LT(0, interrupts);
	EXPECT_LT(0, kept);
	/* And it works as before. */
	taken(self->fd);
	sleep_ms(10);
	interrupts = self->counters[0];
	ASSERT_EQ(0, irqfd(&self->vm, self->fd, GSI, 0));
	ASSERT_EQ(0, eventfd_write(self->fd, 1));
	EXPECT_TRUE(reaches(&self->counters[0], interrupts + 1));
}

#define LEVEL_GSI	10

static int share_line(struct vm *vm, int fd, int resample_fd)
{
	struct kvm_irqfd request = {
		.fd = fd, .gsi = LEVEL_GSI, .flags = KVM_IRQFD_FLAG_RESAMPLE,
		.resamplefd = resample_fd,
	};

	return try_ioctl(vm->fd, KVM_IRQFD, (unsigned long)&request);
}

/*
 * Two devices share a level-triggered pin. Each end of an interrupt lowers the
 * line and tells both; one that wants more raises it again.
 */
TEST(resample)
{
	struct kvm_irq_routing_entry pin =
		irq_pin_route(LEVEL_GSI, KVM_IRQCHIP_IOAPIC, LEVEL_GSI);
	struct runner runner = { 0 };
	unsigned int i, k, busy;
	int fds[2], tells[2];
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, SZ_2M);
	ASSERT_EQ(0, vm_create_irqchip(&vm));
	vcpu_start(&vcpu, &vm, MODE_LONG);
	irq_install_handlers(&vm);
	irq_load_idt(&vcpu);
	ASSERT_EQ(0, irq_set_routes(&vm, &pin, 1));
	irq_set_entry(&vm, LEVEL_GSI, VECTOR | ENTRY_LEVEL);
	for (i = 0; i < 2; i++) {
		fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		tells[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		ASSERT_EQ(0, share_line(&vm, fds[i], tells[i]));
	}
	EXPECT_EQ(-EBUSY, share_line(&vm, fds[0], tells[0]));
	vm_load(&vm, CODE_GPA, irq_guest_halt);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	runner.vcpu = &vcpu;
	runner_start(&runner);
	for (i = 1; i <= 50; i++) {
		busy = i & 1;
		ASSERT_EQ(0, eventfd_write(fds[busy], 1));
		ASSERT_TRUE(irq_wait_count(&vm, VECTOR, i));
		for (k = 0; k < 2; k++) {
			uint64_t told = 0;
			unsigned int tries;

			for (tries = 0; tries < 20000 && !told; tries++) {
				told = taken(tells[k]);
				if (!told)
					usleep(100);
			}
			ASSERT_EQ(1, told) TH_LOG("round %u, device %u", i, k);
		}
	}
	/* It is down: nothing more comes, until one wants it. */
	sleep_ms(20);
	EXPECT_EQ(50, irq_count(&vm, VECTOR));
	EXPECT_EQ(0, taken(tells[0]));
	/* One goes, while its interrupt is on the line: it is the other's yet. */
	ASSERT_EQ(0, irqfd(&vm, fds[0], LEVEL_GSI, DEASSIGN));
	ASSERT_EQ(0, eventfd_write(fds[1], 1));
	EXPECT_TRUE(irq_wait_count(&vm, VECTOR, 51));
	sleep_ms(20);
	EXPECT_EQ(0, taken(tells[0]));
	EXPECT_EQ(1, taken(tells[1]));
	/* The last one leaves the line down, and its eventfd closed is as good. */
	runner_stop(&runner);
	ASSERT_EQ(0, eventfd_write(fds[1], 1));
	close(fds[1]);
	/* Who removes it is asked for, and may be slow. */
	sleep_ms(500);
	runner_start(&runner);
	sleep_ms(20);
	EXPECT_GE(52, irq_count(&vm, VECTOR));
	EXPECT_EQ(0, taken(tells[1]));
	EXPECT_EQ(0, share_line(&vm, fds[0], tells[0]));
	k = irq_count(&vm, VECTOR);
	ASSERT_EQ(0, eventfd_write(fds[0], 1));
	EXPECT_TRUE(irq_wait_count(&vm, VECTOR, k + 1));
	runner_stop(&runner);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	close(fds[0]);
	close(tells[0]);
	close(tells[1]);
}

TEST(needs_a_controller)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct vm vm;

	vm_create(&vm, SZ_2M);
	EXPECT_EQ(-EINVAL, irqfd(&vm, fd, GSI, 0));
	EXPECT_EQ(0, irqfd(&vm, fd, GSI, DEASSIGN));
	vm_destroy(&vm);
	close(fd);
}

TEST_HARNESS_MAIN
