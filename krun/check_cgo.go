//go:build linux && cgo && krun

package krun

// #define _GNU_SOURCE
// #include <dlfcn.h>
// #include <link.h>
// #include <stdlib.h>
// #include "libkrun.h"
//
// static const char *library_path(void *handle) {
//     struct link_map *map;
//     return dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 ? map->l_name : "";
// }
//
// // The library that libkrun's functions come from, or NULL when they are in this program itself. A function's address
// // would be this program's in either case (its PLT).
// static const char *libkrun_path(void) {
//     Dl_info info;
//     void *f = dlsym(RTLD_NEXT, "krun_create_ctx");
//     return f && dladdr(f, &info) ? info.dli_fname : NULL;
// }
import "C"

// Inspect gathers Info. firmware is the directory of libkrunfw, or empty for the loader's search path.
func Inspect(firmware string) Info {
	info := Info{Libkrun: LibkrunVersion, Features: map[string]bool{}}
	for name, number := range features {
		info.Features[name] = C.krun_has_feature(C.uint64_t(number)) == 1
	}
	if path := C.libkrun_path(); path != nil {
		info.useLibkrun(C.GoString(path))
	}
	info.judgeFeatures()
	var err error
	if info.KVM, err = kvmAPIVersion(); err != nil {
		info.Problems = append(info.Problems, Problem{PartKVM, err.Error()})
	} else {
		info.MaxVCPUs = int(C.krun_get_max_vcpus())
	}
	if handle, err := openFirmware(firmware); err != nil {
		info.Problems = append(info.Problems, Problem{PartFirmware, err.Error()})
	} else {
		info.Firmware = C.GoString(C.library_path(handle))
	}
	return info
}
