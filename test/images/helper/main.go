// Command helper does in a container what no command of its image does, for the cluster's tests.
package main

import (
	"fmt"
	"os"
)

var roles = map[string]func(args []string) error{"health": health, "watch": watch, "listen": listen, "dial": dial, "csi": serveCSI}

func main() {
	if len(os.Args) < 3 || roles[os.Args[1]] == nil {
		fmt.Println("usage: helper health PORT FILE | watch DIR... | listen SOCKET... | dial SOCKET | csi DRIVER NODE VOLUMES")
		os.Exit(2)
	}
	if err := roles[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
