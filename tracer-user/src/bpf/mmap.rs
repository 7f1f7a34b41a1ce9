//! Map memory of `BPF_F_MMAPABLE` arrays: tables are read and written without a system call an element.

use std::{
    io,
    marker::PhantomData,
    ops::Deref,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
};

use aya::{
    Pod,
    maps::{Map, MapData},
};
use memmap2::{MmapOptions, MmapRaw};

/// An array map and its memory.
#[derive(Debug)]
pub struct MappedArray<T> {
    memory: ArrayMemory<T>,
    /// Keeps the map alive.
    map: MapData,
}

impl<T: Pod> MappedArray<T> {
    /// Maps an array whose values are `T`.
    ///
    /// # Errors
    /// The map is not an mmapable array of `T`, or mmap failed.
    pub fn new(map: Map) -> io::Result<Self> {
        let Map::Array(map) = map else { return Err(io::Error::other("not an array map")) };
        Ok(Self { memory: ArrayMemory::of(&map)?, map })
    }

    /// The map.
    pub fn map(&self) -> &MapData {
        &self.map
    }
}

impl<T> Deref for MappedArray<T> {
    type Target = ArrayMemory<T>;

    fn deref(&self) -> &ArrayMemory<T> {
        &self.memory
    }
}

/// An array map's memory. All its pages count as this process's while it is mapped.
#[derive(Debug)]
pub struct ArrayMemory<T> {
    memory: MmapRaw,
    len: usize,
    _value: PhantomData<T>,
}

impl<T: Pod> ArrayMemory<T> {
    /// Maps an array whose values are `T`; the memory stays when the map goes.
    ///
    /// # Errors
    /// The map is not an mmapable array of `T`, or mmap failed.
    pub fn of(map: &MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        // Values of an array map are spaced by their size rounded up to 8 (kernel/bpf/arraymap.c).
        if info.value_size() as usize != size_of::<T>() || !size_of::<T>().is_multiple_of(8) {
            return Err(io::Error::other(format!("values of {} bytes, not {}", info.value_size(), size_of::<T>())));
        }
        let len = info.max_entries() as usize;
        let memory = MmapOptions::new().len(len * size_of::<T>()).map_raw(map.fd().as_fd().as_raw_fd())?;
        Ok(Self { memory, len, _value: PhantomData })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Element `n`; the kernel side may be writing it, so each call reads anew.
    pub fn get(&self, n: usize) -> Option<T> {
        // SAFETY: in bounds; T is Pod, so that any bits are a value; volatile, because the kernel writes concurrently.
        (n < self.len).then(|| unsafe { ptr::read_volatile(self.memory.as_ptr().cast::<T>().add(n)) })
    }

    /// Writes element `n`; `false` when there is none.
    pub fn set(&self, n: usize, value: T) -> bool {
        if n >= self.len {
            return false;
        }
        // SAFETY: in bounds; volatile, because the kernel reads concurrently.
        unsafe { ptr::write_volatile(self.memory.as_mut_ptr().cast::<T>().add(n), value) };
        true
    }

    /// Pointer to element `n`, for single fields that the other side reads or writes at any time.
    pub fn element(&self, n: usize) -> Option<*mut T> {
        // SAFETY: in bounds.
        (n < self.len).then(|| unsafe { self.memory.as_mut_ptr().cast::<T>().add(n) })
    }
}
