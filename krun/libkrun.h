// The functions of libkrun 1.19 that Krunpod calls (libkrun's include/libkrun.h). All but krun_create_ctx return 0 or
// a negative errno.
#ifndef KRUNPOD_LIBKRUN_H
#define KRUNPOD_LIBKRUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int32_t krun_init_log(int target_fd, uint32_t level, uint32_t style, uint32_t options);
int32_t krun_create_ctx(void);
int32_t krun_set_vm_config(uint32_t ctx, uint8_t vcpus, uint32_t ram_mib);
int32_t krun_set_kernel(uint32_t ctx, const char *path, uint32_t format, const char *initramfs, const char *cmdline);
int32_t krun_disable_implicit_init(uint32_t ctx);
int32_t krun_disable_implicit_vsock(uint32_t ctx);
int32_t krun_add_virtiofs4(uint32_t ctx, const char *tag, const char *path, uint64_t dax_size, bool read_only,
                           uint32_t semantics);
int32_t krun_fs_add_overlay_file(uint32_t ctx, const char *tag, const char *path, const uint8_t *data, size_t size,
                                 uint32_t mode, bool one_shot);
int32_t krun_fs_add_overlay_dir(uint32_t ctx, const char *tag, const char *path, uint32_t mode);
int32_t krun_add_vsock(uint32_t ctx, uint32_t tsi_features);
int32_t krun_add_vsock_port2(uint32_t ctx, uint32_t port, const char *path, bool listen);
int32_t krun_add_net_tap(uint32_t ctx, const char *tap, const uint8_t *mac, uint32_t features, uint32_t flags);
int32_t krun_add_net_unixstream(uint32_t ctx, const char *path, int fd, const uint8_t *mac, uint32_t features,
                                uint32_t flags);
int32_t krun_set_console_output(uint32_t ctx, const char *path);
int32_t krun_set_env(uint32_t ctx, const char *const envp[]);
int32_t krun_start_enter(uint32_t ctx);
int32_t krun_has_feature(uint64_t feature);
int32_t krun_get_max_vcpus(void);

#endif
