// SPDX-License-Identifier: GPL-2.0
/* Shims for the current task, pages, files and mutexes. */

#include <linux/anon_inodes.h>
#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/printk.h>
#include <linux/pid.h>
#include <linux/processor.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/sched/task.h>

#include <asm/io.h>

#include "helpers.h"

void kvm_rs_preempt_notifier_init(struct preempt_notifier *notifier, struct preempt_ops *ops)
{
	preempt_notifier_init(notifier, ops);
}

void *kvm_rs_page_alloc(void)
{
	return (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
}

void kvm_rs_page_free(void *page)
{
	free_page((unsigned long)page);
}

unsigned long kvm_rs_virt_to_phys(const void *address)
{
	return virt_to_phys((void *)address);
}

void kvm_rs_note_paging_without_ept(void)
{
	pr_warn_ratelimited("kvm_rs: %s[%d]: a guest has turned paging on, which needs EPT\n",
			    current->comm, task_pid_nr(current));
}

unsigned long kvm_rs_fault_pgoff(const struct vm_fault *fault)
{
	return fault->pgoff;
}

/**
 * kvm_rs_area_is_shared_data() - Is a new mapping one that shares data with a file?
 * @area:	The mapping
 * @first:	Receives the first page of the file that it shows
 * @count:	Receives how many it shows
 *
 * Return: whether it is shared and cannot be executed
 */
bool kvm_rs_area_is_shared_data(const struct vm_area_struct *area, unsigned long *first,
				unsigned long *count)
{
	*first = area->vm_pgoff;
	*count = vma_pages(area);
	return (area->vm_flags & (VM_SHARED | VM_EXEC)) == VM_SHARED;
}

struct file *kvm_rs_fault_file(const struct vm_fault *fault)
{
	return fault->vma->vm_file;
}

/**
 * kvm_rs_fault_install() - Answer a page fault with a page of the kernel's direct map
 * @fault:	The fault
 * @address:	The page's address
 *
 * Return: 0, as a vm_operations_struct's fault operation does.
 */
int kvm_rs_fault_install(struct vm_fault *fault, void *address)
{
	struct page *page = virt_to_page(address);

	get_page(page);
	fault->page = page;
	return 0;
}

/**
 * kvm_rs_anon_inode_getfd() - Give the current process a file of its own kind
 * @name:	Name shown in /proc
 * @operations:	What the file does
 * @data:	Its private data
 *
 * Return: The file descriptor, or a negative errno; then @data is still the caller's.
 */
int kvm_rs_anon_inode_getfd(const char *name, const struct file_operations *operations, void *data)
{
	return anon_inode_getfd(name, operations, data, O_RDWR | O_CLOEXEC);
}

/**
 * kvm_rs_anon_inode_getfile() - Likewise, without a file descriptor
 * @name:	Name shown in /proc
 * @operations:	What the file does
 * @data:	Its private data
 *
 * Return: The file, or a negative errno as a pointer; then @data is still the caller's.
 */
struct file *kvm_rs_anon_inode_getfile(const char *name, const struct file_operations *operations,
				       void *data)
{
	return anon_inode_getfile(name, operations, data, O_RDWR);
}

/**
 * kvm_rs_anon_inode_getfd_pread() - Likewise, a file that can only be read, at any offset
 * @name:	Name shown in /proc
 * @operations:	What the file does
 * @data:	Its private data
 *
 * Return: The file descriptor, or a negative errno; then @data is still the caller's.
 */
int kvm_rs_anon_inode_getfd_pread(const char *name, const struct file_operations *operations,
				  void *data)
{
	struct file *file;
	int fd;

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;
	file = anon_inode_getfile_fmode(name, operations, data, O_RDONLY, FMODE_PREAD);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return PTR_ERR(file);
	}
	fd_install(fd, file);
	return fd;
}

int kvm_rs_mutex_lock_killable(struct mutex *mutex)
{
	return mutex_lock_killable(mutex);
}

void kvm_rs_mutex_unlock(struct mutex *mutex)
{
	mutex_unlock(mutex);
}

void kvm_rs_mutex_destroy(struct mutex *mutex)
{
	mutex_destroy(mutex);
}

/**
 * kvm_rs_signals_block() - Block exactly these signals, and keep the old mask
 * @mask:	One bit for each signal; those that nobody can block are left out
 *
 * The old mask is kept where a restarted system call looks for it, as sigsuspend does.
 */
void kvm_rs_signals_block(u64 mask)
{
	sigset_t set = { .sig = { mask } };

	sigdelsetmask(&set, sigmask(SIGKILL) | sigmask(SIGSTOP));
	sigprocmask(SIG_SETMASK, &set, &current->real_blocked);
}

void kvm_rs_signals_unblock(void)
{
	sigprocmask(SIG_SETMASK, &current->real_blocked, NULL);
	sigemptyset(&current->real_blocked);
}

/* Whether nothing else wants this CPU. */
bool kvm_rs_single_task_running(void)
{
	return single_task_running();
}

/**
 * kvm_rs_may_poll() - Relax the CPU once
 *
 * Return: whether the current task may go on polling, as nothing else wants the CPU.
 */
bool kvm_rs_may_poll(void)
{
	cpu_relax();
	return single_task_running() && !need_resched();
}

/* Whether the scheduler wants this CPU for another task. */
bool kvm_rs_is_to_give_way(void)
{
	return read_thread_flags() & (_TIF_NEED_RESCHED | _TIF_NEED_RESCHED_LAZY);
}

/* Whether the current task, which is scheduled out, goes on as soon as it gets a CPU. */
bool kvm_rs_is_runnable(void)
{
	return READ_ONCE(current->__state) == TASK_RUNNING;
}

struct pid *kvm_rs_current_pid(void)
{
	return task_pid(current);
}

struct pid *kvm_rs_current_pid_get(void)
{
	return get_task_pid(current, PIDTYPE_PID);
}

void kvm_rs_pid_get(struct pid *pid)
{
	get_pid(pid);
}

void kvm_rs_pid_put(struct pid *pid)
{
	put_pid(pid);
}

/**
 * kvm_rs_yield_to() - Give the CPU to a thread, if the scheduler agrees
 * @pid:	The thread
 *
 * Context: May schedule.
 *
 * Return: whether the thread was given the CPU.
 */
bool kvm_rs_yield_to(struct pid *pid)
{
	struct task_struct *task = get_pid_task(pid, PIDTYPE_PID);
	int ret;

	if (!task)
		return false;
	ret = yield_to(task, true);
	put_task_struct(task);
	return ret > 0;
}
