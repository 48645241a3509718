// SPDX-License-Identifier: GPL-2.0
/* Shims for the memory MMU: locks, MMU notifier, table pages, host pages. */

#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/pgtable.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/spinlock.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include <asm/e820/api.h>
#include <asm/io.h>
#include <asm/memtype.h>

#include "mm.h"

/**
 * kvm_rs_mmu_lock_init() - Initialise a reader-writer lock that guards page tables
 * @lock: the lock; all such locks share one lockdep class
 */
void kvm_rs_mmu_lock_init(rwlock_t *lock)
{
	rwlock_init(lock);
}

/**
 * kvm_rs_read_lock() - Acquire a reader-writer lock for reading
 * @lock: the lock
 */
void kvm_rs_read_lock(rwlock_t *lock)
{
	read_lock(lock);
}

/**
 * kvm_rs_read_unlock() - Release a reader-writer lock held for reading
 * @lock: the lock
 */
void kvm_rs_read_unlock(rwlock_t *lock)
{
	read_unlock(lock);
}

/**
 * kvm_rs_write_lock() - Acquire a reader-writer lock for writing
 * @lock: the lock
 */
void kvm_rs_write_lock(rwlock_t *lock)
{
	write_lock(lock);
}

/**
 * kvm_rs_write_unlock() - Release a reader-writer lock held for writing
 * @lock: the lock
 */
void kvm_rs_write_unlock(rwlock_t *lock)
{
	write_unlock(lock);
}

/**
 * kvm_rs_mmu_notifier_register() - Register a notifier on the calling process
 * @mn: the notifier, with its operations set
 *
 * Return: 0, -ESRCH for a task without an address space, or an error of mmu_notifier_register()
 */
int kvm_rs_mmu_notifier_register(struct mmu_notifier *mn)
{
	if (!current->mm)
		return -ESRCH;
	return mmu_notifier_register(mn, current->mm);
}

/**
 * kvm_rs_mmu_notifier_unregister() - Unregister a notifier and wait for its callbacks
 * @mn: a registered notifier
 */
void kvm_rs_mmu_notifier_unregister(struct mmu_notifier *mn)
{
	mmu_notifier_unregister(mn, mn->mm);
}

/**
 * kvm_rs_mmu_notifier_of_current() - Is the notifier registered on the caller's address space?
 * @mn: a registered notifier
 *
 * Return: whether it is
 */
bool kvm_rs_mmu_notifier_of_current(const struct mmu_notifier *mn)
{
	return mn->mm == current->mm;
}

/**
 * kvm_rs_mmu_notifier_blockable() - May the callback for this range sleep?
 * @range: the range that a callback received
 *
 * Return: whether it may
 */
bool kvm_rs_mmu_notifier_blockable(const struct mmu_notifier_range *range)
{
	return mmu_notifier_range_blockable(range);
}

/**
 * kvm_rs_table_alloc() - Allocate a zeroed page for a page table
 * @low: whether it must lie below 4 GiB
 *
 * The page is charged to the memory cgroup of the caller. May sleep.
 *
 * Return: the page's kernel address, or NULL
 */
void *kvm_rs_table_alloc(bool low)
{
	return (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT | (low ? __GFP_DMA32 : 0));
}

/**
 * kvm_rs_table_free() - Free a page of kvm_rs_table_alloc()
 * @table: its kernel address
 */
void kvm_rs_table_free(void *table)
{
	set_page_private(virt_to_page(table), 0);
	free_page((unsigned long)table);
}

/**
 * kvm_rs_table_hpa() - Physical address of a table page
 * @table: its kernel address
 *
 * Return: the physical address
 */
u64 kvm_rs_table_hpa(const void *table)
{
	return __pa(table);
}

/**
 * kvm_rs_table_at() - Kernel address of a table page
 * @hpa: its physical address
 *
 * Return: the kernel address
 */
void *kvm_rs_table_at(u64 hpa)
{
	return __va(hpa);
}

/**
 * kvm_rs_table_set_link() - Store a word beside a table page, outside its contents
 * @table: a page of kvm_rs_table_alloc()
 * @link: the word
 */
void kvm_rs_table_set_link(void *table, unsigned long link)
{
	set_page_private(virt_to_page(table), link);
}

/**
 * kvm_rs_table_link() - Read the word of kvm_rs_table_set_link()
 * @table: a page of kvm_rs_table_alloc()
 *
 * Return: the word, 0 if it was never set
 */
unsigned long kvm_rs_table_link(const void *table)
{
	return page_private(virt_to_page(table));
}

/**
 * kvm_rs_page_to_pfn() - Frame number of a page
 * @page: a struct page
 *
 * Return: the frame number
 */
unsigned long kvm_rs_page_to_pfn(const void *page)
{
	return page_to_pfn((const struct page *)page);
}

/**
 * kvm_rs_page_mark_used() - Tell the host that a page is in use by a guest
 * @page: a referenced struct page
 * @dirty: whether the guest may write it
 *
 * Reserved pages are left alone: their flags belong to their owner.
 */
void kvm_rs_page_mark_used(void *page, bool dirty)
{
	struct page *p = page;

	if (PageReserved(p))
		return;
	if (dirty)
		SetPageDirty(p);
	mark_page_accessed(p);
}

/**
 * kvm_rs_page_put() - Drop a reference to a page
 * @page: a referenced struct page
 */
void kvm_rs_page_put(void *page)
{
	put_page(page);
}

/**
 * kvm_rs_pfn_is_mmio() - Is a frame device memory, to be mapped uncached?
 * @pfn: frame number
 *
 * Reserved pages that the host maps cached, as those of persistent memory, are not device memory.
 *
 * Return: whether it is
 */
bool kvm_rs_pfn_is_mmio(unsigned long pfn)
{
	if (pfn_valid(pfn))
		return !is_zero_pfn(pfn) && PageReserved(pfn_to_page(pfn)) &&
		       (!pat_enabled() || pat_pfn_immune_to_uc_mtrr(pfn));

	return !e820__mapped_raw_any(PFN_PHYS(pfn), PFN_PHYS(pfn + 1) - 1,
				     E820_TYPE_RAM);
}

/**
 * kvm_rs_page_is_mmio() - kvm_rs_pfn_is_mmio() for a page
 * @page: a referenced struct page
 *
 * Return: whether it is device memory
 */
bool kvm_rs_page_is_mmio(const void *page)
{
	const struct page *p = page;

	return PageReserved(p) && kvm_rs_pfn_is_mmio(page_to_pfn(p));
}

/**
 * kvm_rs_host_mapping_level() - Size at which the host maps an address of the calling process
 * @hva: user address
 *
 * The answer is a hint that the host may change at any time: consume it only under the MMU lock
 * and after the check that no invalidation came between. Interrupts are off during the walk, so
 * that the tables it reads are not freed, and each entry is read once, since an upper entry can
 * become a huge page meanwhile.
 *
 * Return: 1 for 4 KiB or nothing mapped, 2 for 2 MiB, 3 for 1 GiB
 */
int kvm_rs_host_mapping_level(unsigned long hva)
{
	unsigned long flags;
	int level = 1;
	pgd_t pgd;
	p4d_t p4d;
	pud_t pud;
	pmd_t pmd;

	local_irq_save(flags);

	pgd = READ_ONCE(*pgd_offset(current->mm, hva));
	if (pgd_none(pgd))
		goto out;
	p4d = READ_ONCE(*p4d_offset(&pgd, hva));
	if (p4d_none(p4d) || !p4d_present(p4d))
		goto out;
	pud = READ_ONCE(*pud_offset(&p4d, hva));
	if (pud_none(pud) || !pud_present(pud))
		goto out;
	if (pud_leaf(pud)) {
		level = 3;
		goto out;
	}
	pmd = READ_ONCE(*pmd_offset(&pud, hva));
	if (pmd_none(pmd) || !pmd_present(pmd))
		goto out;
	if (pmd_leaf(pmd))
		level = 2;
out:
	local_irq_restore(flags);
	return level;
}

/**
 * kvm_rs_user_map() - Map zeroed memory into the address space of the calling process
 * @size: bytes, whole pages
 * @mm: receives the address space, with a count to it, or NULL on failure
 *
 * Return: the address of the first byte, if @mm is not NULL
 */
unsigned long kvm_rs_user_map(unsigned long size, void **mm)
{
	unsigned long address = vm_mmap(NULL, 0, size, PROT_READ | PROT_WRITE,
					MAP_SHARED | MAP_ANONYMOUS, 0);

	*mm = NULL;
	if (IS_ERR_VALUE(address))
		return 0;
	mmgrab(current->mm);
	*mm = current->mm;
	return address;
}

/**
 * kvm_rs_user_unmap() - Unmap what kvm_rs_user_map() mapped, if the caller is of that process
 * @mm: the address space; its count is dropped
 * @address: of the first byte
 * @size: bytes
 */
void kvm_rs_user_unmap(void *mm, unsigned long address, unsigned long size)
{
	if (current->mm == mm)
		vm_munmap(address, size);
	mmdrop(mm);
}

/**
 * kvm_rs_user_range_ok() - Is a range one that user space can own?
 * @start: first address
 * @size: bytes
 *
 * Return: whether the range is untagged and lies in user space
 */
bool kvm_rs_user_range_ok(unsigned long start, unsigned long size)
{
	return start == untagged_addr(start) &&
	       access_ok((void __user *)start, size);
}

/**
 * kvm_rs_read_user() - Read a word of user memory
 * @hva: its address
 * @value: receives the word
 * @size: bytes: 1, 2, 4 or 8
 *
 * Return: 0, -EFAULT, or -EINVAL for another size
 */
int kvm_rs_read_user(unsigned long hva, u64 *value, unsigned int size)
{
	switch (size) {
	case 1:
		return get_user(*value, (u8 __user *)hva);
	case 2:
		return get_user(*value, (u16 __user *)hva);
	case 4:
		return get_user(*value, (u32 __user *)hva);
	case 8:
		return get_user(*value, (u64 __user *)hva);
	default:
		return -EINVAL;
	}
}

/**
 * kvm_rs_write_user() - Write a word of user memory
 * @hva: its address
 * @value: the word
 * @size: bytes: 1, 2, 4 or 8
 *
 * Return: 0, -EFAULT, or -EINVAL for another size
 */
int kvm_rs_write_user(unsigned long hva, u64 value, unsigned int size)
{
	switch (size) {
	case 1:
		return put_user((u8)value, (u8 __user *)hva);
	case 2:
		return put_user((u16)value, (u16 __user *)hva);
	case 4:
		return put_user((u32)value, (u32 __user *)hva);
	case 8:
		return put_user(value, (u64 __user *)hva);
	default:
		return -EINVAL;
	}
}

#define CMPXCHG_USER(type)							\
	({									\
		type expected = *old;						\
		int ret = __try_cmpxchg_user((type __user *)hva, &expected,	\
					     (type)new, fault_##type);		\
		*old = expected;						\
		ret;								\
	})

/**
 * kvm_rs_cmpxchg_user() - Compare and exchange a naturally aligned word of user memory
 * @hva: its address, a multiple of @size
 * @old: the expected value; receives the value found when that differs
 * @new: the value to store
 * @size: bytes: 1, 2, 4 or 8
 *
 * Return: 0 if exchanged, 1 if the value differed, -EFAULT, or -EINVAL for another size or
 * alignment
 */
int kvm_rs_cmpxchg_user(unsigned long hva, u64 *old, u64 new,
			unsigned int size)
{
	if (!size || hva & (size - 1))
		return -EINVAL;
	if (!access_ok((void __user *)hva, size))
		return -EFAULT;

	switch (size) {
	case 1:
		return CMPXCHG_USER(u8);
	case 2:
		return CMPXCHG_USER(u16);
	case 4:
		return CMPXCHG_USER(u32);
	case 8:
		return CMPXCHG_USER(u64);
	default:
		return -EINVAL;
	}
}

/**
 * kvm_rs_cond_resched() - Let another task run if one waits
 */
void kvm_rs_cond_resched(void)
{
	cond_resched();
}

/**
 * kvm_rs_queue_create() - Create a workqueue whose work may take long
 * @name: its name
 *
 * Return: the workqueue, or NULL
 */
void *kvm_rs_queue_create(const char *name)
{
	return alloc_workqueue("%s", WQ_UNBOUND, WQ_MAX_ACTIVE, name);
}

/**
 * kvm_rs_queue_destroy() - Wait until all work of a workqueue is done, and destroy it
 * @queue: a workqueue of kvm_rs_queue_create()
 */
void kvm_rs_queue_destroy(void *queue)
{
	destroy_workqueue(queue);
}

/**
 * kvm_rs_fault_in() - Bring in a page of a process, to be written
 * @mm: the address space, with a user
 * @hva: an address of the page
 *
 * Sleeps as long as it takes. Who wants to know whether the page is there looks again.
 */
void kvm_rs_fault_in(void *mm, unsigned long hva)
{
	int locked = 1;

	mmap_read_lock(mm);
	get_user_pages_remote(mm, hva, 1, FOLL_WRITE, NULL, &locked);
	if (locked)
		mmap_read_unlock(mm);
}
