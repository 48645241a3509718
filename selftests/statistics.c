// SPDX-License-Identifier: GPL-2.0
/*
 * The statistics of KVM_GET_STATS_FD: kvm_rs has all that kvm_intel has, of the
 * same kind, but for those below; and what their histograms count.
 */
#include <pthread.h>
#include <time.h>

#include "kselftest_harness.h"
#include "vm.h"

#define MAX		128

/* What counts something that kvm_rs does not have. */
static const char *const not_there[] = {
	/* the pages of shadow paging */
	"mmu_shadow_zapped", "mmu_pte_write", "mmu_pde_zapped", "mmu_flooded", "mmu_recycled",
	"mmu_cache_miss", "mmu_unsync", "mmu_shadow_pages", "max_mmu_rmap_size",
	"max_mmu_page_hash_collisions",
	/* each time that a thread with a vCPU is preempted, whether or not the guest is told */
	"preemption_reported", "preemption_other",
};

struct stats {
	unsigned int n;
	struct {
		char name[64];
		struct kvm_stats_desc desc;
	} stats[MAX];
	int fd;
	uint32_t data;
};

static void read_stats(struct stats *s, int fd)
{
	struct kvm_stats_header header;
	unsigned int i;

	s->fd = xioctl(fd, KVM_GET_STATS_FD, 0);
	if (pread(s->fd, &header, sizeof(header), 0) != sizeof(header) || header.num_desc > MAX)
		die("header");
	s->n = header.num_desc;
	s->data = header.data_offset;
	for (i = 0; i < s->n; i++) {
		off_t at = header.desc_offset + i * (sizeof(s->stats[i].desc) + header.name_size);

		if (pread(s->fd, &s->stats[i].desc, sizeof(s->stats[i].desc), at) < 0 ||
		    pread(s->fd, s->stats[i].name, header.name_size,
			  at + sizeof(s->stats[i].desc)) != header.name_size)
			die("descriptor %u", i);
	}
}

static int find(struct stats *s, const char *name)
{
	unsigned int i;

	for (i = 0; i < s->n; i++)
		if (!strcmp(s->stats[i].name, name))
			return i;
	return -1;
}

/* The sum of a statistic's values. */
static uint64_t sum(struct stats *s, const char *name)
{
	uint64_t values[64] = {}, total = 0;
	int i, at = find(s, name);
	size_t size;

	if (at < 0)
		die("no %s", name);
	size = s->stats[at].desc.size * sizeof(values[0]);
	if (size > sizeof(values) ||
	    pread(s->fd, values, size, s->data + s->stats[at].desc.offset) != size)
		die("%s", name);
	for (i = 0; i < 64; i++)
		total += values[i];
	return total;
}

static void compare(struct __test_metadata *_metadata, int ours_fd, int theirs_fd)
{
	static struct stats ours, theirs;
	unsigned int i, n = 0;

	read_stats(&ours, ours_fd);
	read_stats(&theirs, theirs_fd);
	for (i = 0; i < theirs.n; i++) {
		const char *name = theirs.stats[i].name;
		struct kvm_stats_desc *a, *b = &theirs.stats[i].desc;
		bool expected = true;
		int at = find(&ours, name);
		unsigned int k;

		for (k = 0; k < sizeof(not_there) / sizeof(not_there[0]); k++)
			expected &= !!strcmp(name, not_there[k]);
		EXPECT_EQ(at >= 0, expected) TH_LOG("%s", name);
		if (at < 0)
			continue;
		a = &ours.stats[at].desc;
		EXPECT_EQ(a->flags, b->flags) TH_LOG("%s", name);
		EXPECT_EQ(a->exponent, b->exponent) TH_LOG("%s", name);
		EXPECT_EQ(a->size, b->size) TH_LOG("%s", name);
		EXPECT_EQ(a->bucket_size, b->bucket_size) TH_LOG("%s", name);
		n++;
	}
	/* And no others. */
	EXPECT_EQ(n, ours.n);
	TH_LOG("%u in common, %u of kvm_intel alone", n, theirs.n - n);
	close(ours.fd);
	close(theirs.fd);
}

TEST(as_in_kvm)
{
	static const char *const devices[] = { "/dev/kvm-rs", "/dev/kvm" };
	struct vcpu vcpus[2];
	struct vm vms[2];
	unsigned int i;

	for (i = 0; i < 2; i++) {
		if (access(devices[i], F_OK))
			SKIP(return, "needs %s", devices[i]);
		setenv("KVM_RS_DEVICE", devices[i], 1);
		if (device_is_kvm_rs() == i)
			SKIP(return, "both are the same");
		vm_create(&vms[i], VM_MEMORY);
		vcpu_create(&vcpus[i], &vms[i], 0);
	}
	compare(_metadata, vms[0].fd, vms[1].fd);
	compare(_metadata, vcpus[0].fd, vcpus[1].fd);
	unsetenv("KVM_RS_DEVICE");
	for (i = 0; i < 2; i++) {
		vcpu_destroy(&vcpus[i]);
		vm_destroy(&vms[i]);
	}
}

/* Enables the local APIC, and halts. */
GUEST_CODE(halts, 64,
	"	movl $0xfee000f0, %eax\n"
	"	movl $0x1ff, (%rax)\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	sti\n"
	"	hlt\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static void *wake(void *arg)
{
	struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };
	struct vcpu *vcpu = arg;
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 4 << 8 };

	nanosleep(&pause, NULL);
	xioctl(vcpu->vm->fd, KVM_SIGNAL_MSI, &msi);
	return NULL;
}

/* A halt is in the histogram of sleeps, and polling before it in that of polls in vain. */
TEST(histograms)
{
	static struct stats stats;
	pthread_t thread;
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, VM_MEMORY);
	if (try_ioctl(vm.fd, KVM_CREATE_IRQCHIP, 0))
		SKIP(return, "no local APIC");
	vcpu_start(&vcpu, &vm, MODE_LONG);
	vm_load(&vm, CODE_GPA, halts);
	read_stats(&stats, vcpu.fd);
	EXPECT_EQ(sum(&stats, "halt_wait_hist"), 0);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	pthread_create(&thread, NULL, wake, &vcpu);
	/* The NMI wakes it, and its handler tells. */
	vcpu_run_to_port(&vcpu, PORT_EXCEPTION);
	pthread_join(thread, NULL);
	EXPECT_EQ(sum(&stats, "halt_wait_hist"), 1);
	EXPECT_EQ(sum(&stats, "halt_exits"), 1);
	EXPECT_EQ(sum(&stats, "halt_poll_success_hist"), sum(&stats, "halt_successful_poll"));
	EXPECT_EQ(sum(&stats, "halt_poll_success_hist") + sum(&stats, "halt_poll_fail_hist"),
		  sum(&stats, "halt_attempted_poll"));
	EXPECT_EQ(sum(&stats, "l1d_flush") > sum(&stats, "exits"), false);
	close(stats.fd);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
