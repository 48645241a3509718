// SPDX-License-Identifier: GPL-2.0
/*
 * The module stays while any fd of it is open, goes when none is, and can be
 * loaded again. Only with kvm_rs as the device under test.
 *
 * KVM_RS_MODULE names the module file for loading; by default
 * /rig/modules/kvm_rs.ko or the one of the running kernel.
 */
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "kselftest_harness.h"
#include "swap.h"
#include "vm.h"

static long delete_module(void)
{
	return syscall(SYS_delete_module, "kvm_rs", O_NONBLOCK) ? -errno : 0;
}

static int module_file(void)
{
	const char *path = getenv("KVM_RS_MODULE");
	struct utsname name;
	char buf[512];
	int fd;

	if (path)
		return open(path, O_RDONLY);
	fd = open("/rig/modules/kvm_rs.ko", O_RDONLY);
	if (fd >= 0)
		return fd;
	uname(&name);
	snprintf(buf, sizeof(buf), "/lib/modules/%s/updates/kvm_rs.ko", name.release);
	return open(buf, O_RDONLY);
}

/*
 * Which suites a kernel with KUnit runs as a module is loaded. All of them have run
 * once, and take long on a kernel that looks for mistakes.
 */
#define SUITES	"/sys/module/kunit/parameters/filter_glob"

#define REQUIRE_KVM_RS()						\
	do {								\
		if (!device_is_kvm_rs() || access("/sys/module/kvm_rs", F_OK)) \
			SKIP(return, "not kvm_rs");			\
	} while (0)

TEST(in_use)
{
	struct vcpu vcpu;
	struct vm vm;
	int i;

	REQUIRE_KVM_RS();
	vm_create_empty(&vm);
	EXPECT_EQ(delete_module(), -EWOULDBLOCK);
	/* The VM's fd alone, then the vCPU's, then its mapping. */
	vcpu_create(&vcpu, &vm, 0);
	close(vm.dev);
	EXPECT_EQ(delete_module(), -EWOULDBLOCK);
	close(vm.fd);
	EXPECT_EQ(delete_module(), -EWOULDBLOCK);
	close(vcpu.fd);
	EXPECT_EQ(delete_module(), -EWOULDBLOCK);
	munmap(vcpu.run, vcpu.run_size);
	for (i = 0; i < 3; i++) {
		vm_create(&vm, VM_MEMORY);
		vcpu_start(&vcpu, &vm, MODE_LONG);
		EXPECT_EQ(delete_module(), -EWOULDBLOCK);
		vcpu_destroy(&vcpu);
		vm_destroy(&vm);
	}
}

TEST(unload_and_load)
{
	struct vcpu vcpu;
	struct vm vm;
	int i, file, tries;
	long ret = -1;

	REQUIRE_KVM_RS();
	file = module_file();
	if (file < 0)
		SKIP(return, "no module file, see KVM_RS_MODULE");
	write_file(SUITES, "kvm_rs_controls");
	for (i = 0; i < 3; i++) {
		/* Whatever the last fd left to do is done in a moment. */
		for (tries = 0; tries < 50; tries++) {
			ret = delete_module();
			if (ret != -EWOULDBLOCK)
				break;
			usleep(20000);
		}
		ASSERT_EQ(ret, 0);
		EXPECT_NE(access("/dev/kvm-rs", F_OK), 0);
		ASSERT_EQ(syscall(SYS_finit_module, file, "", 0), 0)
			TH_LOG("finit_module: %s", strerror(errno));
		for (tries = 0; tries < 50 && access("/dev/kvm-rs", F_OK); tries++)
			usleep(20000);
		vm_create(&vm, VM_MEMORY);
		vcpu_start(&vcpu, &vm, MODE_LONG);
		memcpy(vm.mem + CODE_GPA, "\xb8\x34\x12\x00\x00\xf4", 6);
		vcpu_run_to(&vcpu, KVM_EXIT_HLT);
		EXPECT_EQ(vcpu_regs(&vcpu).rax, 0x1234);
		vcpu_destroy(&vcpu);
		vm_destroy(&vm);
	}
	write_file(SUITES, "*");
}

TEST_HARNESS_MAIN
