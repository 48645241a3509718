// SPDX-License-Identifier: GPL-2.0
/*
 * A vCPU thread goes from one CPU to another, while its guest runs and between
 * two runs; two VMs change places; a CPU goes away and comes back with vCPUs
 * that last ran on it. The guest's checksum of its registers and memory must
 * come out as on a CPU that never changed. Needs two CPUs.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

#include "kselftest_harness.h"
#include "vm.h"

#define ROUNDS		40

/*
 * A generator in registers (%rax, %r8-%r15, %xmm0, %fs base) and 512 words of
 * memory, which all go into the sum in %rax. Reports every 2048 steps.
 */
GUEST_CODE(checksum, 64,
	"	sti\n"
	"1:	movl $2048, %ecx\n"
	"2:	movq %rax, %rdx\n"
	"	shlq $13, %rdx\n"
	"	xorq %rdx, %rax\n"
	"	movq %rax, %rdx\n"
	"	shrq $7, %rdx\n"
	"	xorq %rdx, %rax\n"
	"	movq %rax, %rdx\n"
	"	shlq $17, %rdx\n"
	"	xorq %rdx, %rax\n"
	"	movq %rcx, %rbx\n"
	"	andl $511, %ebx\n"
	"	addq %rax, %fs:(,%rbx,8)\n"
	"	addq %fs:8, %rax\n"
	"	addq %rax, %r8\n"
	"	xorq %r8, %r15\n"
	"	addq %r15, %r11\n"
	"	movq %rax, %xmm1\n"
	"	paddq %xmm1, %xmm0\n"
	"	decl %ecx\n"
	"	jnz 2b\n"
	"	movq %xmm0, %rdx\n"
	"	xorq %rdx, %rax\n"
	"	addq %r11, %rax\n"
	"	incq 0x110000\n"
	"	cmpq %r14, 0x110000\n"
	"	jb 1b\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");

/* The same on the client's side. */
struct model {
	uint64_t rax, r8, r11, r15, xmm0, mem[512];
};

static void model_run(struct model *m, unsigned int reports)
{
	unsigned int ecx;

	while (reports--) {
		for (ecx = 2048; ecx; ecx--) {
			m->rax ^= m->rax << 13;
			m->rax ^= m->rax >> 7;
			m->rax ^= m->rax << 17;
			m->mem[ecx & 511] += m->rax;
			m->rax += m->mem[1];
			m->r8 += m->rax;
			m->r15 ^= m->r8;
			m->r11 += m->r15;
			m->xmm0 += m->rax;
		}
		m->rax ^= m->xmm0;
		m->rax += m->r11;
	}
}

struct guest {
	struct vm vm;
	struct vcpu vcpu;
	struct model model;
	volatile uint64_t *reports;
};

static void start(struct guest *g, uint64_t seed)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	memset(g, 0, sizeof(*g));
	vm_create(&g->vm, VM_MEMORY);
	vcpu_start(&g->vcpu, &g->vm, MODE_LONG);
	vm_load(&g->vm, CODE_GPA, checksum);
	sregs = vcpu_sregs(&g->vcpu);
	sregs.fs.base = DATA_GPA;
	vcpu_set_sregs(&g->vcpu, &sregs);
	regs = vcpu_regs(&g->vcpu);
	regs.rax = g->model.rax = seed;
	vcpu_set_regs(&g->vcpu, &regs);
	g->reports = vm_u64(&g->vm, 0x110000);
}

/* Sets at which report the guest stops; between two runs only. */
static void stop_at(struct guest *g, uint64_t report)
{
	struct kvm_regs regs = vcpu_regs(&g->vcpu);

	regs.r14 = report;
	vcpu_set_regs(&g->vcpu, &regs);
}

static bool check(struct guest *g, unsigned int reports)
{
	struct kvm_regs regs = vcpu_regs(&g->vcpu);

	model_run(&g->model, reports);
	return regs.rax == g->model.rax && regs.r8 == g->model.r8 &&
	       regs.r15 == g->model.r15 &&
	       !memcmp(g->vm.mem + DATA_GPA, g->model.mem, sizeof(g->model.mem));
}

static void finish(struct guest *g)
{
	vcpu_destroy(&g->vcpu);
	vm_destroy(&g->vm);
}

static int move_to(pid_t tid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(tid, sizeof(set), &set);
}

static int cpus(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN);
}

TEST(between_runs)
{
	struct guest g;
	unsigned int i;

	if (cpus() < 2)
		SKIP(return, "one CPU only");
	start(&g, 12345);
	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(move_to(0, i & 1), 0);
		stop_at(&g, i + 1);
		vcpu_run_to_port(&g.vcpu, PORT_SYNC);
		ASSERT_EQ(check(&g, 1), true) TH_LOG("round %u", i);
		EXPECT_EQ(sched_getcpu(), i & 1);
	}
	finish(&g);
}

/* Registers are read and written on the other CPU than the last run's. */
TEST(state_from_the_other_cpu)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct guest g;
	unsigned int i;

	if (cpus() < 2)
		SKIP(return, "one CPU only");
	start(&g, 999);
	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(move_to(0, i & 1), 0);
		stop_at(&g, i + 1);
		vcpu_run_to_port(&g.vcpu, PORT_SYNC);
		ASSERT_EQ(move_to(0, !(i & 1)), 0);
		ASSERT_EQ(check(&g, 1), true) TH_LOG("round %u", i);
		regs = vcpu_regs(&g.vcpu);
		sregs = vcpu_sregs(&g.vcpu);
		EXPECT_EQ(sregs.fs.base, DATA_GPA);
		g.model.rax = regs.rax = i * 0x12345 + 1;
		vcpu_set_regs(&g.vcpu, &regs);
		vcpu_set_sregs(&g.vcpu, &sregs);
		ASSERT_EQ(move_to(0, i & 1), 0);
	}
	finish(&g);
}

struct thread {
	struct guest *guest;
	pthread_t thread;
	volatile pid_t tid;
	volatile int ret;
	volatile bool done;
};

static void *run_guest(void *arg)
{
	struct thread *t = arg;

	t->tid = syscall(SYS_gettid);
	do
		t->ret = vcpu_run(&t->guest->vcpu);
	while (t->ret == -EINTR);
	t->done = true;
	return NULL;
}

/* The thread is moved under a guest that never exits by itself. */
TEST(while_running)
{
	unsigned int moves = 0, reports = 400;
	struct thread t = {};
	struct guest g;

	if (cpus() < 2)
		SKIP(return, "one CPU only");
	start(&g, 777);
	stop_at(&g, reports);
	t.guest = &g;
	pthread_create(&t.thread, NULL, run_guest, &t);
	while (!t.tid)
		usleep(100);
	while (!t.done) {
		ASSERT_EQ(move_to(t.tid, moves & 1), 0);
		moves++;
		usleep(2000);
	}
	pthread_join(t.thread, NULL);
	ASSERT_EQ(t.ret, 0);
	ASSERT_EQ(g.vcpu.run->exit_reason, KVM_EXIT_IO);
	EXPECT_EQ(check(&g, reports), true);
	TH_LOG("%u moves", moves);
	EXPECT_GT(moves, 10);
	finish(&g);
}

/* Two guests, in two threads, trade their CPUs; and two on one. */
TEST(ping_pong)
{
	unsigned int reports = 250, moves = 0;
	struct guest guests[3];
	struct thread t[3] = {};
	unsigned int i;

	if (cpus() < 2)
		SKIP(return, "one CPU only");
	for (i = 0; i < 3; i++) {
		start(&guests[i], 1000 + i);
		stop_at(&guests[i], reports);
		t[i].guest = &guests[i];
		pthread_create(&t[i].thread, NULL, run_guest, &t[i]);
	}
	for (i = 0; i < 3; i++) {
		while (!t[i].tid)
			usleep(100);
	}
	while (!t[0].done || !t[1].done || !t[2].done) {
		for (i = 0; i < 3; i++) {
			if (!t[i].done)
				move_to(t[i].tid, (moves + (i & 1)) & 1);
		}
		moves++;
		usleep(2000);
	}
	for (i = 0; i < 3; i++) {
		pthread_join(t[i].thread, NULL);
		ASSERT_EQ(t[i].ret, 0);
		ASSERT_EQ(guests[i].vcpu.run->exit_reason, KVM_EXIT_IO);
		EXPECT_EQ(check(&guests[i], reports), true);
		finish(&guests[i]);
	}
	EXPECT_GT(moves, 10);
}

static int set_online(int online)
{
	int fd = open("/sys/devices/system/cpu/cpu1/online", O_WRONLY);
	int ret;

	if (fd < 0)
		return -errno;
	ret = write(fd, online ? "1" : "0", 1) == 1 ? 0 : -errno;
	close(fd);
	return ret;
}

/* vCPUs that last ran on a CPU which goes away, and one that runs then. */
TEST(offline_and_online)
{
	unsigned int round, i, reports = 2000;
	struct guest idle, running, late;
	struct thread t = {};

	if (cpus() < 2)
		SKIP(return, "one CPU only");
	if (access("/sys/devices/system/cpu/cpu1/online", W_OK))
		SKIP(return, "CPU 1 cannot be taken offline");
	start(&idle, 31);
	start(&running, 32);
	stop_at(&running, reports);
	t.guest = &running;
	pthread_create(&t.thread, NULL, run_guest, &t);
	while (!t.tid)
		usleep(100);
	for (round = 0; round < 3; round++) {
		cpu_set_t all;

		ASSERT_EQ(move_to(0, 1), 0);
		/* The running guest may have come to its end on a slow machine, but not at once. */
		if (move_to(t.tid, 1))
			ASSERT_GT(round, 0);
		stop_at(&idle, 2 * round + 1);
		vcpu_run_to_port(&idle.vcpu, PORT_SYNC);
		ASSERT_EQ(check(&idle, 1), true);
		/* The kernel moves the threads away. */
		CPU_ZERO(&all);
		CPU_SET(0, &all);
		CPU_SET(1, &all);
		if (sched_setaffinity(t.tid, sizeof(all), &all))
			ASSERT_GT(round, 0);
		ASSERT_EQ(sched_setaffinity(0, sizeof(all), &all), 0);
		ASSERT_EQ(set_online(0), 0);
		ASSERT_EQ(cpus(), 1);
		stop_at(&idle, 2 * round + 2);
		vcpu_run_to_port(&idle.vcpu, PORT_SYNC);
		ASSERT_EQ(check(&idle, 1), true);
		/* A VM made while it is away, to run on it later. */
		start(&late, 33 + round);
		ASSERT_EQ(set_online(1), 0);
		ASSERT_EQ(cpus(), 2);
		ASSERT_EQ(move_to(0, 1), 0);
		for (i = 1; i < 3; i++) {
			stop_at(&late, i);
			vcpu_run_to_port(&late.vcpu, PORT_SYNC);
			ASSERT_EQ(check(&late, 1), true);
		}
		finish(&late);
	}
	while (!t.done) {
		move_to(t.tid, ++round & 1);
		usleep(2000);
	}
	pthread_join(t.thread, NULL);
	ASSERT_EQ(t.ret, 0);
	EXPECT_EQ(check(&running, reports), true);
	finish(&running);
	finish(&idle);
}

TEST_HARNESS_MAIN
