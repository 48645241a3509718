// SPDX-License-Identifier: GPL-2.0
/*
 * A VM in debugfs: its folder has each statistic, and a folder for each vCPU; it
 * goes with the VM, whoever reads there meanwhile.
 */
#include <dirent.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "kselftest_harness.h"
#include "vm.h"

#define DEBUG		"/sys/kernel/debug"
#define ROUNDS		150

static const char *root(void)
{
	return device_is_kvm_rs() ? DEBUG "/kvm-rs" : DEBUG "/kvm";
}

static void path_of(char *path, size_t size, int vm_fd, const char *name)
{
	snprintf(path, size, "%s/%d-%d/%s", root(), (int)syscall(SYS_gettid), vm_fd, name);
}

static bool is_there(int vm_fd, const char *name)
{
	char path[200];

	path_of(path, sizeof(path), vm_fd, name);
	return !access(path, F_OK);
}

/* The number in a file of the VM; -1 if there is no such file. */
static long value(int vm_fd, const char *name)
{
	char path[200];
	long number = -1;
	FILE *f;

	path_of(path, sizeof(path), vm_fd, name);
	f = fopen(path, "r");
	if (!f)
		return -1;
	if (fscanf(f, "%ld", &number) != 1)
		number = -1;
	fclose(f);
	return number;
}

#define REQUIRE_DEBUGFS()						\
	do {								\
		if (access(root(), F_OK))				\
			SKIP(return, "no debugfs");			\
	} while (0)

GUEST_CODE(ports, 64,
	"	mov $5, %ecx\n"
	"1:	outb %al, $" STR(PORT_SYNC) "\n"
	"	dec %ecx\n"
	"	jnz 1b\n"
	"	cpuid\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Each statistic of the file @of gives has a file in the VM's folder, with the same value. */
static void compare(struct __test_metadata *_metadata, int vm_fd, int of)
{
	struct kvm_stats_header header;
	char descriptor[256];
	unsigned int i, n = 0;
	int fd = xioctl(of, KVM_GET_STATS_FD, 0);

	ASSERT_EQ(pread(fd, &header, sizeof(header), 0), sizeof(header));
	for (i = 0; i < header.num_desc; i++) {
		struct kvm_stats_desc *desc = (struct kvm_stats_desc *)descriptor;
		uint64_t data;

		pread(fd, descriptor, sizeof(*desc) + header.name_size,
		      header.desc_offset + i * (sizeof(*desc) + header.name_size));
		if (desc->size != 1)
			continue;
		pread(fd, &data, sizeof(data), header.data_offset + desc->offset);
		EXPECT_EQ(value(vm_fd, desc->name), data) TH_LOG("%s", desc->name);
		n++;
	}
	EXPECT_GE(n, 4);
	close(fd);
}

TEST(statistics)
{
	struct vcpu vcpu;
	unsigned int i;
	struct vm vm;
	int fd;

	REQUIRE_DEBUGFS();
	vm_create(&vm, VM_MEMORY);
	ASSERT_EQ(is_there(vm.fd, ""), true);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	vm_load(&vm, CODE_GPA, ports);
	EXPECT_EQ(value(vm.fd, "io_exits"), 0);
	for (i = 0; i < 5; i++)
		vcpu_run_to_port(&vcpu, PORT_SYNC);
	vcpu_run_to_port(&vcpu, PORT_DONE);
	EXPECT_EQ(value(vm.fd, "io_exits"), 6);
	EXPECT_GE(value(vm.fd, "exits"), 7);
	compare(_metadata, vm.fd, vm.fd);
	compare(_metadata, vm.fd, vcpu.fd);
	vcpu_destroy(&vcpu);
	/* The vCPU is the VM's as long as that lives, and so is what it did. */
	EXPECT_EQ(value(vm.fd, "io_exits"), 6);
	fd = vm.fd;
	vm_destroy(&vm);
	EXPECT_EQ(is_there(fd, ""), false);
}

TEST(vcpus)
{
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET,
	};
	struct vcpu vcpu, other;
	struct vm vm;
	int64_t offset = -4711;

	REQUIRE_DEBUGFS();
	vm_create(&vm, VM_MEMORY);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	vm_load(&vm, CODE_GPA, ports);
	EXPECT_EQ(is_there(vm.fd, "vcpu7"), false);
	vcpu_create(&other, &vm, 7);
	EXPECT_EQ(is_there(vm.fd, "vcpu7/pid"), true);
	EXPECT_EQ(value(vm.fd, "vcpu0/pid"), 0);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(value(vm.fd, "vcpu0/pid"), syscall(SYS_gettid));
	EXPECT_EQ(value(vm.fd, "vcpu7/pid"), 0);
	EXPECT_EQ(value(vm.fd, "vcpu0/guest_mode"), 0);
	attr.addr = (unsigned long)&offset;
	xioctl(vcpu.fd, KVM_SET_DEVICE_ATTR, &attr);
	EXPECT_EQ(value(vm.fd, "vcpu0/tsc-offset"), -4711);
	xioctl(other.fd, KVM_GET_DEVICE_ATTR, &attr);
	EXPECT_EQ(value(vm.fd, "vcpu7/tsc-offset"), offset);
	EXPECT_EQ(is_there(vm.fd, "vcpu0/tsc-scaling-ratio"),
		  xioctl(vm.dev, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL));
	vcpu_destroy(&vcpu);
	vcpu_destroy(&other);
	vm_destroy(&vm);
}

/* A VM lives on by its vCPUs, and keeps its name from another one. */
TEST(name_in_use)
{
	int dev, vm, again, vcpu;

	REQUIRE_DEBUGFS();
	dev = device_open();
	vm = xioctl(dev, KVM_CREATE_VM, 0);
	vcpu = xioctl(vm, KVM_CREATE_VCPU, 3);
	close(vm);
	EXPECT_EQ(is_there(vm, "vcpu3"), true);
	again = xioctl(dev, KVM_CREATE_VM, 0);
	ASSERT_EQ(again, vm);
	close(xioctl(again, KVM_CREATE_VCPU, 4));
	EXPECT_EQ(is_there(vm, "vcpu3"), true);
	/* KVM's second VM puts its vCPUs into debugfs' own root. */
	EXPECT_EQ(is_there(vm, "vcpu4"), false);
	close(vcpu);
	EXPECT_EQ(is_there(vm, ""), false);
	close(again);
	again = xioctl(dev, KVM_CREATE_VM, 0);
	EXPECT_EQ(is_there(again, "exits"), true);
	close(again);
	close(dev);
}

/* A file that is open when the VM goes cannot be read then. */
TEST(open_file)
{
	char path[200], buffer[32];
	int dev, vm, fd;

	REQUIRE_DEBUGFS();
	dev = device_open();
	vm = xioctl(dev, KVM_CREATE_VM, 0);
	path_of(path, sizeof(path), vm, "pages_4k");
	fd = open(path, O_RDONLY);
	if (!device_is_kvm_rs() && fd >= 0) {
		/* KVM's open file keeps the VM. */
		close(fd);
		SKIP(return, "not as KVM");
	}
	ASSERT_GE(fd, 0);
	close(vm);
	EXPECT_EQ(read(fd, buffer, sizeof(buffer)), -1);
	EXPECT_EQ(errno, EIO);
	close(fd);
	close(dev);
}

/* A kernel that looks for mistakes takes its time. */
static unsigned int rounds(void)
{
	return access(DEBUG "/kmemleak", F_OK) ? ROUNDS : ROUNDS / 8;
}

static volatile bool stop;

/* Reads whatever is there. */
static void *reader(void *arg)
{
	unsigned long *reads = arg;
	char path[1024], buffer[64];
	struct dirent *vm, *file;

	while (!stop) {
		DIR *all = opendir(root());

		while (all && (vm = readdir(all))) {
			DIR *one;

			if (!strchr(vm->d_name, '-'))
				continue;
			snprintf(path, sizeof(path), "%s/%s", root(), vm->d_name);
			one = opendir(path);
			while (one && (file = readdir(one))) {
				bool vcpu = !strncmp(file->d_name, "vcpu", 4);
				int fd;

				snprintf(path, sizeof(path), "%s/%s/%s%s", root(), vm->d_name,
					 file->d_name, vcpu ? "/tsc-offset" : "");
				fd = open(path, O_RDONLY);
				if (fd < 0)
					continue;
				*reads += read(fd, buffer, sizeof(buffer)) > 0;
				close(fd);
			}
			if (one)
				closedir(one);
		}
		if (all)
			closedir(all);
	}
	return NULL;
}

TEST(reads_while_vms_come_and_go)
{
	unsigned long reads[2] = {};
	pthread_t threads[2];
	unsigned int i;
	int dev;

	REQUIRE_DEBUGFS();
	dev = device_open();
	stop = false;
	for (i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, reader, &reads[i]);
	for (i = 0; i < rounds(); i++) {
		int vm = xioctl(dev, KVM_CREATE_VM, 0);
		int vcpus[2] = {
			xioctl(vm, KVM_CREATE_VCPU, 0), xioctl(vm, KVM_CREATE_VCPU, 1),
		};

		sched_yield();
		close(i % 2 ? vm : vcpus[0]);
		close(vcpus[1]);
		close(i % 2 ? vcpus[0] : vm);
	}
	stop = true;
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	TH_LOG("%lu and %lu reads", reads[0], reads[1]);
	EXPECT_GT(reads[0] + reads[1], 0);
	close(dev);
}

TEST_HARNESS_MAIN
