package cluster

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudoterminal (pty(7)) of a size.
func openTerminal(t *testing.T, rows, columns uint16) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	setSize(t, master, rows, columns)
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func setSize(t *testing.T, master *os.File, rows, columns uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
}

// sizes waits for a size and then for another, and ends with what is typed.
const sizes = `until [ "$(stty size)" = "33 101" ]; do sleep 1; done; echo first
until [ "$(stty size)" = "44 99" ]; do sleep 1; done; echo second
read code; exit "$code"`

// lookAtTerminal: a command by kubectl exec -it has a terminal of the size of the caller's, also after that has changed.
func (s *side) lookAtTerminal() {
	s.Helper()
	master, slave := openTerminal(s.T, 33, 101)
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kubectl", "--namespace", s.ns, "exec", "-it", "two", "-c", "web", "--", "sh", "-c", sizes)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	slave.Close()
	var said []string
	for scan := bufio.NewScanner(master); scan.Scan(); {
		line := strings.TrimSpace(scan.Text())
		said = append(said, line)
		switch line {
		case "first":
			setSize(s.T, master, 44, 99)
		case "second":
			if _, err := master.WriteString("6\n"); err != nil {
				s.Fatal(err)
			}
		}
	}
	if code := s.exit(cmd.Wait()); code != 6 {
		s.Errorf("kubectl ended with %d, having said %q", code, said)
	}
}
