/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shims for files of guest memory. Documented in guest_memfd.c.
 */
#ifndef KVM_RS_HELPERS_GUEST_MEMFD_H
#define KVM_RS_HELPERS_GUEST_MEMFD_H

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/types.h>

struct file *kvm_rs_memfd_create(u64 size, const struct file_operations *operations,
				 const struct address_space_operations *mapping_operations,
				 void *data, int *error);
void *kvm_rs_memfd_release(struct inode *inode, struct file *file);
u64 kvm_rs_memfd_size(const struct file *file);

void *kvm_rs_memfd_get_page(struct file *file, unsigned long index, int *error);
int kvm_rs_memfd_allocate(struct file *file, unsigned long index);
void kvm_rs_memfd_punch(struct file *file, u64 start, u64 end);
void kvm_rs_memfd_modified(struct file *file);
vm_fault_t kvm_rs_memfd_fault(struct vm_fault *fault);
bool kvm_rs_vma_is_shared(const struct vm_area_struct *area);

void *kvm_rs_memfd_lock_data(struct address_space *mapping);
void kvm_rs_memfd_unlock_data(struct address_space *mapping);
unsigned long kvm_rs_folio_index(const struct folio *folio);
unsigned long kvm_rs_folio_pages(const struct folio *folio);

#endif /* KVM_RS_HELPERS_GUEST_MEMFD_H */
