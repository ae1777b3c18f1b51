//go:build linux && cgo && krun

// What each boot writes to lies in huge pages of the host (2 MiB), the rest of the guest's memory in small ones.
//
// A guest's boot touches some 45 MiB. In pages of 4 KiB that is 12000 faults of the VM, and 3000 more where the kernel
// patches its own text, which is libkrunfw's file until it is written to: four of five exits of a boot. In huge pages these
// are a few dozen. Huge pages for all of the guest would be 12 MiB more for an idle pod, so they are for what each boot
// writes to densely (measured with Linux 6.12 of libkrunfw 5.5.0, guests of 256 MiB to 2 GiB):
//
//   - the kernel's text and data,
//   - what its page allocator gives out first: the upper half of what lies below the kernel, 16 MiB, and the first of its own
//     largest blocks above it, with 2 MiB of the next in a guest of 1 GiB or more,
//   - the end of RAM: its page structures, its hash tables of files, and 4 MiB more.
//
// A guess that is wrong for another kernel costs time, and memory until free-page reporting gives it back. Where the host has no
// huge pages to give, all is as it would be without.
//
// libkrun has no function for it. So the linker leads its mmap(2) and dlsym(3) here (ld's --wrap): a VM's memory can be
// mapped by huge pages only where the address in the guest and that in this process are equal modulo 2 MiB. A libkrun that
// is a shared library does without.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

enum { PAGE = 4 << 10, HUGE = 2 << 20 };

// The largest block of a guest's page allocator (MAX_PAGE_ORDER, include/linux/mmzone.h).
enum { LARGEST = 4 << 20 };

// A guest as large as this writes to more than one of those blocks.
#define LARGE_GUEST (1UL << 30)

// How vm-memory 0.17.1 maps a guest's RAM (src/mmap/unix.rs, MmapRegionBuilder::build): nobody else in this process does.
enum { RAM = MAP_ANONYMOUS | MAP_NORESERVE | MAP_PRIVATE };

// The padding between a kernel's text and its data: int3 (arch/x86/kernel/vmlinux.lds.S).
enum { PADDING = 0xcc };

// GAP is where RAM makes room for devices below 4 GiB (krun-arch, x86_64/layout.rs, MMIO_MEM_START).
#define GAP 0xd0000000UL

// What a kernel allocates at the end of RAM before it has a page allocator. All of it is written to (guests of 300 MiB to
// 5 GiB): its page structures, each of which stands for 64 times its size, for whole sections of memory (SECTION_SIZE_BITS,
// arch/x86/include/asm/sparsemem.h); the hash tables of dentries and inodes (fs/dcache.c, fs/inode.c), a bucket for each 8 and
// 16 KiB of RAM, their number a power of two; and EARLY.
#define PER_PAGE_STRUCT 64
#define SECTION (128UL << 20)
#define PER_DENTRY_BUCKET (8UL << 10)
#define EARLY (4UL << 20)

void *__real_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
void *__real_dlsym(void *handle, const char *name);

static char *(*get_kernel)(uint64_t *address, uint64_t *entry, size_t *size);

// In the order in which libkrun asks: the kernel, then RAM below it, RAM above it, and RAM above 4 GiB if there is any.
static enum { NOTHING, KERNEL, BELOW, ABOVE, DONE } mapped;
static size_t kernel_address, kernel_end, ram;

static size_t up_to(size_t n, size_t multiple) { return (n + multiple - 1) & ~(multiple - 1); }

static size_t up(size_t n) { return up_to(n, HUGE); }

// early returns how many bytes a kernel allocates at the end of so much memory.
static size_t early(size_t memory)
{
	size_t buckets = 1;

	while (buckets < memory / PER_DENTRY_BUCKET)
		buckets *= 2;
	return up_to(memory, SECTION) / PER_PAGE_STRUCT + (buckets + buckets / 2) * sizeof(void *) + EARLY;
}

// map_aligned maps whole blocks of RAM at a multiple of their size.
static char *map_aligned(size_t length, int prot)
{
	char *p = __real_mmap(NULL, up(length) + HUGE, prot, RAM, -1, 0);
	char *aligned = (char *)up((size_t)p);

	if (p == MAP_FAILED)
		return p;
	if (aligned > p)
		munmap(p, aligned - p);
	munmap(aligned + up(length), HUGE - (aligned - p));
	return aligned;
}

// Huge pages are switched off for the process (load_cgo.go), and on while it asks for one.
static void want_huge(void *p, size_t length)
{
	madvise(p, length, MADV_HUGEPAGE);
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
}

static void want_no_more(void) { prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); }

// touch has the blocks that lie wholly in [p, p+length) backed.
static void touch(char *p, size_t length)
{
	char *end = p + length;

	p = (char *)up((size_t)p);
	if (p >= end)
		return;
	want_huge(p, end - p);
	for (; p + HUGE <= end; p += HUGE)
		*(volatile char *)p = 0;
	want_no_more();
}

void *__wrap_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	char *p;

	if (mapped == NOTHING || mapped == DONE || addr || flags != RAM || fd != -1)
		return __real_mmap(addr, length, prot, flags, fd, offset);
	p = map_aligned(length, prot);
	if (p == MAP_FAILED)
		return p;
	ram += length;
	if (mapped == KERNEL) {
		mapped = BELOW;
		if (length == kernel_address)
			touch(p + length / 2, length / 2);
		return p;
	}
	if (mapped == BELOW && length >= 2 * LARGEST)
		touch(p + (-kernel_end & (LARGEST - 1)), ram < LARGE_GUEST ? LARGEST : LARGEST + HUGE);
	if (mapped == BELOW && kernel_end + length == GAP) {
		mapped = ABOVE;
	} else {
		size_t top = early(ram);

		mapped = DONE;
		if (length >= 2 * top)
			touch(p + length - top, top);
	}
	return p;
}

static bool is_padding(const char *page)
{
	size_t i;

	for (i = 0; i < PAGE; i++)
		if ((unsigned char)page[i] != PADDING)
			return false;
	return true;
}

// before_padding returns how much of a block comes before the end of the text, where padding follows up to the next block: all
// of it in the others.
static size_t before_padding(const char *block, size_t length)
{
	size_t i;

	for (i = 0; i < length; i += PAGE)
		if (is_padding(block + i))
			break;
	return i;
}

// own copies pages of a file that is mapped privately before the guest does: it would fault on each of them to read it, to
// write to it, and once more for its copy.
static void own(volatile char *p, size_t length)
{
	volatile char *end = p + length;

	for (; p < end; p += PAGE)
		*p = *p;
}

// place_kernel moves what get_kernel returned to a multiple of the block size. Blocks without padding are copied, and so is
// what comes before it; padding stays pages of libkrunfw's file, which pods share. It returns NULL where the kernel cannot be
// moved.
static char *place_kernel(char *from, size_t size)
{
	size_t i;
	char *to;

	if ((size_t)from % PAGE || size % PAGE)
		return NULL;
	to = map_aligned(size, PROT_READ | PROT_WRITE);
	if (to == MAP_FAILED)
		return NULL;
	for (i = 0; i < size; i += HUGE) {
		size_t length = size - i < HUGE ? size - i : HUGE;
		size_t written = before_padding(from + i, length);

		if (written == length) {
			want_huge(to + i, HUGE);
			memcpy(to + i, from + i, length);
			want_no_more();
			munmap(from + i, length);
		} else if (mremap(from + i, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, to + i) == MAP_FAILED) {
			// It may have unmapped the place before it failed (mremap(2)).
			if (__real_mmap(to + i, length, PROT_READ | PROT_WRITE, RAM | MAP_FIXED, -1, 0) == MAP_FAILED)
				abort();
			memcpy(to + i, from + i, length);
		} else {
			own(to + i, written);
		}
	}
	return to;
}

// get_placed_kernel is krunfw_get_kernel of libkrunfw, once. The size is rounded up, so that the RAM that follows begins
// with a block, too; what is more of it is memory.
static char *get_placed_kernel(uint64_t *address, uint64_t *entry, size_t *size)
{
	char *kernel = get_kernel(address, entry, size), *placed;

	if (mapped != NOTHING || *address % HUGE || !(placed = place_kernel(kernel, *size)))
		return kernel;
	*size = up(*size);
	kernel_address = *address;
	kernel_end = *address + *size;
	ram = *size;
	mapped = KERNEL;
	return placed;
}

void *__wrap_dlsym(void *handle, const char *name)
{
	void *symbol = __real_dlsym(handle, name);

	if (symbol && strcmp(name, "krunfw_get_kernel") == 0) {
		get_kernel = symbol;
		return get_placed_kernel;
	}
	return symbol;
}
