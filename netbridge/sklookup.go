package netbridge

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Offsets in struct bpf_sk_lookup, include/uapi/linux/bpf.h. Addresses are in network byte order.
const (
	lookupFamily    = 8
	lookupProtocol  = 12
	lookupLocalIPv4 = 40
	lookupLocalIPv6 = 44
)

// Results of the program: enum sk_action.
const skPass = 1

// Slots of the program's map.
const (
	slotIPv4 = 0
	slotIPv6 = 1
)

// closers are closed together.
type closers []io.Closer

func (c closers) Close() (err error) {
	for _, one := range c {
		err = errors.Join(err, one.Close())
	}
	return err
}

// attachLookup leads TCP connections to a loopback address of the network namespace to the listener of that family.
func attachLookup(netns int, listeners []*net.TCPListener) (io.Closer, error) {
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "krunpod_listen", Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 2,
	})
	if err != nil {
		return nil, fmt.Errorf("make a map of sockets: %w", err)
	}
	// The program holds its map.
	defer sockets.Close()
	for _, l := range listeners {
		if err := putSocket(sockets, l); err != nil {
			return nil, err
		}
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "krunpod_lookup", Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup,
		License: "Apache-2.0", Instructions: lookupProgram(sockets.FD()),
	})
	if err != nil {
		return nil, fmt.Errorf("load a program for socket look-ups (BPF sk_lookup, Linux 5.9): %w", err)
	}
	attached, err := link.AttachNetNs(netns, program)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach a program for socket look-ups (BPF sk_lookup, Linux 5.9): %w", err), program.Close())
	}
	return closers{attached, program}, nil
}

func putSocket(sockets *ebpf.Map, l *net.TCPListener) error {
	slot := uint32(slotIPv6)
	if l.Addr().(*net.TCPAddr).IP.To4() != nil {
		slot = slotIPv4
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var putErr error
	if err := raw.Control(func(fd uintptr) { putErr = sockets.Put(slot, uint64(fd)) }); err != nil {
		return err
	}
	if putErr != nil {
		return fmt.Errorf("add a listener to the map of sockets: %w", putErr)
	}
	return nil
}

// lookupProgram passes everything but TCP to 127.0.0.0/8 and ::1, whose listener it assigns: bpf-helpers(7),
// bpf_sk_assign. It needs no helper of the GPL.
func lookupProgram(sockets int) asm.Instructions {
	const pass = "pass"
	ctx, scratch, socket := asm.R6, asm.R2, asm.R7
	load := func(offset int16, size asm.Size) asm.Instruction { return asm.LoadMem(scratch, ctx, offset, size) }
	program := asm.Instructions{
		asm.Mov.Reg(ctx, asm.R1),
		load(lookupProtocol, asm.Word),
		asm.JNE.Imm(scratch, unix.IPPROTO_TCP, pass),
		load(lookupFamily, asm.Word),
		asm.JEq.Imm(scratch, unix.AF_INET6, "ipv6"),
		asm.JNE.Imm(scratch, unix.AF_INET, pass),

		load(lookupLocalIPv4, asm.Byte),
		asm.JNE.Imm(scratch, 127, pass),
		asm.StoreImm(asm.RFP, -4, slotIPv4, asm.Word),
		asm.Ja.Label("find"),

		load(lookupLocalIPv6, asm.Word).WithSymbol("ipv6"),
		asm.JNE.Imm(scratch, 0, pass),
		load(lookupLocalIPv6+4, asm.Word),
		asm.JNE.Imm(scratch, 0, pass),
		load(lookupLocalIPv6+8, asm.Word),
		asm.JNE.Imm(scratch, 0, pass),
		load(lookupLocalIPv6+12, asm.Word),
		asm.HostTo(asm.BE, scratch, asm.Word),
		asm.JNE.Imm(scratch, 1, pass),
		asm.StoreImm(asm.RFP, -4, slotIPv6, asm.Word),

		asm.LoadMapPtr(asm.R1, sockets).WithSymbol("find"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, pass),
		asm.Mov.Reg(socket, asm.R0),
		asm.Mov.Reg(asm.R1, ctx),
		asm.Mov.Reg(asm.R2, socket),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnSkAssign.Call(),
		asm.Mov.Reg(asm.R1, socket),
		asm.FnSkRelease.Call(),

		asm.Mov.Imm(asm.R0, skPass).WithSymbol(pass),
		asm.Return(),
	}
	return program
}
