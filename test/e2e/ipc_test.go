package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// ipcEnv makes this binary one that leaves something in each kind of IPC object (make), or looks for it (find).
const ipcEnv = "KRUNPOD_E2E_IPC"

// ipcKey names the objects of System V (sysvipc(7)), queueName the POSIX one (mq_overview(7)).
const (
	ipcKey    = 0x6b72756e
	queueName = "krunpod"
)

func ipc(role string) {
	flags := uintptr(0)
	open := unix.O_RDWR | unix.O_NONBLOCK
	if role == "make" {
		flags = unix.IPC_CREAT | 0o600
		open |= unix.O_CREAT
	}
	fmt.Println("memory:", say(ipcMemory(role, flags)))
	fmt.Println("semaphore:", say(ipcSemaphore(role, flags)))
	fmt.Println("messages:", say(ipcMessages(role, flags)))
	fmt.Println("posix queue:", say(ipcQueue(role, open)))
	os.Exit(0)
}

func say(text string, errno unix.Errno) string {
	if errno != 0 {
		return errno.Error()
	}
	return text
}

const left = "left here"

func ipcMemory(role string, flags uintptr) (string, unix.Errno) {
	id, _, errno := unix.Syscall(unix.SYS_SHMGET, ipcKey, 4096, flags)
	if errno != 0 {
		return "", errno
	}
	data, err := unix.SysvShmAttach(int(id), 0, 0)
	if err != nil {
		return "", err.(unix.Errno)
	}
	if role == "make" {
		copy(data, left)
	}
	return string(data[:len(left)]), 0
}

func ipcSemaphore(role string, flags uintptr) (string, unix.Errno) {
	const getValue, setValue = 12, 16 // GETVAL and SETVAL, semctl(2)
	id, _, errno := unix.Syscall(unix.SYS_SEMGET, ipcKey, 1, flags)
	if errno == 0 && role == "make" {
		_, _, errno = unix.Syscall6(unix.SYS_SEMCTL, id, 0, setValue, 7, 0, 0)
	}
	if errno != 0 {
		return "", errno
	}
	value, _, errno := unix.Syscall6(unix.SYS_SEMCTL, id, 0, getValue, 0, 0, 0)
	return fmt.Sprint(value), errno
}

func ipcMessages(role string, flags uintptr) (string, unix.Errno) {
	id, _, errno := unix.Syscall(unix.SYS_MSGGET, ipcKey, flags, 0)
	if errno != 0 {
		return "", errno
	}
	var message struct {
		kind int64
		text [len(left)]byte
	}
	if role == "make" {
		message.kind = 1
		copy(message.text[:], left)
		_, _, errno = unix.Syscall6(unix.SYS_MSGSND, id, uintptr(unsafe.Pointer(&message)), uintptr(len(left)), unix.IPC_NOWAIT, 0, 0)
		return left, errno
	}
	_, _, errno = unix.Syscall6(unix.SYS_MSGRCV, id, uintptr(unsafe.Pointer(&message)), uintptr(len(left)), 0, unix.IPC_NOWAIT, 0)
	return string(message.text[:]), errno
}

func ipcQueue(role string, open int) (string, unix.Errno) {
	name, err := unix.BytePtrFromString(queueName)
	if err != nil {
		return "", unix.EINVAL
	}
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), uintptr(open), 0o600, 0, 0, 0)
	if errno != 0 {
		return "", errno
	}
	buf := make([]byte, 8192) // msgsize_max, mq_overview(7)
	if role == "make" {
		copy(buf, left)
		_, _, errno = unix.Syscall6(unix.SYS_MQ_TIMEDSEND, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(left)), 0, 0, 0)
		return left, errno
	}
	n, _, errno := unix.Syscall6(unix.SYS_MQ_TIMEDRECEIVE, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
	if errno != 0 {
		return "", errno
	}
	return string(buf[:n]), 0
}

// IPC objects of System V and POSIX are the pod's: its containers share them, other pods do not.
func TestSameIPC(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	compareWithRunc(t, "ipc", 12, func(s *side) {
		run := func(p *testpod.Pod, name, role string) {
			config := testpod.ContainerConfig(name, "exec /e2e.test")
			config.Envs = []*runtime.KeyValue{{Key: ipcEnv, Value: []byte(role)}}
			config.Mounts = []*runtime.Mount{{HostPath: self, ContainerPath: "/e2e.test", Readonly: true}}
			k := s.container(p, config)
			s.waitExit(k)
			out, errs, err := k.Log()
			if err != nil || errs != "" {
				s.Errorf("under %s: %s: %v %s", s.handler, name, err, errs)
			}
			for line := range strings.Lines(out) {
				kind, what, _ := strings.Cut(strings.TrimSpace(line), ": ")
				s.see(name+"/"+kind, what)
				if found := what == left || what == "7"; found == (name == "other-pod") {
					s.Errorf("under %s, %s of %s: %q", s.handler, kind, name, what)
				}
			}
		}
		p := s.startPod()
		run(p, "maker", "make")
		run(s.startPod(), "other-pod", "find")
		run(p, "other-container", "find")
	}, "krun")
}
