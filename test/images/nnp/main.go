// Command nnp says its effective user id: whether its own setuid bit was in force.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Printf("Effective uid: %d\n", os.Geteuid()) }
