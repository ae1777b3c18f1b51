package krun

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
)

// packed is how the packed kernel in a file of each format begins. libkrun looks for it in the whole file
// (load_external_kernel in krun-vmm's builder.rs).
var packed = map[string]string{
	"image-bz2":  "BZh",
	"image-gz":   "\x1f\x8b\x08",
	"image-zstd": "\x28\xb5\x2f\xfd",
	"pe-gz":      "\x1f\x8b\x08",
}

// checkKernel reports whether a file can be a kernel of its format. libkrun's own errors name neither.
func checkKernel(path, format string) error {
	if format == "elf" {
		f, err := elf.Open(path)
		if err != nil {
			return fmt.Errorf("%s is no vmlinux, as kernel.format = %q says: %w", path, format, err)
		}
		return f.Close()
	}
	magic, ok := packed[format]
	if !ok {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Contains(data, []byte(magic)) {
		return fmt.Errorf("%s holds no packed kernel, as kernel.format = %q says", path, format)
	}
	return nil
}
