// SPDX-License-Identifier: GPL-2.0
/*
 * Shims for files of guest memory: a file system of their own, and pages of the page cache that are
 * nobody's but the guest's and, where the file can be mapped, its client's.
 */

#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/highmem.h>
#include <linux/magic.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/pseudo_fs.h>

#include "guest_memfd.h"

static const char memfd_name[] = "[kvm-gmem]";

static int memfd_init_fs_context(struct fs_context *fc)
{
	if (!init_pseudo(fc, GUEST_MEMFD_MAGIC))
		return -ENOMEM;
	fc->s_iflags |= SB_I_NOEXEC;
	return 0;
}

/*
 * It is mounted while there is a file. The superblock then holds a count of the module, so that whoever
 * holds on to an inode longer than to its file finds the module's operations there.
 */
static struct file_system_type memfd_fs = {
	.owner = THIS_MODULE,
	.name = "guest_memfd",
	.init_fs_context = memfd_init_fs_context,
	.kill_sb = kill_anon_super,
};

static struct vfsmount *memfd_mount;
static int memfd_mount_count;

/* Neither size nor owner changes. */
static int memfd_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attributes)
{
	return -EINVAL;
}

static const struct inode_operations memfd_inode_operations = {
	.setattr = memfd_setattr,
};

static struct inode *memfd_inode(u64 size, const struct address_space_operations *operations,
				 void *data)
{
	struct inode *inode = anon_inode_make_secure_inode(memfd_mount->mnt_sb, memfd_name, NULL);

	if (IS_ERR(inode))
		return inode;

	inode->i_op = &memfd_inode_operations;
	inode->i_mapping->a_ops = operations;
	inode->i_mode |= S_IFREG;
	inode->i_size = size;
	inode->i_private = data;
	mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER);
	/* Neither swapped out nor moved, nor reached through the kernel's own mappings. */
	mapping_set_inaccessible(inode->i_mapping);
	return inode;
}

/**
 * kvm_rs_memfd_create() - Make a file of guest memory
 * @size: its size in bytes, which is above 0, fits into loff_t and does not change
 * @operations: what the file does; of this module
 * @mapping_operations: what its page cache does
 * @data: private data of the file and its inode; kvm_rs_memfd_release() gives it back
 * @error: receives a negative errno on failure
 *
 * Return: the file with one reference, or NULL; then @data is still the caller's
 */
struct file *kvm_rs_memfd_create(u64 size, const struct file_operations *operations,
				 const struct address_space_operations *mapping_operations,
				 void *data, int *error)
{
	struct inode *inode;
	struct file *file;

	*error = simple_pin_fs(&memfd_fs, &memfd_mount, &memfd_mount_count);
	if (*error)
		return NULL;
	if (!fops_get(operations)) {
		*error = -ENOENT;
		goto err_mount;
	}
	inode = memfd_inode(size, mapping_operations, data);
	if (IS_ERR(inode)) {
		*error = PTR_ERR(inode);
		goto err_operations;
	}
	file = alloc_file_pseudo(inode, memfd_mount, memfd_name, O_RDWR, operations);
	if (IS_ERR(file)) {
		*error = PTR_ERR(file);
		iput(inode);
		goto err_operations;
	}
	file->f_flags |= O_LARGEFILE;
	file->private_data = data;
	return file;

err_operations:
	fops_put(operations);
err_mount:
	simple_release_fs(&memfd_mount, &memfd_mount_count);
	return NULL;
}

/**
 * kvm_rs_memfd_release() - Undo kvm_rs_memfd_create() when the file goes
 * @inode: of the file
 * @file: the file, of which no reference is left
 *
 * Return: the private data, which nobody reaches through the inode any more
 */
void *kvm_rs_memfd_release(struct inode *inode, struct file *file)
{
	void *data = file->private_data;

	filemap_invalidate_lock(inode->i_mapping);
	inode->i_private = NULL;
	filemap_invalidate_unlock(inode->i_mapping);
	/* The file itself still holds a count of the mount. */
	simple_release_fs(&memfd_mount, &memfd_mount_count);
	return data;
}

/**
 * kvm_rs_memfd_size() - Size of a file
 * @file: a file of kvm_rs_memfd_create()
 *
 * Return: bytes
 */
u64 kvm_rs_memfd_size(const struct file *file)
{
	return i_size_read(file_inode(file));
}

/* Returns a page of the file, locked, and not cleared if it is new. */
static struct folio *memfd_folio(struct file *file, pgoff_t index)
{
	struct address_space *mapping = file_inode(file)->i_mapping;

	return __filemap_get_folio(mapping, index, FGP_LOCK | FGP_CREAT,
				   mapping_gfp_mask(mapping));
}

static void memfd_clear(struct folio *folio)
{
	if (folio_test_uptodate(folio))
		return;
	clear_highpage(folio_page(folio, 0));
	folio_mark_uptodate(folio);
}

/**
 * kvm_rs_memfd_get_page() - A page of a file, made if it is not there
 * @file: a file of kvm_rs_memfd_create()
 * @index: number of the page in the file, below its size
 * @error: receives a negative errno on failure
 *
 * Return: the struct page with a reference, or NULL
 */
void *kvm_rs_memfd_get_page(struct file *file, unsigned long index, int *error)
{
	struct folio *folio = memfd_folio(file, index);

	if (IS_ERR(folio)) {
		*error = PTR_ERR(folio);
		return NULL;
	}
	if (folio_test_hwpoison(folio)) {
		*error = -EHWPOISON;
		folio_unlock(folio);
		folio_put(folio);
		return NULL;
	}
	memfd_clear(folio);
	folio_unlock(folio);
	return folio_file_page(folio, index);
}

/**
 * kvm_rs_memfd_allocate() - Have a page in a file, without a need for it yet
 * @file: a file of kvm_rs_memfd_create()
 * @index: number of the page in the file, below its size
 *
 * Return: 0, or a negative errno
 */
int kvm_rs_memfd_allocate(struct file *file, unsigned long index)
{
	struct folio *folio = memfd_folio(file, index);

	if (IS_ERR(folio))
		return PTR_ERR(folio);
	folio_unlock(folio);
	folio_put(folio);
	return 0;
}

/**
 * kvm_rs_memfd_punch() - Free pages of a file
 * @file: a file of kvm_rs_memfd_create()
 * @start: offset of the first byte, of a page
 * @end: offset past the last byte, above @start, of a page
 */
void kvm_rs_memfd_punch(struct file *file, u64 start, u64 end)
{
	truncate_inode_pages_range(file_inode(file)->i_mapping, start, end - 1);
}

/**
 * kvm_rs_memfd_modified() - Note when a file was changed
 * @file: a file of kvm_rs_memfd_create()
 */
void kvm_rs_memfd_modified(struct file *file)
{
	file_modified(file);
}

/**
 * kvm_rs_memfd_fault() - Answer a page fault with a page of the file
 * @fault: a fault in a mapping of a file of kvm_rs_memfd_create()
 *
 * Return: what a vm_operations_struct's fault operation does
 */
vm_fault_t kvm_rs_memfd_fault(struct vm_fault *fault)
{
	struct file *file = fault->vma->vm_file;
	struct folio *folio;

	if (((loff_t)fault->pgoff << PAGE_SHIFT) >= i_size_read(file_inode(file)))
		return VM_FAULT_SIGBUS;
	folio = memfd_folio(file, fault->pgoff);
	if (IS_ERR(folio))
		return folio == ERR_PTR(-EAGAIN) ? VM_FAULT_RETRY : vmf_error(PTR_ERR(folio));
	memfd_clear(folio);
	fault->page = folio_file_page(folio, fault->pgoff);
	return VM_FAULT_LOCKED;
}

/**
 * kvm_rs_vma_is_shared() - Does a mapping write to the file?
 * @area: the mapping
 *
 * Return: whether it does, rather than to copies of its own
 */
bool kvm_rs_vma_is_shared(const struct vm_area_struct *area)
{
	const vm_flags_t shared = VM_SHARED | VM_MAYSHARE;

	return (area->vm_flags & shared) == shared;
}

/**
 * kvm_rs_memfd_lock_data() - Keep the private data of a file, if it is still there
 * @mapping: page cache of a file of kvm_rs_memfd_create()
 *
 * Pair with kvm_rs_memfd_unlock_data() in any case.
 *
 * Return: the data, or NULL
 */
void *kvm_rs_memfd_lock_data(struct address_space *mapping)
{
	filemap_invalidate_lock_shared(mapping);
	return mapping->host->i_private;
}

/**
 * kvm_rs_memfd_unlock_data() - Let the private data of a file go
 * @mapping: as given to kvm_rs_memfd_lock_data()
 */
void kvm_rs_memfd_unlock_data(struct address_space *mapping)
{
	filemap_invalidate_unlock_shared(mapping);
}

/**
 * kvm_rs_folio_index() - Where a folio is in its file
 * @folio: a locked folio of a page cache
 *
 * Return: number of its first page
 */
unsigned long kvm_rs_folio_index(const struct folio *folio)
{
	return folio->index;
}

/**
 * kvm_rs_folio_pages() - Size of a folio
 * @folio: a folio
 *
 * Return: number of its pages
 */
unsigned long kvm_rs_folio_pages(const struct folio *folio)
{
	return folio_nr_pages(folio);
}
