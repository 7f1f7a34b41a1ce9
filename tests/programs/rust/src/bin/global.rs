// Blocks of a Rust program by its global allocator: plain, zeroed, over-aligned, large, moved, given back.
// totals: allocated=3524100/151 freed=2822675/147 current=701425/4 peak=3523187/140
// counters: moves=11
#![no_main]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};

#[cfg(feature = "tikv")]
#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(feature = "snmalloc")]
#[global_allocator]
static GLOBAL: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a valid layout")
}

/// Without Rust's own start-up, which allocates.
///
/// # Safety
/// Called by the C library once.
#[unsafe(no_mangle)]
unsafe extern "C" fn main() -> i32 {
    let (plain, aligned, large, grown) = (layout(83, 1), layout(320, 64), layout(700_001, 8), layout(1021, 1));
    let mut blocks = [std::ptr::null_mut::<u8>(); 97];
    let mut zeroed = [std::ptr::null_mut::<u8>(); 31];
    let mut over = [std::ptr::null_mut::<u8>(); 7];
    let mut big = [std::ptr::null_mut::<u8>(); 5];
    // SAFETY: every block is given back with the layout that it was made with; none is used.
    unsafe {
        for block in &mut blocks {
            *block = std::hint::black_box(alloc(plain)); //@ allocated=8051/97 peak=7138/86
        }
        for block in &mut zeroed {
            *block = std::hint::black_box(alloc_zeroed(plain)); //@ allocated=2573/31 live=83/1 peak=2573/31
        }
        for block in &mut over {
            *block = std::hint::black_box(alloc(aligned)); //@ allocated=2240/7 live=320/1 peak=2240/7
        }
        for block in &mut big {
            *block = std::hint::black_box(alloc(large)); //@ allocated=3500005/5 live=700001/1 peak=3500005/5
        }
        for block in &mut blocks[..11] {
            *block = std::hint::black_box(realloc(*block, plain, 1021)); //@ allocated=11231/11 live=1021/1 peak=11231/11
        }
        for (i, block) in blocks.iter().enumerate().skip(1) {
            dealloc(*block, if i < 11 { grown } else { plain });
        }
        zeroed[1..].iter().for_each(|block| dealloc(*block, plain));
        over[1..].iter().for_each(|block| dealloc(*block, aligned));
        big[1..].iter().for_each(|block| dealloc(*block, large));
    }
    0
}
