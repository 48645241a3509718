// SPDX-License-Identifier: GPL-2.0
/*
 * A vCPU thread goes from one CPU to another, while its guest runs and between
 * two runs; two VMs change places; a CPU goes away and comes back with vCPUs
 * that last ran on it, and under four that are shuffled. Each guest's checksum
 * of all its state (lib/checksum.h) must come out as on a CPU that never changed.
 * Needs two CPUs.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

#include "kselftest_harness.h"
#include "checksum.h"

#define ROUNDS		40
#define STEPS		2048

struct guest {
	struct vm vm;
	struct vcpu vcpu;
	struct checksum sum;
};

static void start(struct guest *g, uint64_t seed)
{
	memset(g, 0, sizeof(*g));
	vm_create(&g->vm, CHECKSUM_MEMORY);
	vcpu_create(&g->vcpu, &g->vm, 0);
	vcpu_set_supported_cpuid(&g->vcpu);
	checksum_start(&g->sum, &g->vcpu, seed, STEPS, false);
}

static void stop_at(struct guest *g, uint64_t report)
{
	checksum_shared(&g->vm)->stop_at = report;
}

static bool check(struct guest *g, unsigned int reports)
{
	vcpu_complete(&g->vcpu);
	checksum_follow(&g->sum, reports);
	return checksum_check(&g->sum, &g->vcpu);
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
		g.sum.r13 = regs.r13 = i * 0x12345 + 1;
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
	volatile long migrations;
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

/* The thread is moved under a guest that rarely exits by itself. */
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

/* Where the threads below may run is changed all the time, by a thread of its own. */
static struct thread shuffled[4];
static volatile bool shuffling;
static volatile unsigned int moves;

static void *shuffle(void *arg)
{
	unsigned int random = 1, i;
	cpu_set_t set;

	while (shuffling) {
		for (i = 0; i < 4; i++) {
			random = random * 1103515245 + 12345;
			CPU_ZERO(&set);
			CPU_SET(random >> 16 & 1, &set);
			if (random & 0x60000)
				CPU_SET(!(random >> 16 & 1), &set);
			/* It fails for a CPU that is away, and a thread at its end. */
			if (!shuffled[i].done && !sched_setaffinity(shuffled[i].tid, sizeof(set), &set))
				moves++;
		}
		usleep(500);
	}
	return NULL;
}

/* How often the kernel took a thread from one CPU to another; -1 if it does not tell. */
static long migrations(pid_t tid)
{
	char path[64], line[128];
	long value = -1;
	FILE *file;

	sprintf(path, "/proc/self/task/%d/sched", tid);
	file = fopen(path, "r");
	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, "se.nr_migrations", 16) && strchr(line, ':'))
			value = atol(strchr(line, ':') + 1);
	fclose(file);
	return value;
}

/* Runs its guest to its end, and waits until it is told that it may go. */
static void *run_to_the_end(void *arg)
{
	struct thread *t = arg;

	run_guest(t);
	t->migrations = migrations(t->tid);
	return NULL;
}

/*
 * Four guests shuffled over two CPUs, one of which goes and comes; and the
 * flushes that it takes are those for moves, not more.
 */
TEST(shuffle_and_hotplug)
{
	unsigned int i, offline = 0, reports = 600;
	static struct guest guests[4];
	long flushes, bound = 0;
	bool known = true;
	pthread_t shuffler;

	if (cpus() < 2)
		SKIP(return, "one CPU only");
	if (access("/sys/devices/system/cpu/cpu1/online", W_OK))
		SKIP(return, "CPU 1 cannot be taken offline");
	flushes = module_stat("invvpid_single") + module_stat("invvpid_all");
	for (i = 0; i < 4; i++) {
		start(&guests[i], 5000 + i);
		stop_at(&guests[i], reports);
		shuffled[i] = (struct thread) { .guest = &guests[i] };
		pthread_create(&shuffled[i].thread, NULL, run_to_the_end, &shuffled[i]);
	}
	for (i = 0; i < 4; i++) {
		while (!shuffled[i].tid)
			usleep(100);
	}
	shuffling = true;
	pthread_create(&shuffler, NULL, shuffle, NULL);
	while (!shuffled[0].done || !shuffled[1].done || !shuffled[2].done || !shuffled[3].done) {
		ASSERT_EQ(set_online(offline & 1), 0);
		offline++;
		usleep(10000);
	}
	shuffling = false;
	pthread_join(shuffler, NULL);
	ASSERT_EQ(set_online(1), 0);
	for (i = 0; i < 4; i++) {
		pthread_join(shuffled[i].thread, NULL);
		ASSERT_EQ(shuffled[i].ret, 0);
		ASSERT_EQ(guests[i].vcpu.run->exit_reason, KVM_EXIT_IO);
		EXPECT_EQ(check(&guests[i], reports), true) TH_LOG("guest %u", i);
		finish(&guests[i]);
		known &= shuffled[i].migrations >= 0;
		bound += shuffled[i].migrations;
	}
	EXPECT_GT(moves, 50);
	EXPECT_GT(offline, 6);
	TH_LOG("%u changes of affinity, %ld moves, CPU 1 went %u times", moves, bound,
	       (offline + 1) / 2);
	if (!device_is_kvm_rs() || module_stat("exits") < 0 || !known)
		return;
	/* One for each guest's first time, and for each that a CPU gave up when it went. */
	bound += 4 + 4 * ((offline + 1) / 2);
	flushes = module_stat("invvpid_single") + module_stat("invvpid_all") - flushes;
	TH_LOG("%ld INVVPIDs, at most %ld", flushes, bound);
	EXPECT_LE(flushes, bound);
	EXPECT_GE(flushes, module_parameter("vpid") == 'Y' ? 8 : 0);
}

TEST_HARNESS_MAIN
