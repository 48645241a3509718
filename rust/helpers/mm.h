/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shims for the memory MMU: locks, MMU notifier, table pages, host pages. Documented in mm.c.
 */
#ifndef KVM_RS_HELPERS_MM_H
#define KVM_RS_HELPERS_MM_H

#include <linux/mmu_notifier.h>
#include <linux/rwlock_types.h>
#include <linux/types.h>

void kvm_rs_mmu_lock_init(rwlock_t *lock);
void kvm_rs_read_lock(rwlock_t *lock);
void kvm_rs_read_unlock(rwlock_t *lock);
void kvm_rs_write_lock(rwlock_t *lock);
void kvm_rs_write_unlock(rwlock_t *lock);

int kvm_rs_mmu_notifier_register(struct mmu_notifier *mn);
void kvm_rs_mmu_notifier_unregister(struct mmu_notifier *mn);
bool kvm_rs_mmu_notifier_of_current(const struct mmu_notifier *mn);
bool kvm_rs_mmu_notifier_blockable(const struct mmu_notifier_range *range);

void *kvm_rs_table_alloc(bool low);
void kvm_rs_table_free(void *table);
u64 kvm_rs_table_hpa(const void *table);
void *kvm_rs_table_at(u64 hpa);
void kvm_rs_table_set_link(void *table, unsigned long link);
unsigned long kvm_rs_table_link(const void *table);

unsigned long kvm_rs_page_to_pfn(const void *page);
void kvm_rs_page_mark_used(void *page, bool dirty);
void kvm_rs_page_put(void *page);
bool kvm_rs_pfn_is_mmio(unsigned long pfn);
bool kvm_rs_page_is_mmio(const void *page);
int kvm_rs_host_mapping_level(unsigned long hva);

unsigned long kvm_rs_user_map(unsigned long size, void **mm);
void kvm_rs_user_unmap(void *mm, unsigned long address, unsigned long size);
bool kvm_rs_user_range_ok(unsigned long start, unsigned long size);
int kvm_rs_read_user(unsigned long hva, u64 *value, unsigned int size);
int kvm_rs_write_user(unsigned long hva, u64 value, unsigned int size);
int kvm_rs_cmpxchg_user(unsigned long hva, u64 *old, u64 new,
			unsigned int size);

void kvm_rs_cond_resched(void);

void *kvm_rs_queue_create(const char *name);
void kvm_rs_queue_destroy(void *queue);
void kvm_rs_fault_in(void *mm, unsigned long hva);

#endif /* KVM_RS_HELPERS_MM_H */
