package e2e

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"krun.dev/krunpod/test/testpod"
)

// firmware is where prepare-node puts libkrunfw.
const firmware = "/opt/krunpod/lib/libkrunfw.so.5"

// image is a kernel as it lies in the guest's memory.
type image struct {
	data        []byte
	load, entry uint64 // physical addresses
}

// bundledKernel takes the kernel out of libkrunfw, where libkrun maps it from: the data is a symbol, and the addresses
// are constants in krunfw_get_kernel(&load, &entry, &size), which stores each by "movq $imm32, (%rax)".
func bundledKernel(t *testing.T) image {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("reads x86-64 code")
	}
	f, err := elf.Open(firmware)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	code := symbol(t, f, "krunfw_get_kernel")
	var imm []uint64
	for i := 0; i+7 <= len(code); i++ {
		if bytes.HasPrefix(code[i:], []byte{0x48, 0xc7, 0x00}) {
			imm = append(imm, uint64(binary.LittleEndian.Uint32(code[i+3:])))
		}
	}
	bundle := symbol(t, f, "KERNEL_BUNDLE")
	if len(imm) != 3 || imm[2] > uint64(len(bundle)) {
		t.Fatalf("krunfw_get_kernel is not as expected: constants %x, %d bytes of kernel", imm, len(bundle))
	}
	return image{bundle[:imm[2]], imm[0], imm[1]}
}

// symbol returns what an exported symbol of f stands for.
func symbol(t *testing.T, f *elf.File, name string) []byte {
	t.Helper()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Name != name {
			continue
		}
		in := f.Sections[s.Section]
		data := make([]byte, s.Size)
		if _, err := in.ReadAt(data, int64(s.Value-in.Addr)); err != nil {
			t.Fatal(err)
		}
		return data
	}
	t.Fatalf("no symbol %s", name)
	return nil
}

// elf makes an ELF executable of i, a vmlinux of one segment.
func (i image) elf(t *testing.T) []byte {
	t.Helper()
	const page = 4096
	var b bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Entry: i.entry,
			Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64,
		},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W | elf.PF_X), Off: page, Vaddr: i.load,
			Paddr: i.load, Filesz: uint64(len(i.data)), Memsz: uint64(len(i.data)), Align: page},
		make([]byte, page-64-56),
		i.data,
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// useKernel configures data as every pod's kernel for the time of the test, and what else the configuration needs.
func useKernel(t *testing.T, format string, data []byte, more ...string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	dropIn(t, strings.Join(more, "\n")+fmt.Sprintf("\n[kernel]\npath = %q\nformat = %q\ncmdline = \"krunpod.e2e=%s\"\n", path, format, format))
}

func TestKernelOfOnesOwn(t *testing.T) {
	kernel := bundledKernel(t).elf(t)
	for format, data := range map[string][]byte{"elf": kernel, "image-gz": zipped(t, kernel)} {
		t.Run(format, func(t *testing.T) {
			n := newNode(t)
			useKernel(t, format, data)
			k := n.container(n.pod(), testpod.ContainerConfig("kernel", "exec sleep 1000"))
			if got := n.exec(k, "cat /proc/cmdline"); !strings.Contains(" "+got, " krunpod.e2e="+format) {
				t.Errorf("the kernel was started with %q", got)
			}
		})
	}
}

func zipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("what a boot loader would run")
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestParametersForTheBundledKernel(t *testing.T) {
	n := newNode(t)
	dropIn(t, "[kernel]\ncmdline = \"krunpod.e2e=bundled\"\n")
	k := n.container(n.pod(), testpod.ContainerConfig("kernel", "exec sleep 1000"))
	if got := n.exec(k, "cat /proc/cmdline"); !strings.Contains(got, ` "krunpod.e2e=bundled"`) {
		t.Errorf("the kernel was started with %q", got)
	}
}

func TestKernelThatCannotBootIsNamed(t *testing.T) {
	t.Run("missing", func(t *testing.T) {
		n := newNode(t)
		dropIn(t, "[kernel]\npath = \"/nonexistent/vmlinux\"\nformat = \"elf\"\n")
		n.refused(nil, "/nonexistent/vmlinux")
	})
	t.Run("unknown format", func(t *testing.T) {
		n := newNode(t)
		dropIn(t, "[kernel]\npath = \"/boot/vmlinux\"\nformat = \"bzimage\"\n")
		n.refused(nil, "kernel.format", "bzimage")
	})
	t.Run("no kernel", func(t *testing.T) {
		n := newNode(t)
		useKernel(t, "elf", []byte("#!/bin/sh\n"))
		n.refused(nil, "no vmlinux", "kernel.format")
	})
	t.Run("nothing packed", func(t *testing.T) {
		n := newNode(t)
		useKernel(t, "image-gz", []byte("no magic number here"))
		n.refused(nil, "holds no packed kernel", "kernel.format")
	})
	// hlt with interrupts off, as the kernel is entered: nothing ever happens.
	t.Run("silent", func(t *testing.T) {
		n := newNode(t)
		useKernel(t, "elf", image{[]byte{0xf4, 0xeb, 0xfd}, 1 << 24, 1 << 24}.elf(t), `boot_timeout = "10s"`)
		n.refused(nil, "did not answer within 10s")
	})
	// ud2 without an interrupt table: a triple fault resets the VM.
	t.Run("broken", func(t *testing.T) {
		n := newNode(t)
		useKernel(t, "elf", image{[]byte{0x0f, 0x0b}, 1 << 24, 1 << 24}.elf(t))
		n.refused(nil, "ended before its agent answered")
	})
}
