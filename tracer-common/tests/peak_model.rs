//! The peak's O(1) bookkeeping against brute force: a copy of all live totals at the first moment of the highest one.

use proptest::prelude::*;
use tracer_common::peak::{ScopePeak, StackPeak};

const N_STACKS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Event {
    Allocate {
        stack: usize,
        bytes: u64,
    },
    Free {
        pick: prop::sample::Index,
    },
    /// A realloc whose block moves to the stack that called it: one step of the total.
    Move {
        pick: prop::sample::Index,
        stack: usize,
        bytes: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..N_STACKS, 0u64..1000).prop_map(|(stack, bytes)| Event::Allocate { stack, bytes }),
        2 => any::<prop::sample::Index>().prop_map(|pick| Event::Free { pick }),
        2 => (any::<prop::sample::Index>(), 0..N_STACKS, 0u64..1000)
            .prop_map(|(pick, stack, bytes)| Event::Move { pick, stack, bytes }),
    ]
}

#[derive(Default)]
struct Model {
    scope: ScopePeak,
    stacks: [StackPeak; N_STACKS],
}

impl Model {
    /// Applies one step: `(stack, bytes, count)` changes that reach the total together.
    fn step(&mut self, changes: &[(usize, i64, i64)]) {
        let new_peak = self.scope.change(changes.iter().map(|change| change.1).sum());
        for &(stack, bytes, count) in changes {
            self.stacks[stack].change(self.scope.epoch, new_peak, bytes, count);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn the_distribution_at_the_peak_is_brute_forces(events in prop::collection::vec(event(), 0..200)) {
        let mut model = Model::default();
        let mut blocks: Vec<(usize, u64)> = Vec::new();
        let (mut peak_bytes, mut at_peak) = (0, [(0, 0); N_STACKS]);

        for event in events {
            match event {
                Event::Allocate { stack, bytes } => {
                    blocks.push((stack, bytes));
                    model.step(&[(stack, bytes as i64, 1)]);
                }
                Event::Free { .. } | Event::Move { .. } if blocks.is_empty() => {}
                Event::Free { pick } => {
                    let (stack, bytes) = blocks.swap_remove(pick.index(blocks.len()));
                    model.step(&[(stack, -(bytes as i64), -1)]);
                }
                Event::Move { pick, stack, bytes } => {
                    let n = pick.index(blocks.len());
                    let (old_stack, old_bytes) = std::mem::replace(&mut blocks[n], (stack, bytes));
                    model.step(&[(old_stack, -(old_bytes as i64), -1), (stack, bytes as i64, 1)]);
                }
            }
            let mut live = [(0, 0); N_STACKS];
            for &(stack, bytes) in &blocks {
                live[stack].0 += bytes;
                live[stack].1 += 1;
            }
            let total: u64 = live.iter().map(|stack| stack.0).sum();
            if total > peak_bytes {
                (peak_bytes, at_peak) = (total, live);
            }
            // A snapshot may be read at any moment.
            prop_assert_eq!(model.scope.current_bytes, total);
            prop_assert_eq!(model.scope.peak_bytes, peak_bytes);
            if peak_bytes > 0 {
                prop_assert_eq!(model.stacks.map(|stack| stack.at_peak(model.scope.epoch)), at_peak);
            }
        }
    }
}
