// SPDX-License-Identifier: GPL-2.0
/*
 * Memory slots deleted and made again, MADV_DONTNEED and mprotect, all while
 * vCPUs write to the memory in question. Nothing may hang or oops; a
 * signal ends it, and memory that nobody touched is as it was.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "kselftest_harness.h"
#include "vm.h"

#define SLOT_GPA	0x40000000UL
#define SLOT_SIZE	(2 * SZ_2M)
#define MAX_VCPUS	2
#define MILLISECONDS	1000

/* Writes to all pages of the slot in turn, for ever; counts the rounds. */
GUEST_CODE(writer, 64,
	"	sti\n"
	"1:	movl $0x40000000, %ebx\n"
	"2:	incq (%rbx)\n"
	"	movq (%rbx), %rax\n"
	"	addl $0x1000, %ebx\n"
	"	cmpl $0x40400000, %ebx\n"
	"	jb 2b\n"
	"	lock incq 0x100000\n"
	"	jmp 1b\n");

static struct race {
	struct vm vm;
	struct vcpu vcpus[MAX_VCPUS];
	unsigned int nr_vcpus;
	char *mem;
	volatile bool stop;
	volatile unsigned long runs, mmio, faults, slots, dontneeds, others;
} race;

static void on_signal(int sig)
{
}

static void *run_vcpu(void *arg)
{
	struct vcpu *vcpu = arg;
	long ret = 0;

	while (!race.stop) {
		ret = vcpu_run(vcpu);
		race.runs++;
		if (ret == -EFAULT)
			race.faults++;
		else if (ret == -EINTR)
			continue;
		else if (ret || (vcpu->run->exit_reason != KVM_EXIT_MMIO &&
				 vcpu->run->exit_reason != KVM_EXIT_INTR))
			break;
		else
			race.mmio++;
	}
	if (!race.stop) {
		vcpu_dump(vcpu, ret);
		race.others++;
	}
	return NULL;
}

static void *change_slots(void *arg)
{
	while (!race.stop) {
		if (vm_set_slot(&race.vm, 1, 0, SLOT_GPA, 0, race.mem) ||
		    vm_set_slot(&race.vm, 1, 0, SLOT_GPA, SLOT_SIZE, race.mem))
			die("slot");
		race.slots++;
		sched_yield();
	}
	return NULL;
}

static void *change_memory(void *arg)
{
	unsigned long n = 0, at;

	while (!race.stop) {
		at = n * 7 % (SLOT_SIZE / PAGE);
		madvise(race.mem + at * PAGE, PAGE * (n % 5 + 1) > SLOT_SIZE - at * PAGE ?
			PAGE : PAGE * (n % 5 + 1), MADV_DONTNEED);
		if (n % 16 == 0) {
			mprotect(race.mem + at * PAGE, PAGE, PROT_READ);
			mprotect(race.mem + at * PAGE, PAGE, PROT_READ | PROT_WRITE);
		}
		if (n % 64 == 0)
			madvise(race.mem, SLOT_SIZE, MADV_DONTNEED);
		n++;
		race.dontneeds++;
		if (n % 8 == 0)
			sched_yield();
	}
	return NULL;
}

/*
 * Two vCPUs and changing slots make kvm_intel complain: one may have found no
 * slot where the other has mapped the page of the new slot already, and
 * tdp_mmu_map_handle_target_level() warns of it. There one has to do.
 */
static unsigned int vcpus_for(bool slots)
{
	return slots && !device_is_kvm_rs() ? 1 : MAX_VCPUS;
}

static void start(bool slots, bool huge)
{
	struct sigaction sa = { .sa_handler = on_signal };
	unsigned int i;

	memset(&race, 0, sizeof(race));
	race.nr_vcpus = vcpus_for(slots);
	sigaction(SIGUSR1, &sa, NULL);
	vm_create(&race.vm, VM_MEMORY);
	vm_load(&race.vm, CODE_GPA, writer);
	race.mem = memory_alloc(SLOT_SIZE, SZ_2M);
	madvise(race.mem, SLOT_SIZE, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	if (vm_set_slot(&race.vm, 1, 0, SLOT_GPA, SLOT_SIZE, race.mem))
		die("slot");
	for (i = 0; i < race.nr_vcpus; i++) {
		vcpu_create(&race.vcpus[i], &race.vm, i);
		vcpu_set_supported_cpuid(&race.vcpus[i]);
		vcpu_set_mode(&race.vcpus[i], MODE_LONG);
	}
}

/* The memory is whole: what is there now is what a guest finds and changes. */
static void check_memory(struct __test_metadata *_metadata)
{
	volatile uint64_t *rounds = vm_u64(&race.vm, DATA_GPA);
	unsigned long at, seen = 0;
	pthread_t thread;
	uint64_t before;
	unsigned int i;

	race.stop = false;
	before = *rounds;
	/* An instruction that waits for MMIO must end before RBX is set. */
	vcpu_complete(&race.vcpus[0]);
	memset(race.mem, 0, SLOT_SIZE);
	vcpu_set_mode(&race.vcpus[0], MODE_LONG);
	pthread_create(&thread, NULL, run_vcpu, &race.vcpus[0]);
	for (i = 0; i < 5000 && *rounds < before + 2; i++)
		usleep(1000);
	race.stop = true;
	while (pthread_tryjoin_np(thread, NULL) == EBUSY) {
		pthread_kill(thread, SIGUSR1);
		usleep(1000);
	}
	EXPECT_GE(*rounds, before + 2);
	EXPECT_EQ(race.others, 0);
	for (at = 0; at < SLOT_SIZE; at += PAGE)
		seen += *(volatile uint64_t *)(race.mem + at) >= *rounds - before;
	EXPECT_EQ(seen, SLOT_SIZE / PAGE);
}

static void run_race(struct __test_metadata *_metadata, bool slots, bool memory, bool huge)
{
	pthread_t threads[MAX_VCPUS], slot_thread, memory_thread;
	struct timespec end, now;
	volatile uint64_t *rounds;
	uint64_t before;
	unsigned int i;

	start(slots, huge);
	rounds = vm_u64(&race.vm, DATA_GPA);
	for (i = 0; i < race.nr_vcpus; i++)
		pthread_create(&threads[i], NULL, run_vcpu, &race.vcpus[i]);
	if (slots)
		pthread_create(&slot_thread, NULL, change_slots, NULL);
	if (memory)
		pthread_create(&memory_thread, NULL, change_memory, NULL);

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += MILLISECONDS / 1000;
	do {
		usleep(10000);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec ||
		 (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));

	race.stop = true;
	if (slots)
		pthread_join(slot_thread, NULL);
	if (memory)
		pthread_join(memory_thread, NULL);
	/* Nothing disturbs the guests now: they make progress, until signalled. */
	before = *rounds;
	for (i = 0; i < 1000 && *rounds == before; i++)
		usleep(1000);
	for (i = 0; i < race.nr_vcpus; i++) {
		while (pthread_tryjoin_np(threads[i], NULL) == EBUSY) {
			pthread_kill(threads[i], SIGUSR1);
			usleep(1000);
		}
	}
	TH_LOG("%lu rounds, %lu runs, %lu mmio, %lu faults, %lu slots, %lu dontneeds",
	       (unsigned long)*rounds, race.runs, race.mmio, race.faults,
	       race.slots, race.dontneeds);
	EXPECT_EQ(race.others, 0);
	EXPECT_GT(slots ? race.slots : 1, 0);
	EXPECT_GT(memory ? race.dontneeds : 1, 0);

	check_memory(_metadata);
	for (i = 0; i < race.nr_vcpus; i++)
		vcpu_destroy(&race.vcpus[i]);
	vm_destroy(&race.vm);
}

TEST(slots_and_run)
{
	run_race(_metadata, true, false, false);
}

TEST(dontneed_and_run)
{
	run_race(_metadata, false, true, false);
}

TEST(dontneed_and_run_huge)
{
	run_race(_metadata, false, true, true);
}

TEST(all_at_once)
{
	run_race(_metadata, true, true, true);
}

/* A VM killed in the middle of it. */
TEST(killed_in_the_middle)
{
	pid_t child = fork();
	int status;

	ASSERT_GE(child, 0);
	if (!child) {
		struct __test_metadata dummy = *_metadata;

		run_race(&dummy, true, true, true);
		_exit(0);
	}
	usleep(300000);
	ASSERT_EQ(kill(child, SIGKILL), 0);
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(WIFSIGNALED(status), true);
}

TEST_HARNESS_MAIN
