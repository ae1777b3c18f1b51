package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// recipe is one image.
type recipe struct {
	name   string
	files  func(work string) ([]file, error)
	config v1.Config
}

// catalog lists every image by the name that the tests use.
var catalog = []recipe{
	{
		name:  "localhost/krunpod/busybox:1",
		files: busybox,
		config: v1.Config{
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Cmd: []string{"sh"},
		},
	},
	{
		name:   "localhost/krunpod/observe:1",
		files:  observer,
		config: v1.Config{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
	},
	{
		name:   "localhost/krunpod/helper:1",
		files:  helper,
		config: v1.Config{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
	},
	{
		name:   "localhost/krunpod/pause:1",
		files:  pause,
		config: v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"},
	},
}

// base is what every image with users and temporary files has.
var base = []file{
	{path: "bin/", mode: 0o755},
	{path: "dev/", mode: 0o755},
	{path: "etc/", mode: 0o755},
	{path: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
	{path: "etc/group", mode: 0o644, data: []byte("root:x:0:\nnogroup:x:65534:\n")},
	{path: "proc/", mode: 0o755},
	{path: "root/", mode: 0o700},
	{path: "sys/", mode: 0o755},
	{path: "tmp/", mode: 0o1777},
	{path: "usr/", mode: 0o755},
	{path: "usr/bin/", mode: 0o755},
	{path: "var/", mode: 0o755},
}

// busybox is Debian's busybox-static with a hard link for each of its applets.
func busybox(work string) ([]file, error) { return busyboxOf(work, "busybox-static") }

func busyboxOf(work, pkg string) ([]file, error) {
	binary, err := fromPackage(work, pkg, "bin/busybox")
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(binary, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list the applets of busybox: %w", err)
	}
	files := append([]file{}, base...)
	files = append(files, file{path: "bin/busybox", mode: 0o755, data: data})
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			files = append(files, file{path: "bin/" + a, mode: 0o755, link: "bin/busybox"})
		}
	}
	return files, nil
}

// fromPackage downloads a Debian package through the machine's own apt and returns the path of one of its files.
func fromPackage(work, pkg, path string) (string, error) {
	dir := filepath.Join(work, pkg)
	for _, p := range []string{path, "usr/" + path} {
		if full := filepath.Join(dir, p); exists(full) {
			return full, nil
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	get := exec.Command("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", pkg)
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		return "", fmt.Errorf("download Debian package %s: %w: %s", pkg, err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("download Debian package %s: found %v", pkg, debs)
	}
	if out, err := exec.Command("dpkg-deb", "-x", debs[0], dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpack %s: %w: %s", debs[0], err, out)
	}
	for _, p := range []string{path, "usr/" + path} {
		if full := filepath.Join(dir, p); exists(full) {
			return full, nil
		}
	}
	return "", fmt.Errorf("package %s has no %s", pkg, path)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// pause is a binary that does nothing, for runc's pods.
func pause(work string) ([]file, error) {
	data, err := program(work, "pause")
	return []file{{path: "pause", mode: 0o755, data: data}}, err
}

// observer is busybox with the program that says what it sees.
func observer(work string) ([]file, error) { return busyboxWith(work, "observe") }

// helper is busybox with the program that does what busybox does not.
func helper(work string) ([]file, error) { return busyboxWith(work, "helper") }

func busyboxWith(work, name string) ([]file, error) {
	files, err := busybox(work)
	if err != nil {
		return nil, err
	}
	data, err := program(work, name)
	return append(files, file{path: "bin/" + name, mode: 0o755, data: data}), err
}

// program builds one of the programs below this directory, static.
func program(work, name string) ([]byte, error) {
	binary := filepath.Join(work, name+".program")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "krun.dev/krunpod/test/images/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w: %s", name, err, out)
	}
	return os.ReadFile(binary)
}
