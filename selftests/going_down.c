// SPDX-License-Identifier: GPL-2.0
/*
 * Takes the machine down with guests at work: two on each CPU, which do not
 * leave them of their own accord. No test by itself: scripts/check looks for
 * the module's last words in the kernel's log.
 *
 *   going_down reboot     in order
 *   going_down emergency  at once, as by SysRq
 */
#include <pthread.h>
#include <sched.h>
#include <sys/reboot.h>

#include "vm.h"

#define GUESTS		2	/* on each CPU */
#define MAX_GUESTS	16

GUEST_CODE(count, 64,
	"1:	incq 0x100000\n"
	"	jmp 1b\n");

static struct guest {
	struct vm vm;
	struct vcpu vcpu;
	pthread_t thread;
	int cpu;
} guests[MAX_GUESTS];

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("CPU %d", cpu);
}

static void *run(void *arg)
{
	struct guest *guest = arg;

	stay_on(guest->cpu);
	for (;;)
		vcpu_run(&guest->vcpu);
	return NULL;
}

static void restart_at_once(void)
{
	int fd = open("/proc/sysrq-trigger", O_WRONLY);

	if (fd < 0 || write(fd, "b", 1) != 1)
		die("SysRq");
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	int i, n = GUESTS * sysconf(_SC_NPROCESSORS_ONLN);

	if (n > MAX_GUESTS)
		n = MAX_GUESTS;
	for (i = 0; i < n; i++) {
		struct guest *guest = &guests[i];

		vm_create(&guest->vm, VM_MEMORY);
		vcpu_start(&guest->vcpu, &guest->vm, MODE_LONG);
		vm_load(&guest->vm, CODE_GPA, count);
		guest->cpu = i / GUESTS;
		pthread_create(&guest->thread, NULL, run, guest);
	}
	for (i = 0; i < n; i++)
		while (!*vm_u64(&guests[i].vm, 0x100000))
			usleep(1000);
	stay_on(0);
	if (!strcmp(how, "reboot"))
		reboot(RB_AUTOBOOT);
	else if (!strcmp(how, "emergency"))
		restart_at_once();
	die("still here after '%s'", how);
}
