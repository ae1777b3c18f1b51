package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The conformance suite pulls its images from a registry by the names below; ours are served from the node's loopback
// (test/images/registry). They do what the suite's tests look at: users, tags, a web server, a setuid program.
const (
	suite   = "localhost:5000/e2e-test-images/"
	critest = "localhost:5000/k8s-staging-cri-tools/"
)

var searchPath = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// conformance lists the images of the conformance suite.
var conformance = append([]recipe{
	{name: suite + "busybox:1.29-2", files: users(nil), config: v1.Config{Env: searchPath, Cmd: []string{"sh"}}},
	{name: suite + "nginx:1.14-2", files: nginx("80"), config: webServer("exec nginx")},
	{name: critest + "hostnet-nginx-amd64:latest", files: nginx("12003"), config: webServer("exec nginx")},
	// The suite waits for this line in the log; the page is what is tested.
	{name: suite + "httpd:2.4.39-4", files: nginx("80"), config: webServer("echo httpd -D FOREGROUND; exec nginx")},
	{name: suite + "nonewprivs:1.3", files: setuid, config: v1.Config{Entrypoint: []string{"/nnp"}, User: "1000"}},
	{name: critest + "test-image-user-uid:latest", files: users(nil), config: user("1002")},
	{name: critest + "test-image-user-username:latest", files: users(nil), config: user("www-data")},
	{name: critest + "test-image-user-uid-group:latest", files: users(nil), config: user("1003:users")},
	{name: critest + "test-image-user-username-group:latest", files: users(nil), config: user("www-data:100")},
	{name: critest + "test-image-predefined-group:latest", files: users(nil), config: user("1000")},
	// Newer suites pull it under the names of two registries, which are one here: a mirror of both.
	{name: "localhost:5000/pause:3.9", files: pause, config: v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}},
}, tagged()...)

// tagged are the images of which the suite tests only the names: three that differ, and others that are one image.
func tagged() []recipe {
	var all []recipe
	for _, ref := range []string{"test-image-1:latest", "test-image-2:latest", "test-image-3:latest",
		"test-image-latest:latest", "test-image-tag:test", "test-image-tag:all",
		"test-image-tags:1", "test-image-tags:2", "test-image-tags:3"} {
		content := ref
		if strings.HasPrefix(ref, "test-image-tags") {
			content = "test-image-tags"
		}
		all = append(all, recipe{name: critest + ref, files: users([]byte(content)), config: user("")})
	}
	return all
}

func user(u string) v1.Config { return v1.Config{User: u, Env: searchPath, Cmd: []string{"sh"}} }

func webServer(script string) v1.Config {
	return v1.Config{Env: searchPath, Cmd: []string{"/bin/sh", "-c", script}}
}

// users is busybox with the users and groups that the suite asks for, and an optional file that makes it another image.
// It is not the static busybox: the shell of that one runs an applet even where the suite has masked its file.
func users(mark []byte) func(string) ([]file, error) {
	return func(work string) ([]file, error) {
		files, err := busyboxOf(work, "busybox")
		if err != nil {
			return nil, err
		}
		files = replace(files, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n"+
			"default-user:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
		files = replace(files, "etc/group", "root:x:0:\nwww-data:x:33:\nusers:x:100:\ndefault-user:x:1000:\n"+
			"group-defined-in-image:x:50000:default-user\nnogroup:x:65534:\n")
		if mark != nil {
			files = append(files, file{path: "etc/mark", mode: 0o644, data: mark})
		}
		return addPrograms(files, work)
	}
}

func replace(files []file, path, content string) []file {
	for i := range files {
		if files[i].path == path {
			files[i].data = []byte(content)
		}
	}
	return files
}

// programs are what comes from other packages: an applet that Debian's busybox lacks, and the C library.
var programs = []struct{ path, pkg, from string }{
	{"usr/bin/ipcs", "util-linux", "bin/ipcs"},
	{"lib64/ld-linux-x86-64.so.2", "libc6", "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"},
	{"lib/libc.so.6", "libc6", "lib/x86_64-linux-gnu/libc.so.6"},
	{"lib/libresolv.so.2", "libc6", "lib/x86_64-linux-gnu/libresolv.so.2"},
}

// pgrep is another applet that Debian's busybox lacks: the processes whose name holds its first argument.
const pgrep = `#!/bin/sh
for p in /proc/[0-9]*; do
	read -r name 2>/dev/null <"$p/comm" || continue
	case $name in *"$1"*) echo "${p#/proc/}" ;; esac
done
`

func addPrograms(files []file, work string) ([]file, error) {
	files = append(files, file{path: "lib/", mode: 0o755}, file{path: "lib64/", mode: 0o755},
		file{path: "usr/bin/pgrep", mode: 0o755, data: []byte(pgrep)})
	for _, p := range programs {
		path, err := fromPackage(work, p.pkg, p.from)
		if err != nil {
			return nil, err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files = append(files, file{path: p.path, mode: 0o755, data: data})
	}
	return files, nil
}

// nginxPackages are Debian's nginx and the libraries it is linked with.
var nginxPackages = map[string]string{
	"nginx": "sbin/nginx", "libpcre2-8-0": "lib/x86_64-linux-gnu/libpcre2-8.so.0",
	"libssl3": "lib/x86_64-linux-gnu/libssl.so.3", "zlib1g": "lib/x86_64-linux-gnu/libz.so.1",
	"libcrypt1": "lib/x86_64-linux-gnu/libcrypt.so.1", "libc6": "lib/x86_64-linux-gnu/libc.so.6",
}

// nginx is a web server on one port.
func nginx(port string) func(string) ([]file, error) {
	return func(work string) ([]file, error) {
		files, err := users(nil)(work)
		if err != nil {
			return nil, err
		}
		for pkg, path := range nginxPackages {
			if _, err := fromPackage(work, pkg, path); err != nil {
				return nil, err
			}
		}
		files = append(files, file{path: "usr/sbin/", mode: 0o755}, file{path: "usr/share/", mode: 0o755},
			file{path: "usr/share/nginx/", mode: 0o755}, file{path: "var/run/", mode: 0o755}, file{path: "var/log/", mode: 0o755},
			file{path: "var/log/nginx/", mode: 0o755}, file{path: "var/lib/", mode: 0o755},
			file{path: "var/lib/nginx/", mode: 0o755}, file{path: "etc/nginx/", mode: 0o755},
			file{path: "etc/nginx/nginx.conf", mode: 0o644, data: []byte(nginxConfig(port))},
			file{path: "usr/share/nginx/index.html", mode: 0o644, data: []byte("<html><body>Welcome to nginx!</body></html>\n")})
		program, err := os.ReadFile(filepath.Join(work, "nginx/usr/sbin/nginx"))
		if err != nil {
			return nil, err
		}
		files = append(files, file{path: "usr/sbin/nginx", mode: 0o755, data: program})
		return libraries(files, work)
	}
}

func nginxConfig(port string) string {
	return `daemon off; user nobody nogroup; worker_processes 1; pid /var/run/nginx.pid; error_log /dev/stderr;
events { worker_connections 64; }
http { access_log /dev/stdout; server { listen ` + port + `; listen [::]:` + port + `; root /usr/share/nginx; } }
`
}

// libraries adds the shared objects of the unpacked packages in one directory, where the loader looks first.
func libraries(files []file, work string) ([]file, error) {
	const dir = "lib/x86_64-linux-gnu/"
	files = append(files, file{path: dir, mode: 0o755})
	for pkg := range nginxPackages {
		for _, pattern := range []string{"lib/x86_64-linux-gnu/*.so*", "usr/lib/x86_64-linux-gnu/*.so*"} {
			found, err := filepath.Glob(filepath.Join(work, pkg, pattern))
			if err != nil {
				return nil, err
			}
			for _, path := range found {
				// A link's target is what the loader would open: its content under the link's name.
				info, err := os.Stat(path)
				if err != nil || info.Mode()&fs.ModeType != 0 {
					continue
				}
				data, err := os.ReadFile(path)
				if err != nil {
					return nil, err
				}
				files = append(files, file{path: dir + filepath.Base(path), mode: 0o755, data: data})
			}
		}
	}
	return files, nil
}

// setuid is a program that says who it is, owned by root with the setuid bit.
func setuid(work string) ([]file, error) {
	data, err := program(work, "nnp")
	if err != nil {
		return nil, err
	}
	files, err := users(nil)(work)
	return append(files, file{path: "nnp", mode: 0o4755, data: data}), err
}
