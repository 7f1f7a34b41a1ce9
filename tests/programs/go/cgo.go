// A Go program that allocates through cgo: 123 blocks of 77 bytes by C's malloc, 100 of them freed; Go's own heap is not C's.
// totals: allocated=9471/123 freed=7700/100 current=1771/23 peak=9471/123
package main

/*
#include <stdlib.h>
static void *made[123];
static __attribute__((noinline)) void make(void) { for (int i = 0; i < 123; i++) made[i] = malloc(77); }
static __attribute__((noinline)) void release(void) { for (int i = 0; i < 100; i++) free(made[i]); }
*/
import "C"

import (
	"fmt"
	"runtime"
)

func grow(n int) int {
	var pad [128]int
	if n == 0 {
		return pad[0]
	}
	return grow(n-1) + pad[n%128]
}

func main() {
	C.make()
	done := make(chan int)
	// Stacks that grow are moved, while the collector walks them.
	for i := 0; i < 8; i++ {
		go func() { done <- grow(200) }()
	}
	for i := 0; i < 8; i++ {
		<-done
	}
	runtime.GC()
	C.release()
	fmt.Println("right")
}
