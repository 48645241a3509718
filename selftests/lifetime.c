// SPDX-License-Identifier: GPL-2.0
/*
 * VMs and vCPUs in the hands of processes that do what they please: fds closed
 * in any order, fork, kill, threads that share a vCPU, and signals.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "kselftest_harness.h"
#include "vm.h"

GUEST_CODE(count_and_report, 64,
	"1:	incq 0x100000\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");
/*
 * Runs for ever; word 0 shows that it does. Interrupts are on, though they end
 * the guest's turn in any case: not every emulator of VT-x knows that.
 */
GUEST_CODE(spin, 64,
	"	sti\n"
	"1:	incq 0x100000\n"
	"	jmp 1b\n");

/* The same at 1G. */
GUEST_CODE(spin_shared, 64,
	"	sti\n"
	"1:	incq 0x40000000\n"
	"	jmp 1b\n");

static void start(struct vm *vm, struct vcpu *vcpu, const char *code, const char *end)
{
	vm_create(vm, VM_MEMORY);
	vcpu_start(vcpu, vm, MODE_LONG);
	__vm_load(vm, CODE_GPA, code, end);
}
#define START(vm, vcpu, code)	start(vm, vcpu, code, code##_end)

static void run_some(struct __test_metadata *_metadata, struct vcpu *vcpu,
		     volatile uint64_t *word)
{
	uint64_t before = *word, i;

	for (i = 0; i < 5; i++)
		vcpu_run_to_port(vcpu, PORT_SYNC);
	EXPECT_EQ(*word, before + 5);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

/*
 * Every order of closing the device, the VM, the vCPU and the mapping, after
 * some exits. As long as the vCPU's fd is there it runs.
 */
TEST(close_in_any_order)
{
	static const char * const orders[] = {
		"dvcm", "dvmc", "dcvm", "dcmv", "dmvc", "dmcv",
		"vdcm", "vdmc", "vcdm", "vcmd", "vmdc", "vmcd",
		"cdvm", "cdmv", "cvdm", "cvmd", "cmdv", "cmvd",
		"mdvc", "mdcv", "mvdc", "mvcd", "mcdv", "mcvd",
	};
	unsigned int i, k;
	struct vcpu vcpu;
	struct vm vm;

	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		bool open = true, mapped = true;

		START(&vm, &vcpu, count_and_report);
		run_some(_metadata, &vcpu, vm_u64(&vm, DATA_GPA));
		for (k = 0; k < 4; k++) {
			switch (orders[i][k]) {
			case 'd':
				ASSERT_EQ(close(vm.dev), 0);
				break;
			case 'v':
				ASSERT_EQ(close(vm.fd), 0);
				break;
			case 'c':
				ASSERT_EQ(close(vcpu.fd), 0);
				open = false;
				break;
			case 'm':
				ASSERT_EQ(munmap(vcpu.run, vcpu.run_size), 0);
				mapped = false;
				break;
			}
			if (open && mapped)
				run_some(_metadata, &vcpu, vm_u64(&vm, DATA_GPA));
			ASSERT_EQ(open ? vcpu_run(&vcpu) : 0, 0);
			ASSERT_EQ(mapped ? vcpu.run->exit_reason : KVM_EXIT_IO,
				  KVM_EXIT_IO);
		}
		munmap(vm.mem, vm.size);
	}
}

/* The guest's memory unmapped under a VM, then the VM closed, or not at all. */
TEST(memory_goes_first)
{
	struct vcpu vcpu;
	struct vm vm;

	START(&vm, &vcpu, count_and_report);
	run_some(_metadata, &vcpu, vm_u64(&vm, DATA_GPA));
	ASSERT_EQ(munmap(vm.mem, vm.size), 0);
	vm.mem = NULL;
	ASSERT_EQ(vcpu_run(&vcpu), -EFAULT);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	/* And one that exit() has to clean up. */
	START(&vm, &vcpu, count_and_report);
	run_some(_metadata, &vcpu, vm_u64(&vm, DATA_GPA));
}

/* A VM belongs to the address space that made it: a child gets EIO. */
TEST(fork_inherits_fds)
{
	struct kvm_regs regs;
	struct vcpu vcpu;
	struct vm vm;
	int status;
	pid_t child;

	START(&vm, &vcpu, count_and_report);
	run_some(_metadata, &vcpu, vm_u64(&vm, DATA_GPA));
	child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		if (vcpu_run(&vcpu) != -EIO)
			_exit(10);
		if (try_ioctl(vcpu.fd, KVM_GET_REGS, (long)&regs) != -EIO)
			_exit(11);
		if (try_ioctl(vm.fd, KVM_CREATE_VCPU, 5) != -EIO)
			_exit(12);
		if (vm_set_slot(&vm, 1, 0, MMIO_GPA, PAGE, vm.mem) != -EIO)
			_exit(13);
		if (try_ioctl(vm.dev, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) < 1)
			_exit(14);
		if (vcpu.run->exit_reason != KVM_EXIT_IO)
			_exit(15);
		_exit(0);
	}
	ASSERT_EQ(waitpid(child, &status, 0), child);
	ASSERT_EQ(WIFEXITED(status), true);
	EXPECT_EQ(WEXITSTATUS(status), 0);
	run_some(_metadata, &vcpu, vm_u64(&vm, DATA_GPA));
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* The parent goes, the child keeps the fds: the VM lives on without its mm. */
TEST(child_outlives_parent)
{
	int up[2], status;
	struct vcpu vcpu;
	pid_t parent;
	struct vm vm;
	char c = 0;

	ASSERT_EQ(pipe(up), 0);
	parent = fork();
	ASSERT_GE(parent, 0);
	if (!parent) {
		START(&vm, &vcpu, count_and_report);
		run_some(_metadata, &vcpu, vm_u64(&vm, DATA_GPA));
		if (!fork()) {
			usleep(100000);		/* past the parent's exit */
			c = vcpu_run(&vcpu) == -EIO ? 'y' : 'n';
			close(vm.fd);
			close(vcpu.fd);
			if (write(up[1], &c, 1) != 1)
				_exit(1);
			_exit(0);
		}
		_exit(0);
	}
	ASSERT_EQ(waitpid(parent, &status, 0), parent);
	ASSERT_EQ(read(up[0], &c, 1), 1);
	EXPECT_EQ(c, 'y');
}

/* kill -9 of a process whose guest never exits by itself. */
TEST(kill_in_run)
{
	volatile uint64_t *word;
	struct vcpu vcpu;
	uint64_t then;
	unsigned int i;
	struct vm vm;
	double begin;
	int status;
	pid_t child;

	for (i = 0; i < 3; i++) {
		word = mmap(NULL, SZ_2M, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		ASSERT_NE(word, MAP_FAILED);
		child = fork();
		ASSERT_GE(child, 0);
		if (!child) {
			START(&vm, &vcpu, spin);
			/* The word that the guest counts is the parent's too. */
			if (vm_set_slot(&vm, 1, 0, 0x40000000, SZ_2M, (void *)word))
				_exit(1);
			vm_load(&vm, CODE_GPA, spin_shared);
			vcpu_run(&vcpu);
			_exit(2);
		}
		begin = now();
		while (!*word && now() - begin < 10)
			usleep(1000);
		ASSERT_GT(*word, 0);
		begin = now();
		ASSERT_EQ(kill(child, SIGKILL), 0);
		ASSERT_EQ(waitpid(child, &status, 0), child);
		EXPECT_LT(now() - begin, 1.0);
		EXPECT_EQ(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, true);
		/* Its guest runs no more. */
		then = *word;
		usleep(20000);
		EXPECT_EQ(*word, then);
		munmap((void *)word, SZ_2M);
	}
}

static void on_signal(int sig)
{
}

static void catch_signal(int sig, int flags)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = flags };

	sigaction(sig, &sa, NULL);
}

static void arm_timer(long usec)
{
	struct itimerspec spec = { .it_value.tv_nsec = usec * 1000 };
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	timer_t timer;

	if (timer_create(CLOCK_MONOTONIC, &ev, &timer) || timer_settime(timer, 0, &spec, NULL))
		die("timer: %s", strerror(errno));
}

TEST(signal_ends_run)
{
	struct vcpu vcpu;
	unsigned int i;
	struct vm vm;

	START(&vm, &vcpu, spin);
	for (i = 0; i < 3; i++) {
		uint64_t before = *vm_u64(&vm, DATA_GPA);

		/* Not even SA_RESTART resumes it. */
		catch_signal(SIGALRM, i & 1 ? SA_RESTART : 0);
		vcpu.run->exit_reason = 0x77;
		arm_timer(20000);
		EXPECT_EQ(vcpu_run(&vcpu), -EINTR);
		EXPECT_EQ(vcpu.run->exit_reason, KVM_EXIT_INTR);
		EXPECT_GT(*vm_u64(&vm, DATA_GPA), before);
	}
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* A signal that is ignored or blocked does not end it; the next one does. */
TEST(blocked_signal_does_not_end_run)
{
	struct vcpu vcpu;
	sigset_t set, old;
	struct vm vm;

	START(&vm, &vcpu, count_and_report);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	catch_signal(SIGUSR1, 0);
	sigprocmask(SIG_BLOCK, &set, &old);
	raise(SIGUSR1);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	sigprocmask(SIG_SETMASK, &old, NULL);
	vcpu_run_to_port(&vcpu, PORT_SYNC);

	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* With KVM_SET_SIGNAL_MASK the pending signal is let through. */
TEST(signal_mask)
{
	struct {
		struct kvm_signal_mask head;
		uint8_t mask[8];
	} mask = { .head.len = 8 };
	struct vcpu vcpu;
	sigset_t set, old;
	struct vm vm;
	long ret;

	START(&vm, &vcpu, count_and_report);
	ret = try_ioctl(vcpu.fd, KVM_SET_SIGNAL_MASK, (long)&mask);
	if (ret == -ENOTTY)
		SKIP(return, "no KVM_SET_SIGNAL_MASK");
	ASSERT_EQ(ret, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	catch_signal(SIGUSR1, 0);
	sigprocmask(SIG_BLOCK, &set, &old);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	raise(SIGUSR1);
	EXPECT_EQ(vcpu_run(&vcpu), -EINTR);
	EXPECT_EQ(vcpu.run->exit_reason, KVM_EXIT_INTR);
	sigprocmask(SIG_SETMASK, &old, NULL);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST(immediate_exit)
{
	uint64_t before;
	struct vcpu vcpu;
	struct vm vm;

	START(&vm, &vcpu, spin);
	before = *vm_u64(&vm, DATA_GPA);
	vcpu.run->immediate_exit = 1;
	EXPECT_EQ(vcpu_run(&vcpu), -EINTR);
	EXPECT_EQ(vcpu_run(&vcpu), -EINTR);
	EXPECT_EQ(*vm_u64(&vm, DATA_GPA), before);
	EXPECT_EQ(vcpu_regs(&vcpu).rip, CODE_GPA);
	vcpu.run->immediate_exit = 0;
	catch_signal(SIGALRM, 0);
	arm_timer(20000);
	EXPECT_EQ(vcpu_run(&vcpu), -EINTR);
	EXPECT_GT(*vm_u64(&vm, DATA_GPA), before);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

struct runner {
	struct vcpu *vcpu;
	pthread_t thread;
	volatile pid_t tid;
	volatile long ret;
	volatile bool done;
};

static void *run_thread(void *arg)
{
	struct runner *r = arg;

	r->tid = syscall(SYS_gettid);
	r->ret = vcpu_run(r->vcpu);
	r->done = true;
	return NULL;
}

static void *regs_thread(void *arg)
{
	struct runner *r = arg;
	struct kvm_regs regs;

	r->tid = syscall(SYS_gettid);
	r->ret = try_ioctl(r->vcpu->fd, KVM_GET_REGS, (long)&regs);
	r->done = true;
	return NULL;
}

static void wait_for(volatile uint64_t *word)
{
	uint64_t start = *word;
	double begin = now();

	while (*word == start && now() - begin < 10)
		usleep(1000);
	if (*word == start)
		die("the guest does not run");
}

/*
 * A second thread's ioctl waits for KVM_RUN to end and proceeds afterwards.
 */
TEST(two_threads_on_one_vcpu)
{
	struct runner run = {}, regs = {}, second = {};
	struct vcpu vcpu;
	struct vm vm;

	START(&vm, &vcpu, spin);
	catch_signal(SIGUSR1, 0);
	run.vcpu = regs.vcpu = second.vcpu = &vcpu;
	pthread_create(&run.thread, NULL, run_thread, &run);
	wait_for(vm_u64(&vm, DATA_GPA));

	pthread_create(&regs.thread, NULL, regs_thread, &regs);
	pthread_create(&second.thread, NULL, run_thread, &second);
	usleep(30000);
	EXPECT_EQ(regs.done, false);
	EXPECT_EQ(second.done, false);
	/*
	 * A signal for the waiting KVM_RUN ends it, at once or (as in KVM, whose
	 * wait is only killable) when its turn comes; the first runs on.
	 */
	pthread_kill(second.thread, SIGUSR1);
	wait_for(vm_u64(&vm, DATA_GPA));
	EXPECT_EQ(run.done, false);
	/* The first ends, and the others get their turn. */
	pthread_kill(run.thread, SIGUSR1);
	pthread_join(run.thread, NULL);
	EXPECT_EQ(run.ret, -EINTR);
	pthread_join(second.thread, NULL);
	EXPECT_EQ(second.ret, -EINTR);
	EXPECT_EQ(vcpu.run->exit_reason, KVM_EXIT_INTR);
	pthread_join(regs.thread, NULL);
	EXPECT_EQ(regs.ret, 0);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* The vCPU's fd is closed by one thread while another is in KVM_RUN. */
TEST(close_in_run)
{
	struct runner run = {};
	struct vcpu vcpu;
	struct vm vm;

	START(&vm, &vcpu, spin);
	catch_signal(SIGUSR1, 0);
	run.vcpu = &vcpu;
	pthread_create(&run.thread, NULL, run_thread, &run);
	wait_for(vm_u64(&vm, DATA_GPA));
	ASSERT_EQ(close(vcpu.fd), 0);
	ASSERT_EQ(close(vm.fd), 0);
	wait_for(vm_u64(&vm, DATA_GPA));
	EXPECT_EQ(run.done, false);
	pthread_kill(run.thread, SIGUSR1);
	pthread_join(run.thread, NULL);
	EXPECT_EQ(run.ret, -EINTR);
}

TEST_HARNESS_MAIN
