// A Go program without cgo: no allocator of it is traced, and it runs on as if nothing had happened.
package main

import (
	"bufio"
	"fmt"
	"os"
)

var kept [][]byte

func main() {
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		os.Exit(2)
	}
	for i := 0; i < 1000; i++ {
		kept = append(kept, make([]byte, 1003))
	}
	fmt.Println("right")
}
