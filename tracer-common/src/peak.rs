//! The exact peak in O(1) an event: the model, which the BPF side mirrors with atomics and which tests hold against
//! brute force.
//!
//! Per scope: current `G`, peak `P`, epoch `E`. Per stack: `live`, `at_peak`, `epoch`. A new highest total bumps `E`; a stack
//! that changes for the first time in an epoch saves its live bytes first. Reading: `at_peak` where the epochs agree,
//! else `live`.

/// One scope's running total.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopePeak {
    /// Bytes live now.
    pub current_bytes: u64,
    /// The highest value `current_bytes` ever had.
    pub peak_bytes: u64,
    /// Number of times that a new peak was reached.
    pub epoch: u64,
}

/// One stack's share.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackPeak {
    /// Bytes live now.
    pub live_bytes: u64,
    /// Blocks live now.
    pub live_count: u64,
    /// Bytes live at the scope's peak, valid when `epoch` is the scope's.
    pub at_peak_bytes: u64,
    /// Blocks live at the scope's peak, valid when `epoch` is the scope's.
    pub at_peak_count: u64,
    /// The scope's epoch at the last save.
    pub epoch: u64,
}

impl ScopePeak {
    /// Changes the total by `bytes` (signed) as one step and tells whether that was a new peak. A `realloc` that moves a
    /// block from one stack to another is one such step and two [`StackPeak::change`]s.
    pub fn change(&mut self, bytes: i64) -> bool {
        self.current_bytes = self.current_bytes.wrapping_add_signed(bytes);
        let new_peak = self.current_bytes > self.peak_bytes;
        if new_peak {
            self.peak_bytes = self.current_bytes;
            self.epoch += 1;
        }
        new_peak
    }
}

impl StackPeak {
    /// The stack's part in a step that [`ScopePeak::change`] just made.
    pub fn change(&mut self, scope_epoch: u64, new_peak: bool, bytes: i64, count: i64) {
        if !new_peak && self.epoch != scope_epoch {
            (self.at_peak_bytes, self.at_peak_count, self.epoch) = (self.live_bytes, self.live_count, scope_epoch);
        }
        self.live_bytes = self.live_bytes.wrapping_add_signed(bytes);
        self.live_count = self.live_count.wrapping_add_signed(count);
    }

    /// Bytes and blocks of this stack at the scope's peak.
    pub const fn at_peak(&self, scope_epoch: u64) -> (u64, u64) {
        if self.epoch == scope_epoch {
            (self.at_peak_bytes, self.at_peak_count)
        } else {
            (self.live_bytes, self.live_count)
        }
    }
}
